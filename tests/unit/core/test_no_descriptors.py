"""A process that has no file descriptor left: what needs none continues, from the first call."""

from __future__ import annotations

import pytest

from tests.unit.runners import in_new_interpreter

PROGRAM = """
import resource
import numpy as np
from nodedb_ring import ArgumentError, EventBatch, GapCursor, WriteEvent, WriteOp, create_event_bus

(producer,), (consumer,) = create_event_bus(1, capacity=64)
resource.setrlimit(resource.RLIMIT_NOFILE, (0, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
event = WriteEvent(sequence=1, collection="c", op=WriteOp.INSERT, row_id="r", lsn=1, new_value=b"v")
batch = EventBatch.from_events([event])
{call}
print("continued")
"""
CALLS = {
    "one event": "assert producer.emit(event) and list(consumer.drain()) == [event]",
    "a batch": "assert producer.emit_batch(batch) == 1 and len(consumer.drain()) == 1",
    "columns": "EventBatch.from_columns(sequence=[1], lsn=np.arange(1), op=1, collection='c', row_id=['r'])",
    "records": "EventBatch(batch.records, batch.payload)",
    "a slice": "assert len(batch[:][batch.op == 1][[True]]) == 1",
    "strings": "assert batch.strings('row_id') == ['r'] and batch.values('new_value') == [b'v'] and repr(batch)",
    "a lease": "producer.emit(event)\nwith consumer.lease() as leased: assert leased.sequence.tolist() == [1]",
    "a reservation": "with producer.reserve(1, payload_bytes=8) as rows: rows['op'] = 1; rows['lsn'] = [1]",
    "a wait": "assert len(consumer.drain(timeout=0.01)) == 0",
    "gaps": "producer.emit(event); assert len(GapCursor(consumer).drain()[0]) == 1",
    "numbers": "consumer.stats(), producer.stats(), producer.pressure_state",
    "the ends": "producer.close(); consumer.close()",
    "Arrow": "batch.__arrow_c_schema__(), batch.__arrow_c_array__(), batch.plain().__arrow_c_array__()",
    "what is refused": (
        "try:\n    producer.emit_batch(batch, timeout=-1)\nexcept ArgumentError as error: assert str(error)"
    ),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_calls_that_need_no_descriptor_work(call: str) -> None:
    assert in_new_interpreter(PROGRAM.format(call=call)) == "continued\n"
