"""A trained network as one page that runs it in a browser."""
