"""The two ends of a ring as Python code has them: ``EventProducer``, ``Reservation``, ``EventConsumer``, ``Lease``.

Here is what calls of an end check and do: which thread may call, time-outs, counts, logging, forks, event loops.
``_producer_base`` and ``_consumer_base`` have what each call checks; ``_native`` is the same for ctypes and Numba.

Not here: how the ring itself works (``_ring.pyx``, ``core/``), and which ring an end is of (``bus/``).
"""
