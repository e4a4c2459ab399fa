"""Fields of events and of reserved rows, as Hypothesis draws them."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from nodedb_ring import EventSource, WriteOp

u64 = st.one_of(st.integers(0, 9), st.just(2**64 - 1), st.integers(0, 2**64 - 1))
texts = st.text(max_size=6)
timestamps = st.none() | st.integers(1 - 2**63, 2**63 - 1)
blobs = st.none() | st.binary(max_size=30)


@st.composite
def fixed_fields(draw: st.DrawFn) -> dict[str, Any]:
    """The fields of an event that lie in its row, without the sequence number."""
    return {
        "op": draw(st.sampled_from(WriteOp)),
        "lsn": draw(u64),
        "tenant_id": draw(u64),
        "vshard_id": draw(st.integers(0, 2**32 - 1)),
        "source": draw(st.sampled_from(EventSource)),
        "count": draw(st.integers(0, 2**32 - 1)),
        "system_time_ms": draw(timestamps),
        "valid_time_ms": draw(timestamps),
    }


@st.composite
def contents(draw: st.DrawFn) -> dict[str, Any]:
    """All fields of an event but the sequence number; often small, sometimes empty."""
    if draw(st.booleans()):
        return {"op": WriteOp.HEARTBEAT, "lsn": 0, "collection": "", "row_id": ""}
    variable = {
        "collection": draw(texts),
        "row_id": draw(texts),
        "user_id": draw(st.none() | texts),
        "statement_digest": draw(st.none() | texts),
        "new_value": draw(blobs),
        "old_value": draw(blobs),
    }
    return draw(fixed_fields()) | variable


# A field of a reserved row as a stretch of the shared block, in parts of it; None is None where a field may be that.
stretches = st.none() | st.tuples(st.integers(0, 60), st.integers(0, 30))
reserved_rows = st.lists(st.tuples(fixed_fields(), st.tuples(*[stretches] * 6)), min_size=1, max_size=6)
