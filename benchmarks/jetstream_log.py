"""What the log on JetStream costs beside a bare publisher: ``python -m benchmarks.jetstream_log [batches]``.

A nats-server is started on a free loopback port. ``JetStreamEventLog.append_all`` and a loop of nats-py alone write the
same messages with the same headers and as many publishes in flight, each to a stream of its own with file storage; what
is stored is compared first, and then the two are timed in turn.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

import nats
import numpy as np
from nats.js import JetStreamContext

from nodedb_ring import EventBatch, WriteOp
from nodedb_ring.log.jetstream import JetStreamEventLog
from tests.unit.log.nats_server import NatsServer

from .measure import check, no_collection

EVENTS = 1024
VALUE_BYTES = 128
WINDOW = 16
ROUNDS = 9
TARGET = 0.7


def batches(first: int, count: int) -> list[EventBatch]:
    data = np.arange(EVENTS * VALUE_BYTES, dtype=np.uint8).tobytes()
    return [
        EventBatch.from_columns(
            sequence=np.arange(start, start + EVENTS),
            collection="orders",
            op=WriteOp.INSERT,
            row_id=[str(number) for number in range(start, start + EVENTS)],
            lsn=start,
            new_value=(data, np.arange(EVENTS + 1) * VALUE_BYTES),
        )
        for start in range(first, first + count * EVENTS, EVENTS)
    ]


async def publish_bare(
    context: JetStreamContext, subject: str, bodies: list[bytes], heads: list[dict[str, str]]
) -> None:
    """Bodies and headers are ready; `WINDOW` publishes are in flight, as nats-py has it."""
    slots = asyncio.Semaphore(WINDOW)

    async def one(body: bytes, headers: dict[str, str]) -> None:
        async with slots:
            await context.publish(subject, body, headers=headers)

    await asyncio.gather(*(one(body, headers) for body, headers in zip(bodies, heads, strict=True)))


async def publish_futures(
    context: JetStreamContext, subject: str, bodies: list[bytes], heads: list[dict[str, str]]
) -> None:
    """The same through ``publish_async``, whose own limit on what is in flight is the window."""
    acks = [
        await context.publish_async(subject, body, headers=headers) for body, headers in zip(bodies, heads, strict=True)
    ]
    for ack in acks:
        await ack


async def run(url: str, count: int) -> None:
    client = await nats.connect(url)
    context = client.jetstream(timeout=10, publish_async_max_pending=WINDOW)
    await context.add_stream(name="bare", subjects=["bare.core.0"])
    loop = asyncio.get_running_loop()
    clock = time.perf_counter
    ours_rates: list[float] = []
    ways = (publish_bare, publish_futures)
    way_rates: tuple[list[float], list[float]] = ([], [])
    position = size = 0
    with JetStreamEventLog(url, "ours", window=WINDOW) as log:
        for turn in range(ROUNDS + 1):
            ready = batches(turn * count * EVENTS, count)
            start = clock()
            with no_collection():
                await loop.run_in_executor(None, log.append_all, 0, ready)
            ours = clock() - start
            stored = [await context.get_msg("ours_core_0", position + n + 1) for n in range(count)]
            bodies = [message.data or b"" for message in stored]
            size = len(bodies[0])
            heads = [
                {
                    "Nats-Msg-Id": str(position + n),
                    "Nats-Expected-Stream": "bare",
                    "Nats-Expected-Last-Sequence": str(position + n),
                }
                for n in range(count)
            ]
            took: list[float] = []
            half = count // 2
            for way, part in zip(ways, (slice(0, half), slice(half, count)), strict=True):
                start = clock()
                with no_collection():
                    await way(context, "bare.core.0", bodies[part], heads[part])
                took.append((clock() - start) / len(bodies[part]) * count)
            position += count
            if turn == 0:
                read = list(await loop.run_in_executor(None, lambda: list(log.read(0, 0, count * EVENTS - 1))))
                check("events read", list(EventBatch.concat(read)), list(EventBatch.concat(ready)))
                check("bare messages", (await context.stream_info("bare")).state.last_seq, count)
                continue
            ours_rates.append(count / ours)
            for rates, seconds in zip(way_rates, took, strict=True):
                rates.append(count / seconds)
        events = count * ROUNDS * EVENTS
        start = clock()
        found = await loop.run_in_executor(None, lambda: sum(len(batch) for batch in log.read(0, 0, events - 1)))
        replay = clock() - start
        check("events replayed", found, events)
    await client.close()
    # The faster of the two ways that nats-py has.
    bare_rates = max(way_rates, key=statistics.median)
    ratios = [ours / bare for ours, bare in zip(ours_rates, bare_rates, strict=True)]
    ratio = statistics.median(ratios)
    print(f"messages of {size} bytes, {EVENTS} events; {WINDOW} in flight; medians of {ROUNDS} rounds")
    print(f"append_all       {statistics.median(ours_rates):8.0f} batches/s")
    print(f"bare nats-py     {statistics.median(bare_rates):8.0f} batches/s")
    print(f"ratio            {ratio:8.2f}   (target at least {TARGET}; rounds {min(ratios):.2f} to {max(ratios):.2f})")
    print(f"replay           {events / replay / 1e6:8.2f} M events/s")


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    with tempfile.TemporaryDirectory() as directory, NatsServer(Path(directory)) as server:
        asyncio.run(run(server.url, count))


if __name__ == "__main__":
    main()
