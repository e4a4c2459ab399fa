"""Leases: their end, a fork, a traceback that keeps what is left of one."""

from __future__ import annotations

from .mutant import Mutant

MUTANTS = [
    Mutant("index entries of an out-of-order release not written", "lease", "core/take.pxd",
           (("    if position != released:\n", "    if False:\n"),), ("core/_bulk", "ends/_lease"), also="traffic"),
    Mutant("arena released up to the newest lease", "lease", "core/take.pxd",
           (("tail = side.oldest.arena_start", "tail = side.newest.arena_start"),), ("core/_bulk", "ends/_consumer", "ends/_lease")),
    Mutant("a lease over two laps detected by offsets", "lease", "ends/_lease.pyx",
           (("        if row_lap(last) != row_lap(self.rows):\n",
             "        if last.span_offset < self.rows.span_offset:\n"),)),
    Mutant("fork: the bytes up to the arena's end are not copied", "fork", "ends/fork_snapshot.h",
           (("        memcpy(to + arena->held_start, arena->bytes + arena->held_start, first);\n", ""),), ("ends/_lease",)),
    Mutant("fork: the bytes at the arena's beginning not copied", "fork", "ends/fork_snapshot.h",
           (("        memcpy(to, arena->bytes, arena->held_size - first);\n", ""),), ("ends/_lease",)),
    Mutant("fork: the copy is not moved to the leases' addresses", "fork", "ends/fork_snapshot.h",
           (("mremap(arena->copy, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, page) == page;", "1;"),), ("ends/_lease",)),
    Mutant("fork: a copy used although its allocation failed", "fork", "ends/fork_snapshot.h",
           (("        if (!arena->is_kept)\n", "        if (0)\n"),), ("ends/_lease",)),
    Mutant("fork: a child without a copy may read its lease", "fork", "ends/_lease.pyx",
           (("self.ring.ring.local.alive == 0 and not self.arena.snapshot.is_kept", "False"),)),
    Mutant("fork: a child without access copies for its child", "fork", "ends/fork_snapshot.h",
           (("!arena->is_leased || *arena->alive == 0", "!arena->is_leased"),), ("ends/_lease",)),
    Mutant("fork: a release does not update the range to copy", "fork", "ends/_lease.pyx",
           (("                        ring_release(&self.ring.ring, &self.lease)\n                        self.arena.hold()\n",
             "                        ring_release(&self.ring.ring, &self.lease)\n"),)),
    Mutant("fork: leases in the mapping that later claims use", "fork", "bus/event_bus.py",
           (("self._ring(core_id, own_mapping=True)", "self._ring(core_id)"),), ()),
    Mutant("traceback: a slice delays the release", "traceback", "ends/_lease.pyx",
           ((" or (by_exception and self.pins == 0)", ""),)),
    Mutant("traceback: the last array does not release the rows", "traceback", "ends/_lease.pyx",
           (("        if self.ended_by_exception:\n", "        if False:\n"),)),
    Mutant("traceback: a slice caches its records", "traceback", "batch/_event_batch.pyx",
           ((" and batch.block.parent is not None)", " and False)"),)),
    Mutant("traceback: an array kept after the end of its lease", "traceback", "batch/_event_batch.pyx",
           (("    return batch.drop_arrays() if is_over else 0\n", "    return 0\n"),)),
]  # fmt: skip
