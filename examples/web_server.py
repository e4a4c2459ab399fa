"""A table kept from events, and the web server that shows it, on one event loop.

Needs starlette and uvicorn (``pip install nodedb_ring[examples]``). Run: ``python examples/web_server.py``

``async for`` waits on a file descriptor, so the server answers while no event comes, and the table moves while nobody
asks. Both are coroutines of one thread: a request never sees half of a batch, and nothing needs a lock.
"""

import asyncio
import json
import socket
import urllib.request
from collections import Counter
from typing import Any

import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from nodedb_ring import EventBatch, EventConsumer, EventProducer, WriteOp, create_event_bus

EVENTS, BATCH = 50_000, 1000
CARRIERS = ["AA", "B6", "UA"]


def write(producer: EventProducer) -> None:
    """The database's core, on a thread of its own."""
    with producer:
        for first in range(1, EVENTS + 1, BATCH):
            sequence = np.arange(first, first + BATCH)
            carriers = [CARRIERS[n % 3] for n in sequence]
            producer.emit_batch(
                EventBatch.from_columns(
                    sequence=sequence, lsn=sequence, op=WriteOp.INSERT, collection="flights", row_id=carriers
                )
            )


class Table:
    """Flights by carrier, up to an event."""

    def __init__(self) -> None:
        self.sequence = 0
        self.flights: Counter[str] = Counter()

    async def keep(self, consumer: EventConsumer) -> None:
        """Ends when the producer has gone."""
        async for batch in consumer:
            self.flights.update(batch.strings("row_id"))
            self.sequence = int(batch.sequence[-1])

    async def show(self, _: Request) -> JSONResponse:
        """GET /flights."""
        return JSONResponse({"sequence": self.sequence, "flights": self.flights})


def ask(port: int) -> Any:
    """What a client elsewhere gets."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/flights", timeout=10) as answer:
        seen = json.load(answer)
    assert sum(seen["flights"].values()) == seen["sequence"]
    return seen


async def main() -> None:
    """Serves until a client has seen the last event."""
    (producer,), (consumer,) = create_event_bus(1)
    table = Table()
    app = Starlette(routes=[Route("/flights", table.show)])
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
    with socket.create_server(("127.0.0.1", 0)) as listening:  # port 0: whichever is free
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(server.serve(sockets=[listening]))
            tasks.create_task(table.keep(consumer))
            tasks.create_task(asyncio.to_thread(write, producer))
            requests = 1
            while (seen := await asyncio.to_thread(ask, listening.getsockname()[1]))["sequence"] < EVENTS:
                requests += 1
            server.should_exit = True
    assert seen["flights"] == Counter(CARRIERS[n % 3] for n in range(1, EVENTS + 1))
    print(f"request {requests}: {seen}")


if __name__ == "__main__":
    asyncio.run(main())
