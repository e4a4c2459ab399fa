"""SQL over the last batches in DuckDB, while more come in.

Needs duckdb and pyarrow (``pip install nodedb_ring[examples]``). Run: ``python examples/duckdb_last_batches.py``

The rows of a batch go to Arrow as columns, after those of their events. Several batches become one table without
a copy, and DuckDB scans it in place. A batch that leaves the deque is freed when no query uses it any more.
"""

import threading
from collections import Counter, deque
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from nodedb_ring import EventBatch, EventProducer, RowSchema, WriteOp, create_event_bus, encode_rows

EVENTS, BATCH, LAST = 50_000, 1000, 8
CARRIERS = ["AA", "B6", "DL", "UA"]
FLIGHT = RowSchema({"carrier": "str", "dep_delay": "int64"})
TOP = """
    SELECT carrier, count(*) AS flights, max(sequence) AS latest, sum(dep_delay) AS minutes
    FROM recent WHERE op = 'INSERT' GROUP BY carrier ORDER BY flights DESC, carrier LIMIT 3
"""


def carrier(n: int) -> str:
    """That of flight n: what is busy changes with time."""
    return CARRIERS[(n // 5000 + n % 3) % 4]


def delay(n: Any) -> Any:
    """Minutes of flight n, or of an array of them."""
    return n % 61 - 20


def write(producer: EventProducer) -> None:
    """The database's core, on a thread of its own. Each third event is an update."""
    with producer:
        for first in range(1, EVENTS + 1, BATCH):
            sequence = np.arange(first, first + BATCH)
            producer.emit_batch(
                EventBatch.from_columns(
                    sequence=sequence,
                    lsn=sequence,
                    op=np.where(sequence % 3, WriteOp.INSERT, WriteOp.UPDATE),
                    collection="flights",
                    row_id=[str(n) for n in sequence],
                    new_value=encode_rows(
                        {"carrier": [carrier(n) for n in sequence.tolist()], "dep_delay": delay(sequence)}
                    ),
                )
            )


def main() -> None:
    """Asks after each tenth batch."""
    (producer,), (consumer,) = create_event_bus(1)
    thread = threading.Thread(target=write, args=(producer,))
    thread.start()
    batches: deque[pa.RecordBatch] = deque(maxlen=LAST)
    top: list[tuple[str, int, int, int]] = []
    with duckdb.connect() as database:
        for number, batch in enumerate(consumer, 1):
            batches.append(pa.record_batch(batch.rows("new_value", FLIGHT).with_events("sequence", "op")))
            if number % 10 == 0 or batch.sequence[-1] == EVENTS:
                database.register("recent", pa.Table.from_batches(batches))
                top = database.execute(TOP).fetchall()
                print(f"the last {len(batches)} of {number} batches: {top}")
    thread.join()
    first = batches[0]["sequence"][0].as_py()
    flights: Counter[str] = Counter()
    minutes: Counter[str] = Counter()
    for n in range(first, EVENTS + 1):
        if n % 3:
            flights[carrier(n)] += 1
            minutes[carrier(n)] += delay(n)
    busiest = sorted(flights, key=lambda name: (-flights[name], name))[:3]
    assert [(name, count, late) for name, count, _, late in top] == [(n, flights[n], minutes[n]) for n in busiest]


if __name__ == "__main__":
    main()
