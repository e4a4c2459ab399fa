"""Getting what a ring dropped: ``follow`` reads it from the event log, ``GapCursor`` only reports it.

- ``follow``: the public function and ``Follower``, with its two drivers;
- ``state``: the state machine that both drivers use;
- ``start``: where a follower begins;
- ``thread_call``: a blocking call, awaited on an event loop;
- ``gaps``: ``GapCursor``.

Not here: how an event log stores events (``log/``).
"""
