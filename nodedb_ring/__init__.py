"""An event bus from a database's cores to analytics: one bounded ring per core, which never makes its writer wait.

``create_event_bus`` returns the producers and consumers of a bus within a process; processes share an ``EventBus``.
A producer ``emit``s events or batches, and the return value says whether one was dropped. A consumer ``drain``s events
into NumPy columns. ``logged`` appends to a log before it emits, and ``follow`` reads dropped events from that log.
"""

from .core.backpressure import BackpressureConfig, PressureState
from .errors import (
    ArgumentError,
    BatchError,
    BusyError,
    CapacityError,
    ClosedError,
    CorruptLogError,
    CorruptRingError,
    EventLoopError,
    EventTooLargeError,
    FieldError,
    ForkError,
    GapError,
    LayoutError,
    LogConflictError,
    LogError,
    LogUnavailableError,
    OwnershipError,
    RingError,
    RoleTaken,
    RowError,
    UnknownColumnError,
)

try:
    from ._ring import EventRing
    from .batch._event import WriteEvent
    from .batch.schema import EVENT_DTYPE, EventSource, WriteOp
    from .ends._consumer import EventConsumer
    from .ends._lease import Lease
    from .ends._producer import EventProducer
    from .ends._reservation import Reservation
except ModuleNotFoundError as _error:
    if _error.name is None or not _error.name.startswith(__name__):
        raise
    raise ImportError(
        f"{_error.name} is not built: nodedb_ring runs from a source tree only after `pip install -e .` there, "
        "which needs a C compiler"
    ) from _error

from .batch._event_batch import EventBatch
from .batch.projection import PlainStream, Projection
from .batch.rows._encode import encode_rows
from .batch.rows.encoded import EncodedRows
from .batch.rows.projection import RowProjection
from .batch.rows.rows import Rows
from .batch.rows.schema import RowSchema
from .bus.event_bus import DEFAULT_EVENT_BUS_CAPACITY, EventBus, create_event_bus
from .ends.stats import ConsumerStats, FollowStats, ProducerStats, RingStats
from .fan_in._merger import Merger
from .fan_in.commits import CommitMerger
from .fan_in.merge import merge
from .fan_in.wait import wait, wait_async
from .log import (
    CommitNumbers,
    EventLog,
    ExclusiveEventLog,
    GroupClaim,
    IdentifiedEventLog,
    JoiningEventLog,
    LiveEventLog,
    NumberedEventLog,
    StoredCommit,
)
from .log.producer import LoggedProducer, logged
from .recovery.follow import Follower, follow
from .recovery.gaps import GapCursor

__version__ = "0.2.0"

__all__ = [
    "DEFAULT_EVENT_BUS_CAPACITY",
    "EVENT_DTYPE",
    "ArgumentError",
    "BackpressureConfig",
    "BatchError",
    "BusyError",
    "CapacityError",
    "ClosedError",
    "CommitMerger",
    "CommitNumbers",
    "ConsumerStats",
    "CorruptLogError",
    "CorruptRingError",
    "EncodedRows",
    "EventBatch",
    "EventBus",
    "EventConsumer",
    "EventLog",
    "EventLoopError",
    "EventProducer",
    "EventRing",
    "EventSource",
    "EventTooLargeError",
    "ExclusiveEventLog",
    "FieldError",
    "FollowStats",
    "Follower",
    "ForkError",
    "GapCursor",
    "GapError",
    "GroupClaim",
    "IdentifiedEventLog",
    "JoiningEventLog",
    "LayoutError",
    "Lease",
    "LiveEventLog",
    "LogConflictError",
    "LogError",
    "LogUnavailableError",
    "LoggedProducer",
    "Merger",
    "NumberedEventLog",
    "OwnershipError",
    "PlainStream",
    "PressureState",
    "ProducerStats",
    "Projection",
    "Reservation",
    "RingError",
    "RingStats",
    "RoleTaken",
    "RowError",
    "RowProjection",
    "RowSchema",
    "Rows",
    "StoredCommit",
    "UnknownColumnError",
    "WriteEvent",
    "WriteOp",
    "create_event_bus",
    "encode_rows",
    "follow",
    "get_include",
    "logged",
    "merge",
    "wait",
    "wait_async",
]


def get_include() -> str:
    """The directory to pass as ``include_path`` when compiling Cython code that cimports ``nodedb_ring._ring``."""
    from pathlib import Path

    return str(Path(__file__).parent.parent)
