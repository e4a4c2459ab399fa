"""Guards without the GIL, each taken away once. Only on a CPython without one: with it the guards are nothing.

A race is met by number, not by construction. So each check runs many rounds, and several times before it has failed to
see a mutant.
"""

from __future__ import annotations

from .mutant import Mutant

SECTION = "    @cython.critical_section\n"
MUTANTS = [
    Mutant("free threads: two threads emit at once", "first producer", "ends/_producer.pyx",
           ((SECTION + "    def emit(", "    def emit("),)),
    Mutant("free threads: two threads emit a batch at once", "first producer", "ends/_producer.pyx",
           (("        with cython.critical_section(self, root_of(block)):\n",
             "        if True:\n"),)),
    Mutant("free threads: a producer is closed in the midst of a call", "closed producer", "ends/_producer.pyx",
           ((SECTION + "    def close(", "    def close("),)),
    Mutant("free threads: two threads drain at once", "first consumer", "ends/_consumer.pyx",
           (("        with cython.critical_section(self.ring):\n"
             "            limit = self.begin_take(max_events, timeout, &most)\n"
             "            if ring_available(self._ring, 1) == 0 and",
             "        if True:\n"
             "            limit = self.begin_take(max_events, timeout, &most)\n"
             "            if ring_available(self._ring, 1) == 0 and"),)),
    Mutant("free threads: a ring has two producers", "one end", "ends/_producer_base.pyx",
           (("        with cython.critical_section(ring):\n            if ring.has_producer:",
             "        if True:\n            if ring.has_producer:"),)),
    Mutant("free threads: the rows of a lease go back beside a drain", "dropped leases", "ends/_lease.pyx",
           (("            with cython.critical_section(self.ring):\n                if self.ring.ring.local.alive:",
             "            if True:\n                if self.ring.ring.local.alive:"),)),
    Mutant("free threads: a lease ends while an event of it is read", "read leases", "batch/_row_block.pyx",
           (("            with cython.critical_section(root):\n                self.check_open()\n",
             "            if True:\n                self.check_open()\n"),)),
    Mutant("free threads: what others dropped waits for the sleeper", "asleep", "ends/_consumer_base.pyx",
           (("        PyErr_CheckSignals()\n        run_pending()\n        if rings[0]",
             "        PyErr_CheckSignals()\n        if rings[0]"),)),
]  # fmt: skip
