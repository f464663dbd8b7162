"""`selvedge doctor`: examinations that find common mistakes by trying, one file a subject.

Each has a function that takes the `Installation` and gives what it found; none changes anything.
"""
