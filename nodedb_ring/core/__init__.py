"""What a ring is made of, beneath every Python object.

``nodedb_layout.h`` says what lies where. ``push.pxd`` and ``take.pxd`` are the hot paths, which are inlined.
``_room``, ``_bulk``, ``_waiting``, ``_claims`` and ``succession`` are the ring's other chapters. The docstring of
``_ring.pyx`` says who owns which row at each moment. What other Cython code may use, ``_ring.pxd`` lists.

Not here: ends, batches, and whatever else Python code sees. Nothing here imports from the other folders.
"""
