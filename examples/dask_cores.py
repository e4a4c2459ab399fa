"""Dask workers that follow a JetStream log, each its share of the cores; together they have every event once.

Needs dask and nats-py (``pip install nodedb_ring[examples]``) and a nats-server with JetStream.
Run: ``python examples/dask_cores.py [nats://host:4222]``. Without an address it starts a server of its own on loopback.

Each core has one follower in a group, as a ring has one reader. So the cores are divided among the workers. Each
follower commits its watermark, and the next follower of the core in that group, on any machine, continues there.
"""

import asyncio
import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dask.config
import nats
import numpy as np
from dask.distributed import Client, LocalCluster

from nodedb_ring import EventBatch, WriteOp, follow
from nodedb_ring.log.jetstream import JetStreamEventLog

CORES, EVENTS, BATCH = 4, 20_000, 500
TABLES = ["airports", "flights", "planes"]
WORKERS: Any = {"n_workers": 2, "processes": True, "threads_per_worker": 1, "dashboard_address": None}


def write(url: str, stream: str, core_id: int) -> None:
    """What a database's core does: all of its events into the log."""
    with JetStreamEventLog(url, stream) as log:
        log.append_all(
            core_id,
            (
                EventBatch.from_columns(
                    sequence=(sequence := np.arange(first, first + BATCH)),
                    lsn=sequence,
                    op=WriteOp.INSERT,
                    collection=[TABLES[(core_id + n) % 3] for n in sequence],
                    row_id="",
                )
                for first in range(1, EVENTS + 1, BATCH)
            ),
        )


def count(log: JetStreamEventLog, core_id: int) -> Counter[str]:
    """Follows one core up to its last event, live: it may come while this waits."""
    rows: Counter[str] = Counter()
    with follow(None, log, core_id=core_id, group="rows") as follower:
        for batch in follower:
            rows.update(batch.strings("collection"))
            follower.commit()
            if batch.sequence[-1] >= EVENTS:
                break
    return rows


def count_share(url: str, stream: str, share: list[int]) -> tuple[int, Counter[str]]:
    """One worker: its cores at the same time, over one connection."""
    with JetStreamEventLog(url, stream) as log, ThreadPoolExecutor(len(share)) as threads:
        return os.getpid(), sum(threads.map(lambda core_id: count(log, core_id), share), Counter[str]())


@contextlib.contextmanager
def a_server(directory: str) -> Generator[str]:
    """The server that was named, or one of our own, which goes when it is done."""
    if len(sys.argv) > 1:
        yield sys.argv[1]
        return
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    program = shutil.which("nats-server", path=os.environ.get("PATH", os.defpath) + ":/usr/sbin") or "nats-server"
    command = [program, "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", directory, "-l", f"{directory}/nats.log"]
    with subprocess.Popen(command) as server:
        try:
            yield f"nats://127.0.0.1:{port}"
        finally:
            server.terminate()


async def remove(url: str, stream: str) -> None:
    """The log is durable: it goes when it is deleted."""
    connection = await nats.connect(url)
    for core_id in range(CORES):
        await connection.jetstream().delete_stream(f"{stream}_core_{core_id}")
    await connection.jetstream().delete_key_value(stream)
    await connection.close()


def main() -> None:
    """Two workers count while four cores write."""
    stream = f"example_{secrets.token_hex(4)}"
    with (
        tempfile.TemporaryDirectory() as directory,
        a_server(directory) as url,
        dask.config.set({"temporary-directory": directory}),
        LocalCluster(**WORKERS) as cluster,
        Client(cluster) as client,
        ThreadPoolExecutor(CORES) as cores,
    ):
        workers = list(client.scheduler_info()["workers"])
        shares = [list(range(n, CORES, len(workers))) for n in range(len(workers))]
        counting = [
            client.submit(count_share, url, stream, share, workers=[worker], pure=False)
            for worker, share in zip(workers, shares, strict=True)
        ]
        list(cores.map(lambda core_id: write(url, stream, core_id), range(CORES)))
        counted: Any = client.gather(counting)
        asyncio.run(remove(url, stream))
    rows = sum((part for _, part in counted), Counter[str]())
    assert rows == Counter(TABLES[(core_id + n) % 3] for core_id in range(CORES) for n in range(1, EVENTS + 1))
    assert len({pid for pid, _ in counted}) == 2
    print(f"{rows.total()} events of {CORES} cores, counted by {len(counted)} processes: {dict(sorted(rows.items()))}")


if __name__ == "__main__":
    main()
