"""``Need``: what a follower needs next, the states of the machine in ``state.py``.

======== ================================= ======================================== ===================================
Need     The driver                        Answer                                   Next
======== ================================= ======================================== ===================================
DRAIN    drains the ring without waiting   events from ``owed`` on                  RETURN with them, then DRAIN
                                           events after a hole                      READ, up to the hole's end
                                           nothing, and a number was dropped        READ, up to the last number tried
                                           nothing, and the log is to be asked      LAST
                                           nothing                                  WAIT
READ     reads the log's next batch        events from ``owed`` on                  RETURN with them, then READ
                                           events after a hole, or the end of the   ``GapError``, then READ
                                           log before the hole's end
                                           the hole is filled                       DRAIN
LAST     asks the log for its last number  ``owed`` or above                        READ, up to that number
                                           less, and the producer has gone          RETURN with nothing: the end
                                           less                                     WAIT
WAIT     drains the ring, waiting at most  as for DRAIN
         ``seconds`` for an event
         when the call's time is over      --                                       RETURN with nothing
RETURN   returns to its caller
======== ================================= ======================================== ===================================

Without a ring, DRAIN does not occur: a call begins with LAST. In place of WAIT there is GROW: the driver waits at most
``seconds`` for the log to have more, and LAST follows. A follower that outlives the ring's producer does the same while
there is none, in place of the end; DRAIN follows then, for the ring's next producer.

**Lingering.** A follower that waits for a batch to fill does not return with the events of DRAIN, READ and WAIT, but
gathers them in ``_pieces`` and goes on, until they are as many as a batch may have, the time for that is over, or what
comes next does not belong to them: a gap, a heartbeat that is passed over, the end.
"""

from __future__ import annotations

import enum

__all__ = ["Need"]


class Need(enum.Enum):
    """What a follower needs next; the table above has the transitions."""

    DRAIN = "drain"
    WAIT = "wait"
    READ = "read"
    LAST = "last"
    GROW = "grow"
    RETURN = "return"
