"""A trained network as a package of bioimage.io."""
