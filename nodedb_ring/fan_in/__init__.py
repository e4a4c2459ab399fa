"""One reader for many cores: ``wait`` says which ends have something, ``merge`` yields their batches in turn.

- ``wait``, ``merge``: the public functions;
- ``_wait_set``: ``WaitSet``, the ends of one wait: who may wait on them, which are ready, and one sleep on all;
- ``_merger``: ``Merger``, whose turn it is;
- ``commits``: ``CommitMerger``, the same in the order of a database's commits;
- ``asynchronous``: ``wait`` on an event loop.

Not here: how a ring wakes a waiter (``core/_waiting.pyx``); what a follower does between ring and log (``recovery/``).
"""
