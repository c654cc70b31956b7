"""Solutions to the exercises of the notebooks, which `teaching.solution("6.2")` shows.

A solution is a section of `notebook_06` that begins with a line ``# %% 2``: reasons as
comments, code, and the name ``solution_2``. That is the answer, or a function that
computes it from what the notebook has. In the notebooks they would be in the way of
those who still think.
"""
