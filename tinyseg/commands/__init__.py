"""What the scripts in `examples/` run, one file a command; `options` has what they share."""
