"""The paper's experiments again: what it reports, studies of several networks and seeds, tables, figures.

`examples/reproduce_tables.py` puts them together.
"""
