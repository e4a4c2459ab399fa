"""What a ring is made of, beneath every Python object: atomics, the kernel's calls, and the settings of a ring.

Nothing here knows an event's columns, and nothing imports from the other folders.
"""
