"""The ring written by hand."""

# ruff: noqa: D102 - what a method does, peer.py says

from __future__ import annotations

import tempfile
from itertools import chain, repeat
from pathlib import Path

import numpy as np

from ..mapped_ring import MappedConsumer, MappedProducer, MappedRing
from ..records import (
    ALIKE,
    BATCH,
    CYCLE,
    DEPTH,
    PACK,
    RECORD,
    RECORD_BYTES,
    Ledger,
    One,
    fields,
    ready_bytes,
    ready_records,
    stamped_bytes,
)
from .peer import POLLING, Peer

__all__ = ["Mapped"]


class Mapped(Peer):
    """``mapped_ring.py``; it cannot sleep."""

    title = "hand-written ring, mmap and NumPy"
    pauses = POLLING
    lap = 4 * CYCLE
    can_wait = False

    def __init__(self, *, is_batched: bool, pauses: int = 0) -> None:
        super().__init__(is_batched=is_batched, pauses=pauses)
        with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
            # Mapped, it needs no name any more.
            self._ring = MappedRing(Path(directory, "ring"), DEPTH, RECORD_BYTES)

    def open_sender(self) -> None:
        self._producer = MappedProducer(self._ring, PACK)
        self._batches = ready_records().view(np.uint8).reshape(-1, BATCH, RECORD_BYTES)

    def make_ready(self, first: int, count: int) -> None:
        self._ready = ready_bytes(first, count)

    def send_fields(self, first: int, count: int) -> None:
        pack, rest = self._producer.pack, self.rest
        tenant, system, valid, shard, rows, op, source, named, user, digest, old, collection = ALIKE
        for number, row_id, value in fields(first, count):
            encoded = row_id.encode()
            while not pack(
                number, number, len(encoded), len(value), tenant, system, valid, shard, rows, op, source,
                named, user, digest, old, collection, encoded, value,
            ):  # fmt: skip
                rest()

    def send_ready(self) -> None:
        push, rest = self._producer.push, self.rest
        for record in self._ready:
            while not push(record):
                rest()

    def send_batches(self, count: int) -> None:
        push, rest = self._producer.push_batch, self.rest
        for batch in chain.from_iterable(repeat(list(self._batches), count // CYCLE)):
            while not push(batch):
                rest()

    def send_one(self, place: int) -> None:
        self._producer.push(self._ready[place])

    def send_stamped(self, number: int, lsn: int) -> None:
        self._producer.push(stamped_bytes(number, lsn))

    def open_receiver(self) -> None:
        self._consumer = MappedConsumer(self._ring)

    def receive(self, count: int, ledger: Ledger) -> None:
        take, rest = self._consumer.take, self.rest
        while ledger.taken < count:
            records = take(BATCH)
            if records is None:
                rest()
                continue
            ledger.take_records(records.view(RECORD)[:, 0])

    def try_one(self) -> One | None:
        return self._consumer.take(1)

    def close(self) -> None:
        """Nothing is left: the file has no name."""
