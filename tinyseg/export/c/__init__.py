"""A trained network as a program in C, and its weights as one file."""
