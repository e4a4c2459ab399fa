"""Events as rows and columns: ``WriteEvent``, the schema, ``EventBatch``, and how values are checked on the way in.

Here is what reads and writes events in memory, Arrow's exchange of them among it (``arrow/``). Not here: how they pass
through a ring (``ends/``), and how a log stores them (``log/encoding.py``).
"""
