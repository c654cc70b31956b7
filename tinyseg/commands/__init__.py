"""What the scripts in `examples/` run, one file a command.

`options` has what their command lines share, `script` how they run and end, `tables` what they print.
"""
