"""The experiments of the paper repeated: what it reports, studies of several networks and seeds, tables, figures.

`examples/reproduce_tables.py` runs `command`, which puts them together.
"""
