"""What students work with: figures, drawn graphs, animations (`teaching`)."""
