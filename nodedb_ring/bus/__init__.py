"""Where rings live: ``create_event_bus`` within a process, ``EventBus`` for processes that share a file.

Here are memory, files, names and directories. Not here: what is done with the ends of a ring (``ends/``).
"""
