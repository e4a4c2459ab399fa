"""Reading on past what a ring dropped: ``follow`` takes it from the log, ``GapCursor`` tells that it is missing.

Not here: how a log stores events (``log/``).
"""
