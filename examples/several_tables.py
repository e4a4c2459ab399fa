"""The tables of two databases as data frames, kept from one stream of events per database.

Needs polars, apsw and msgpack (``pip install nodedb_ring[examples]``). Run: ``python examples/several_tables.py``

A ring carries the events of all tables of its database, in the order in which they were committed. ``split`` takes each
batch apart by table, and then every part has rows with the same columns. A follower per database reads what its ring
drops from the log, which lies in the database itself.
"""

import contextlib
import tempfile
import threading
from pathlib import Path

import apsw
import polars as pl

from nodedb_ring import EventProducer, RowSchema, create_event_bus, follow, merge
from nodedb_ring.capture import SqliteCapture
from nodedb_ring.log.sqlite import SqliteEventLog

CORES, ORDERS = 2, 10_000
CREATE = """
    CREATE TABLE orders (id INTEGER PRIMARY KEY, customer TEXT, cents INTEGER) STRICT;
    CREATE TABLE payments (order_id INTEGER PRIMARY KEY, cents INTEGER, method TEXT) STRICT;
"""
SCHEMAS = {
    "orders": RowSchema({"id": "int64", "customer": "str", "cents": "int64"}),
    "payments": RowSchema({"order_id": "int64", "cents": "int64", "method": "str"}),
}


def write(path: Path, log: SqliteEventLog, producer: EventProducer) -> None:
    """The database's core, on a thread of its own: orders are placed, changed and paid, ten in each transaction."""
    core_id = producer.core_id
    with producer, contextlib.closing(apsw.Connection(str(path))) as connection:
        connection.set_busy_timeout(10_000)  # ms: the follower writes to the log, too, which is in this database
        connection.execute(CREATE)
        with SqliteCapture(connection, producer, tables=[*SCHEMAS], log=log):
            for first in range(1, ORDERS + 1, 10):
                ids = [n for n in range(first, first + 10) if n % CORES == core_id]
                with connection:
                    connection.executemany("INSERT INTO orders VALUES (?, ?, 0)", [(n, f"C{n % 100}") for n in ids])
                    connection.executemany("UPDATE orders SET cents = ? WHERE id = ?", [(n % 97, n) for n in ids])
                    paid = [(n, n % 97) for n in ids if n % 10]
                    connection.executemany("INSERT INTO payments VALUES (?, ?, 'card')", paid)


def latest(table: str, parts: list[pl.DataFrame]) -> pl.DataFrame:
    """The last row of each key: the table as it stands."""
    key = next(iter(SCHEMAS[table]))
    return pl.concat(parts).unique(key, keep="last").sort(key)


def main() -> None:
    """Follows both databases, and compares the frames with the tables."""
    producers, consumers = create_event_bus(CORES, capacity=1024)
    parts: dict[str, list[pl.DataFrame]] = {table: [] for table in SCHEMAS}
    stored: dict[str, list[tuple[object, ...]]] = {table: [] for table in SCHEMAS}
    with contextlib.ExitStack() as ends:
        folder = Path(ends.enter_context(tempfile.TemporaryDirectory()))
        paths = [folder / f"shop.{core_id}" for core_id in range(CORES)]
        logs = [ends.enter_context(SqliteEventLog(path, driver="apsw")) for path in paths]
        threads = [threading.Thread(target=write, args=core) for core in zip(paths, logs, producers, strict=True)]
        for thread in threads:
            thread.start()
        followers = [
            ends.enter_context(follow(consumer, log, group="frames"))
            for consumer, log in zip(consumers, logs, strict=True)
        ]
        for _, batch in merge(followers):
            for table, events in batch.split("collection").items():
                parts[table].append(pl.DataFrame(events.rows("new_value", SCHEMAS[table])))
        for thread in threads:
            thread.join()
        for path in paths:
            with contextlib.closing(apsw.Connection(str(path))) as connection:
                for table in SCHEMAS:
                    stored[table] += connection.execute(f"SELECT * FROM {table}").fetchall()
    frames = {table: latest(table, parts[table]) for table in SCHEMAS}
    for table, frame in frames.items():
        assert frame.rows() == sorted(stored[table])
    unpaid = frames["orders"].join(frames["payments"], left_on="id", right_on="order_id", how="anti")
    print(f"{len(frames['orders'])} orders, {len(frames['payments'])} payments, {unpaid['cents'].sum()} cents not paid")


if __name__ == "__main__":
    main()
