"""Names of logs, numbered events, and the numbers that a log has."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING

from nodedb_ring import EventBatch, WriteOp

if TYPE_CHECKING:
    from nodedb_ring.log.jetstream import JetStreamEventLog

SERVERS_OWN_BYTES = 64 << 10
names = (f"log{number}" for number in itertools.count())


def numbered(first: int, count: int, size: int = 20, mark: bytes = b"") -> EventBatch:
    values = [mark + str(number).encode().rjust(size, b".") for number in range(first, first + count)]
    return EventBatch.from_columns(
        sequence=range(first, first + count), collection="t", op=WriteOp.INSERT, row_id="r", lsn=1, new_value=values
    )


def numbers(batches: Iterator[EventBatch]) -> list[int]:
    return [int(number) for batch in batches for number in batch.sequence]


def everything(log: JetStreamEventLog, core_id: int = 0) -> list[int]:
    return numbers(log.read(core_id, 0, 2**64 - 1))


async def stored(url: str, stream: str, position: int) -> bytes:
    import nats  # as in conftest.py

    client = await nats.connect(url)
    message = await client.jetstream().get_msg(stream, position)
    await client.close()
    return message.data or b""
