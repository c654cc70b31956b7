"""What students work with: figures and animations (`teaching`), drawn graphs (`graph_picture`)."""
