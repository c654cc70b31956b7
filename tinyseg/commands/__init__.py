"""What the scripts in `examples/` run, one file a command.

`options` has what their command lines share, `numbers` the ranges, `settings` the defaults and those of a resumed run,
`script` how they run and end, `output` how they print, `tables` what they print.
"""
