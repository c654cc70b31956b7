"""The tests of the lessons, a file each: `test_K_…` is of the lesson's task K, and `draw` makes its picture.

They are run by `tinyseg.learn.course.run`, where a student's files have taken the place of tinyseg's. What is right
they know from elsewhere than tinyseg.
"""
