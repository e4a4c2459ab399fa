"""Making rings: ``create_event_bus`` within a process, ``EventBus`` in a file that processes share.

Here are memory, files, names and directories. Not here: what is done with the ends of a ring (``ends/``).
"""
