"""The course: seven lessons in which students write the engine, the ops, the networks and the training themselves.

- `lessons` lists the lessons and their tasks: which functions of which files of tinyseg are to be written.
- `skeleton` takes the bodies of these functions out of tinyseg's own sources, `layout` writes a student's folder.
- `checks` has a file of tests for each lesson, and the picture that a student's code draws when they all pass.
- `check` runs a lesson's tests in a process of its own (`run`), in which the student's files take the place of
  tinyseg's (`substitute`), and says what is right, what is wrong and by how much (`tinyseg.learn.comparing`).
- `pages` has what a student reads.

The solutions are tinyseg itself.
"""
