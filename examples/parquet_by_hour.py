"""Appends rows to a Parquet dataset by hour, each row once, wherever the archiver is killed.

Needs pyarrow (``pip install nodedb_ring[examples]``). Run: ``python examples/parquet_by_hour.py``

Files are made aside and renamed into place, and then the watermark is saved. Their names begin with the number of their
first event: so whoever starts again sees which were in place and not committed yet, removes those, and gets their
events from the log once more. Readers never see half a file, and after a restart no event twice.
"""

import itertools
import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from nodedb_ring import (
    EventBatch,
    EventBus,
    EventConsumer,
    EventLog,
    RowSchema,
    WriteOp,
    encode_rows,
    follow,
    logged,
)
from nodedb_ring.log.sqlite import SqliteEventLog

EVENTS, BATCH, GROUP = 50_000, 1000, "parquet"
START = np.datetime64("2013-01-01T05:00", "ms")
FLIGHT = RowSchema({"carrier": "str", "number": "int64", "dep_delay": "int64"})
BY_HOUR = ds.partitioning(pa.schema([("hour", pa.string())]), flavor="hive")


def place(batches: list[EventBatch], root: Path) -> None:
    """Writes files, an hour each, and puts them into the dataset."""
    # Plain columns: pyarrow picks no rows out of views, which sorting them into files takes.
    rows = [batch.rows("new_value", FLIGHT).with_events("sequence", "system_time_ms").plain() for batch in batches]
    table = pa.Table.from_batches([pa.record_batch(part) for part in rows])
    table = table.append_column("hour", pc.strftime(table["system_time_ms"], "%Y-%m-%dT%H"))
    aside = root / "_making"  # datasets leave out what begins with an underscore
    name = f"{batches[0].sequence[0]:020}-{{i}}.parquet"
    ds.write_dataset(table, aside, format="parquet", partitioning=BY_HOUR, basename_template=name)
    for file in aside.glob("hour=*/*"):
        target = root / file.relative_to(aside)
        target.parent.mkdir(exist_ok=True)
        file.rename(target)
    shutil.rmtree(aside)


def archive(consumer: EventConsumer, log: EventLog, root: Path, chunk: int, placed: Callable[[], None]) -> None:
    """Follows a core until its producer is gone, `chunk` events at a time; calls `placed` before each commit."""
    shutil.rmtree(root / "_making", ignore_errors=True)
    committed = log.load_watermark(GROUP, consumer.core_id) or 0
    for file in root.glob("hour=*/*.parquet"):
        if int(file.name.split("-")[0]) > committed:
            file.unlink()
    batches: list[EventBatch] = []
    with follow(consumer, log, group=GROUP) as follower:
        for batch in follower:
            batches.append(batch)
            if sum(map(len, batches)) >= chunk:
                place(batches, root)
                placed()
                follower.commit()
                batches.clear()
        if batches:
            place(batches, root)
            follower.commit()


def archiver(bus: EventBus, path: Path, root: Path, chunk: int, last: int) -> None:
    """The archiver's process, which dies when its `last` chunk is in place, and not committed."""
    number = itertools.count(1)
    with bus.consumer(0) as consumer, SqliteEventLog(path) as log:
        archive(consumer, log, root, chunk, lambda: os._exit(9) if next(number) == last else None)


def write(bus: EventBus, path: Path) -> None:
    """The database's core: eight hours of flights."""
    with SqliteEventLog(path) as log, logged(bus.producer(0), log) as core:
        for first in range(1, EVENTS + 1, BATCH):
            sequence = np.arange(first, first + BATCH)
            core.emit_batch(
                EventBatch.from_columns(
                    sequence=sequence,
                    lsn=sequence,
                    op=WriteOp.INSERT,
                    collection="flights",
                    row_id=[str(n) for n in sequence],
                    new_value=encode_rows(
                        {"carrier": ["UA"] * BATCH, "number": sequence, "dep_delay": sequence % 61 - 20}
                    ),
                    system_time_ms=START + 575 * sequence,
                )
            )


def main() -> None:
    """The first archiver is killed on the way, and the second continues."""
    with tempfile.TemporaryDirectory() as name, EventBus.create(f"parquet-by-hour-{os.getpid()}", num_cores=1) as bus:
        path, root = Path(name, "events.log"), Path(name, "events")
        root.mkdir()
        context = multiprocessing.get_context("spawn")
        try:
            write(bus, path)
            counts = []
            for chunk, last in ((10_000, 2), (4_000, 0)):
                process = context.Process(target=archiver, args=(bus, path, root, chunk, last))
                process.start()
                process.join()
                counts.append(ds.dataset(root, partitioning=BY_HOUR).count_rows())
        finally:
            bus.unlink()
        table = ds.dataset(root, partitioning=BY_HOUR).to_table(columns=["sequence", "hour", "number", "dep_delay"])
    table = table.sort_by("sequence")
    assert 20_000 <= counts[0] < counts[1] == EVENTS
    numbers = np.arange(1, EVENTS + 1)
    assert np.array_equal(table["number"], numbers)
    assert np.array_equal(table["dep_delay"], numbers % 61 - 20)
    hours = len(pc.unique(table["hour"]))
    print(f"{counts[0]} events in place when the first was killed, {counts[1]} after the second: {hours} hours")


if __name__ == "__main__":
    main()
