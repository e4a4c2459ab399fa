"""The columns inside the values: events' MessagePack maps read as columns, by a schema that is given or inferred.

Here is what knows MessagePack. Not here: the columns of the events themselves (``batch/_event_batch.pyx``), and how
their memory is lent to Arrow's importers (``batch/arrow/``).
"""
