"""Tokens: what they say, and what is none."""

from __future__ import annotations

import pytest

from nodedb_ring import ArgumentError, LogError
from nodedb_ring.log.token import LogToken, check_same_log, new_batch_id, new_log_id

LOG = "0123456789abcdef"


@pytest.mark.parametrize(
    "token",
    [
        LogToken(LOG, 0, 0, None, None),
        LogToken(LOG, 7, -1, None, None),
        LogToken(LOG, 2**64 - 1, 2**64 - 1, 2**64 - 9, 2**63 - 1),
        LogToken(new_log_id(), 3, 1000, 993, new_batch_id()),
    ],
)
def test_a_token_is_read_back_from_its_string(token: LogToken) -> None:
    assert LogToken.parse(str(token)) == token
    assert len(str(token)) < 110


@pytest.mark.parametrize(
    "text", ["", "900", f"nrl1.{LOG}.0.1", f"nrl2.{LOG}.0.1.", f"nrl1.{LOG}.0.1.5", f"nrl1.{LOG[1:]}.0.1.", "nrl1...."]
)
def test_what_is_no_token_is_refused(text: str) -> None:
    with pytest.raises(ArgumentError, match=r"is not what follower\.token or log\.token"):
        LogToken.parse(text)


def test_a_token_of_another_log_or_core_is_refused() -> None:
    token = LogToken(LOG, 1, 5, 5, 9)
    check_same_log(token, log_id=LOG, core_id=1)
    with pytest.raises(LogError, match="core 2: the token is of core 1"):
        check_same_log(token, log_id=LOG, core_id=2)
    with pytest.raises(LogError, match=rf"core 1: position 5 is of log {LOG}, and this is log {LOG[::-1]}"):
        check_same_log(token, log_id=LOG[::-1], core_id=1)


def test_ids_are_drawn_anew() -> None:
    assert len({new_batch_id() for _ in range(100)}) == 100
    assert len({new_log_id() for _ in range(100)}) == 100
    assert all(0 < new_batch_id() < 2**63 for _ in range(100))
