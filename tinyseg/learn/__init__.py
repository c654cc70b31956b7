"""What students work with.

- `teaching` has what the notebooks use: figures, animations, drawn graphs (`graph_picture`), and checks of answers to
  their exercises (`answers`)
- `course` is the course, in which students write tinyseg themselves
- `comparing` says how a result differs from what it should be, for both
"""
