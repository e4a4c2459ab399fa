"""Getting what a ring dropped: ``follow`` reads it from the event log, ``GapCursor`` only reports it.

- ``follow``: the public function; ``follower``: ``Follower``, with its two drivers;
- ``state``: the state machine that both drivers use; ``need``: its states; ``pieces``: the next events of a batch;
- ``hand``: what was taken for a merge by commit, and not yielded yet;
- ``joining``: a log's batches in those of the size that is asked for;
- ``start``: where a follower begins, and whether the log is still the same;
- ``thread_call``: a blocking call, awaited on an event loop;
- ``gaps``: ``GapCursor``.

Not here: how an event log stores events (``log/``).
"""
