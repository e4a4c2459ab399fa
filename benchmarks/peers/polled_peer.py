"""Peers that carry one bytes object after another, and whose receiver polls."""

# ruff: noqa: D102 - what a method does, peer.py says

from __future__ import annotations

import abc
from collections.abc import Callable

import numpy as np

from ..records import BATCH, RECORD, Ledger, One
from .message_peer import MessagePeer
from .peer import POLLING

__all__ = ["PolledPeer"]


class PolledPeer(MessagePeer):
    """Single events are taken until there is none, or there are as many as a batch has, and are then joined."""

    pauses = POLLING

    @abc.abstractmethod
    def _poller(self) -> Callable[[], bytes | None]:
        """What takes one message or finds none, in the process that receives."""

    def _has_taken(self, count: int) -> None:
        """Called after so many messages were taken; for a peer whose sender must know."""

    def _getter(self) -> Callable[[], bytes]:
        poll, rest = self._poller(), self.rest
        self._poll = poll

        def get() -> bytes:
            while (message := poll()) is None:
                rest()
            return message

        return get

    def receive(self, count: int, ledger: Ledger) -> None:
        poll, rest, has_taken = self._poll, self.rest, self._has_taken
        most = 1 if self.is_batched else BATCH
        messages: list[bytes] = []
        while ledger.taken < count:
            message = poll()
            if message is not None:
                messages.append(message)
                if len(messages) < most:
                    continue
            elif not messages:
                rest()
                continue
            # A message that nobody else has is memory of the receiver's own; so is what several are joined into.
            ledger.take_records(np.frombuffer(messages[0] if most == 1 else b"".join(messages), RECORD))
            has_taken(len(messages))
            messages.clear()

    def try_one(self) -> One | None:
        return self._poll()
