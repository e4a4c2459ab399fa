"""What a killed process leaves in a shared ring, and what its successor makes of it."""

from __future__ import annotations

from .mutant import Mutant

WRITE_INDICES = (
    "        first = <uint32_t>(rows - ring.rows)\n"
    "        for i in range(count):\n"
    "            ring.index[(released + i) & ring.mask] = first + i\n"
)
RELEASE = "    store_release(&header.released, released + count)\n"
MUTANTS = [
    Mutant("killed: arena_head stored after published", "step", "core/push.pxd",
           (("    store_release(&header.arena_head, arena_head)\n    side.published = published\n",
             "    side.published = published\n"),
            ("    store_release(&header.published, published)\n    ring_attempted(ring, sequence)\n",
             "    store_release(&header.published, published)\n"
             "    store_release(&header.arena_head, arena_head)\n    ring_attempted(ring, sequence)\n")), ("core/_bulk",)),
    Mutant("killed: arena_released stored before released", "step", "core/take.pxd",
           ((RELEASE + "    if tail != header.arena_released:\n", "    if tail != header.arena_released:\n"),
            ("        store_release(&header.arena_released, tail)\n",
             "        store_release(&header.arena_released, tail)\n" + RELEASE)), ("core/_bulk",)),
    Mutant("killed: index entries after released", "step", "core/take.pxd",
           ((WRITE_INDICES, "        pass\n"),
            (RELEASE,
             RELEASE + "    for i in range(count):\n"
             "        ring.index[(released + i) & ring.mask] = <uint32_t>(rows - ring.rows) + i\n")), ("core/_bulk",)),
    Mutant("killed: a successor ignores the intent", "step", "core/succession.pxd",
           (("    if load_relaxed_u32(&header.intended) != 0:\n", "    if False:\n"),), ("_ring",)),
    Mutant("killed: no intent before a publication", "step", "core/push.pxd",
           (("        return PUSH_TOO_LARGE\n    ring_intend(ring, sequence)\n", "        return PUSH_TOO_LARGE\n"),), ("core/_bulk",)),
    Mutant("killed: outstanding rows taken from the index", "step", "core/succession.pxd",
           (("        for i in range(ring.capacity):\n            if not is_free[i]:\n"
             "                rows[found].row = <uint32_t>i\n",
             "        for i in range(ring.capacity):\n            if i < count:\n"
             "                rows[found].row = ring.index[(released + i) & ring.mask]\n"),
            ("load_relaxed(&ring.rows[i].position)", "load_relaxed(&ring.rows[rows[found].row].position)")), ("_ring",)),
    Mutant("killed: taken events not delivered again", "step", "core/succession.pxd",
           (("        side.taken = side.released = side.cached_published = released\n"
             "        store_release(&header.taken, released)\n",
             "        side.released = released\n        side.taken = side.cached_published = taken\n"),), ("_ring",), also="kill"),
    Mutant("killed: outstanding rows in order of row number", "step", "core/succession.pxd",
           (("        qsort(rows, found, sizeof(Outstanding), _older_first)\n", ""),
            (" or rows[i].age == age:\n", ":\n")), ("_ring",)),
    Mutant("killed: redelivered events not counted", "step", "core/succession.pxd",
           (("            store_relaxed(&header.redelivered, header.redelivered + (taken - released))\n",
             "            pass\n"),), ("_ring",)),
    Mutant("killed: taken stored before the index entries", "step", "core/succession.pxd",
           (("        for i in range(found):\n            ring.index[(released + i) & ring.mask] = rows[i].row\n",
             "        store_release(&header.taken, released)\n"
             "        for i in range(found):\n            ring.index[(released + i) & ring.mask] = rows[i].row\n"),), ("_ring",)),
    Mutant("killed: arena_lap stored before arena_head", "step", "core/_room.pyx",
           (("    store_release(&ring.header.arena_head, side.arena_head)\n"
             "    store_release(&ring.header.arena_lap, side.arena_lap)\n",
             "    store_release(&ring.header.arena_lap, side.arena_lap)\n"
             "    store_release(&ring.header.arena_head, side.arena_head)\n"),)),
    Mutant("killed: a successor ignores arena_floor", "step", "core/succession.pxd",
           (("    side.cached_tail = floor if is_after(floor, tail) else tail\n    if side",
             "    side.cached_tail = tail\n    if side"),), ("_ring",)),
    Mutant("killed: a holder's death not detected", "death", "core/_claims.pyx",
           (("    if not is_locked(ring.role_fd, 2 * <uint64_t>ring.core_id + role)"
             " or (ring.peer_fd >= 0 and has_ended(ring.peer_fd)):\n", "    if False:\n"),)),
    Mutant("killed: a live end can be claimed again", "role", "core/_claims.pyx",
           (("acquire_role(file_fd, 2 * <uint64_t>ring.core_id + role)",
             "acquire_role(file_fd, 2 * <uint64_t>ring.core_id + role + 2 * <uint64_t>getpid())"),), also="kill"),
]  # fmt: skip
