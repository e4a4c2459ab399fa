"""What a ring consists of, below all Python objects.

``nodedb_layout.h`` has the layout. ``push.pxd`` and ``take.pxd`` are the hot paths, which are inlined.
``_room``, ``_bulk``, ``_waiting``, ``_waking``, ``_claims`` and ``succession`` are the ring's other chapters. The
docstring of ``_ring.pyx`` says who owns which row at each moment. What other Cython code may use, ``_ring.pxd`` lists.

Not here: ends, batches, and everything else that Python code sees. Nothing here imports from the other folders.
"""
