"""The decoder by itself: what becomes of each message, and of each that is not as it must be."""

from __future__ import annotations

import random
import struct

import msgpack
import pytest

from nodedb_ring import EventBatch, WriteOp
from nodedb_ring.capture.postgres._pgoutput import Decoder
from nodedb_ring.errors import CaptureError

from .messages import (
    BOOL,
    BYTEA,
    FLOAT8,
    INT4,
    NUMERIC,
    TEXT,
    UNCHANGED,
    begin,
    commit,
    decoded,
    delete,
    feed,
    insert,
    relation,
    truncate,
    update,
)

T = 16384
ID_NAME = relation(T, "public.t", [("id", INT4, True), ("name", TEXT, False)])


def shown(batch: EventBatch) -> list[tuple[object, ...]]:
    return [
        (
            event.op.name,
            event.row_id,
            *(value and msgpack.unpackb(value) for value in (event.old_value, event.new_value)),
        )
        for event in batch
    ]


def test_events_have_what_their_commit_says() -> None:
    batch = decoded(ID_NAME, begin(500, 1_700_000_000_123_999), insert(T, "1", "a"), insert(T, "2", "b"), commit(500))
    assert batch.lsn.tolist() == [500, 500]
    assert batch.sequence.tolist() == [1, 2]
    assert batch.system_time_ms.tolist() == [1_700_000_000_123] * 2
    assert batch.strings("collection").tolist() == ["public.t"] * 2
    assert batch.count.tolist() == [1, 1]
    assert shown(batch) == [
        ("INSERT", "1", None, {"id": 1, "name": "a"}),
        ("INSERT", "2", None, {"id": 2, "name": "b"}),
    ]


def test_a_commit_before_1970_has_the_millisecond_below() -> None:
    batch = decoded(ID_NAME, begin(500, -1), insert(T, "1", "a"), commit(500))
    assert batch.system_time_ms.tolist() == [-1]


def test_update_and_delete_by_key() -> None:
    batch = decoded(
        ID_NAME,
        begin(500),
        update(T, ["1", "b"]),
        update(T, ["2", "b"], key=["1", None]),
        update(T, ["2", None], key=["2", None]),
        delete(T, key=["2", None]),
        commit(500),
    )
    assert shown(batch) == [
        ("UPDATE", "1", None, {"id": 1, "name": "b"}),
        ("DELETE", "1", {"id": 1}, None),
        ("INSERT", "2", None, {"id": 2, "name": "b"}),
        ("UPDATE", "2", None, {"id": 2, "name": None}),
        ("DELETE", "2", {"id": 2}, None),
    ]


def test_a_whole_old_row_is_the_old_value() -> None:
    full = relation(T, "public.t", [("id", INT4, True), ("name", TEXT, True)], b"f")
    batch = decoded(
        full,
        begin(500),
        update(T, ["1", "a"], old=["1", "a"]),
        update(T, ["1", "b"], old=["1", "a"]),
        update(T, ["1", UNCHANGED], old=["1", "b"]),
        delete(T, old=["1", None]),
        commit(500),
    )
    assert shown(batch) == [
        ("UPDATE", "1,'a'", {"id": 1, "name": "a"}, {"id": 1, "name": "a"}),
        ("DELETE", "1,'a'", {"id": 1, "name": "a"}, None),
        ("INSERT", "1,'b'", None, {"id": 1, "name": "b"}),
        ("UPDATE", "1,'b'", {"id": 1, "name": "b"}, {"id": 1}),
        ("DELETE", "1,NULL", {"id": 1, "name": None}, None),
    ]


def test_an_unchanged_value_is_not_in_the_map() -> None:
    batch = decoded(ID_NAME, begin(5), update(T, ["1", UNCHANGED]), update(T, ["1", None]), commit(5))
    rows = batch.rows("new_value")
    assert rows.given("id").tolist() == [True, True]
    assert rows.given("name").tolist() == [False, True]
    assert shown(batch) == [("UPDATE", "1", None, {"id": 1}), ("UPDATE", "1", None, {"id": 1, "name": None})]


def test_truncate_is_one_event_a_table() -> None:
    other = relation(T + 1, "s.u", [("id", INT4, True)])
    batch = decoded(ID_NAME, other, begin(5), truncate(T, T + 1), commit(5))
    assert [event.op for event in batch] == [WriteOp.BULK_DELETE] * 2
    assert batch.strings("collection").tolist() == ["public.t", "s.u"]
    assert [(event.row_id, event.count, event.old_value, event.new_value) for event in batch] == [
        ("", 0, None, None)
    ] * 2


def test_a_table_is_what_was_said_of_it_last() -> None:
    more = relation(T, "public.u", [("id", INT4, True), ("name", TEXT, False), ("more", INT4, False)])
    batch = decoded(ID_NAME, begin(5), insert(T, "1", "a"), more, insert(T, "2", "b", "3"), commit(5))
    assert shown(batch)[1] == ("INSERT", "2", None, {"id": 2, "name": "b", "more": 3})
    assert batch.strings("collection").tolist() == ["public.t", "public.u"]


def test_many_tables() -> None:
    oids = random.Random(1).sample(range(1, 2**32), 500)
    told = [relation(oid, f"public.t{oid}", [("id", INT4, True)]) for oid in oids]
    batch = decoded(*told, begin(5), *(insert(oid, str(oid % 100)) for oid in oids), commit(5))
    assert batch.strings("collection").tolist() == [f"public.t{oid}" for oid in oids]
    assert batch.strings("row_id").tolist() == [str(oid % 100) for oid in oids]


@pytest.mark.parametrize(
    ("columns", "values", "row_id"),
    [
        ([("a", TEXT, True)], ["x,'y"], "x,'y"),
        ([("a", TEXT, True)], ["'x"], "'''x'"),
        ([("a", TEXT, True)], ["X'00'"], "'X''00'''"),
        ([("a", TEXT, True)], ["X"], "X"),
        ([("a", TEXT, True)], [""], ""),
        ([("a", INT4, True), ("b", TEXT, True)], ["-1", "it's"], "-1,'it''s'"),
        ([("a", BYTEA, True)], ["\\x00ff"], "X'00FF'"),
        ([("a", BOOL, True), ("b", BOOL, True)], ["t", "f"], "TRUE,FALSE"),
        ([("a", FLOAT8, True), ("b", NUMERIC, True)], ["1.5e+300", "NaN"], "1.5e+300,'NaN'"),
        ([("a", FLOAT8, True)], ["-Infinity"], "'-Infinity'"),
        ([("a", INT4, False)], ["1"], ""),
    ],
)
def test_row_ids(columns: list[tuple[str, int, bool]], values: list[str], row_id: str) -> None:
    [event] = decoded(relation(T, "public.t", columns), begin(5), insert(T, *values), commit(5))
    assert event.row_id == row_id


def test_what_was_delivered_before_becomes_no_event() -> None:
    messages = [
        ID_NAME,
        *(begin(10), insert(T, "1", "a"), commit(10)),
        *(begin(20), insert(T, "2", "a"), update(T, ["3", "a"], key=["2", None]), insert(T, "4", "a"), commit(20)),
        *(begin(30), insert(T, "5", "a"), commit(30)),
    ]
    whole = [(op, row_id) for op, row_id, *_ in shown(decoded(*messages))]
    assert len(whole) == 6
    for (lsn, events), left in {
        (0, 0): 6,
        (10, 0): 6,
        (10, 1): 5,
        (20, 0): 5,
        (20, 1): 4,
        (20, 2): 3,
        (20, 4): 1,
    }.items():
        batch = decoded(*messages, after=(lsn, events))
        assert [(op, row_id) for op, row_id, *_ in shown(batch)] == whole[-left:]
        assert batch.sequence.tolist() == list(range(1, left + 1))


def test_a_block_that_is_large_keeps_the_rest_of_the_messages() -> None:
    decoder = Decoder(1)
    large = "x" * 1_000_000
    feed(decoder, ID_NAME, begin(5), *(insert(T, str(i), large) for i in range(10)), commit(5))
    assert decoder.is_large
    taken = [len(decoder.take())]
    while decoder.has_messages:
        decoder.decode_messages()
        taken.append(len(decoder.take()))
    assert sum(taken) == 10
    assert len(taken) > 1
    assert (decoder.end_lsn, decoder.events, decoder.is_inside) == (13, 10, False)


MESSAGES = [
    ID_NAME,
    begin(5),
    insert(T, "1", "name"),
    update(T, ["2", "name"], key=["1", None]),
    update(T, ["2", "name"], old=["1", "name"]),
    delete(T, key=["1", None]),
    truncate(T),
    commit(5),
]


@pytest.mark.parametrize("place", range(len(MESSAGES)))
def test_a_message_that_ends_early_or_late_is_refused(place: int) -> None:
    message = MESSAGES[place]
    before = MESSAGES[:place] if place < 2 else MESSAGES[:2]
    broken = [(message[:size], "ends before its last field") for size in range(len(message))]
    # Which of the two it is shows that nothing behind the end was read.
    for each, why in [*broken, (message + b"\0", "has bytes behind its last field")]:
        decoder = Decoder(1)
        with pytest.raises(CaptureError, match=why):
            feed(decoder, *before, each)
        assert decoder.pending == 0


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"Z",
        insert(T + 1, "1", "a"),
        truncate(T, T + 1),
        insert(T, "1"),
        insert(T, "1", "a", "b"),
        insert(T, "one", "a"),
        insert(T, "9" * 20, "a"),
        insert(T, "", "a"),
        insert(T, UNCHANGED, "a"),
        begin(6),
        commit(6),
        struct.pack(">cIc", b"D", T, b"N") + insert(T, "1", "a")[6:],
        struct.pack(">cIcHcI", b"I", T, b"N", 2, b"b", 4) + b"\0\0\0\1n",
    ],
)
def test_a_message_that_is_not_as_it_must_be_is_refused(message: bytes) -> None:
    decoder = Decoder(1)
    feed(decoder, ID_NAME, begin(5), insert(T, "1", "a"))
    with pytest.raises(CaptureError, match=r"of 0 bytes|message|column"):
        feed(decoder, message)
    assert decoder.pending == 1


def test_text_that_is_not_utf8_is_refused() -> None:
    broken = insert(T, "1", "abc").replace(b"abc", b"a\xffc")
    with pytest.raises(CaptureError, match=r"table public\.t, column name: has text that is not UTF-8.*bytea"):
        decoded(ID_NAME, begin(5), broken)


def test_a_change_outside_of_a_transaction_is_refused() -> None:
    with pytest.raises(CaptureError, match="does not belong where it comes"):
        decoded(ID_NAME, insert(T, "1", "a"))


def test_random_bytes_do_no_harm() -> None:
    random_bytes = random.Random(2)
    for _ in range(3000):
        decoder = Decoder(1)
        feed(decoder, ID_NAME, begin(5))
        message = bytearray(random_bytes.choice(MESSAGES[2:]))
        for _ in range(random_bytes.randrange(1, 4)):
            message[random_bytes.randrange(len(message))] = random_bytes.randrange(256)
        try:
            feed(decoder, bytes(message))
        except CaptureError:
            continue
        for event in decoder.take():
            for value in (event.new_value, event.old_value):
                assert value is None or isinstance(msgpack.unpackb(value, strict_map_key=False), dict)


@pytest.mark.parametrize("new", [["2", "a\xff"], ["x", "a"]])
def test_a_change_of_the_key_is_refused_whole(new: list[str]) -> None:
    """Also where its DELETE could be made."""
    decoder = Decoder(1)
    message = update(T, new, key=["1", None]).replace("\xff".encode(), b"\xff\xff")
    feed(decoder, ID_NAME, begin(5), insert(T, "1", "a"))
    with pytest.raises(CaptureError, match=r"table public\.t, column"):
        feed(decoder, message)
    assert (decoder.pending, decoder.events, decoder.received) == (1, 1, 1)
    assert shown(decoder.take()) == [("INSERT", "1", None, {"id": 1, "name": "a"})]


@pytest.mark.parametrize("size", [1, 31, 32, 255, 256, 65535, 65536, 100_000])
def test_the_column_that_is_wrong_is_named(size: int) -> None:
    """PostgreSQL's names have at most 63 bytes, but others may send longer ones."""
    column = "é" * (size // 2) + "x" * (size % 2)
    with pytest.raises(CaptureError, match=f"table public.t, column {column}: message"):
        decoded(relation(T, "public.t", [("id", INT4, True), (column, INT4, False)]), begin(5), insert(T, "1", "one"))


def test_times_are_in_utc() -> None:
    table = relation(T, "public.t", [("at", 1184, False)])
    seconds = {
        "2013-01-01 05:15:00+00": 1357017300,
        "2013-01-01 05:15:00+05:30": 1356997500,
        "2013-01-01 05:15:00-08": 1357046100,
        "1969-12-31 23:59:59.25+00": -0.75,
        "0001-01-01 00:00:00+00": -62135596800,
        "0001-01-01 00:00:00+00 BC": -62167219200,
    }
    batch = decoded(table, begin(5), *(insert(T, text) for text in seconds), commit(5))
    assert (batch.rows("new_value")["at"].astype("int64") / 1e6).tolist() == list(seconds.values())


def test_a_time_behind_those_of_numpy_is_the_last_one() -> None:
    table = relation(T, "public.t", [("at", 1184, False)])
    texts = ["infinity", "294276-12-31 23:59:59.999999+00", "294247-01-10 04:00:54.9+00", "294247-01-10 04:00:53+00"]
    batch = decoded(table, begin(5), *(insert(T, text) for text in texts), commit(5))
    last = (2**63 - 1) // 1_000_000
    assert batch.rows("new_value")["at"].astype("int64").tolist() == [last * 1_000_000] * 3 + [(last - 1) * 1_000_000]


@pytest.mark.parametrize(
    ("oid", "text"),
    [
        (20, "9223372036854775808"),
        (20, "-9223372036854775809"),
        (FLOAT8, "0x10"),
        (FLOAT8, "-inf"),
        (FLOAT8, "-"),
        (FLOAT8, "-.5"),
        (FLOAT8, "1e400"),
        (700, "1e39"),
        (1184, "2013-02-30 00:00:00+00"),
        (1184, "2013-01-01 24:00:00+00"),
        (1184, "2013-01-01 00:00:60+00"),
        (1184, "0000-01-01 00:00:00+00"),
        (1184, "999999-01-01 00:00:00+00"),
        (1184, "2013-01-01 00:00:00.+00"),
        (1007, "{" * 7 + "1" + "}" * 7),
        (1009, "{a\\b}"),
        (1009, '{a"b"}'),
    ],
)
def test_a_value_that_the_server_does_not_write_is_refused(oid: int, text: str) -> None:
    with pytest.raises(CaptureError, match=r"a value that its type does not have|an array with braces"):
        decoded(relation(T, "public.t", [("v", oid, False)]), begin(5), insert(T, text))


def test_a_binary_key_that_is_none_is_refused() -> None:
    table = relation(T, "public.t", [("id", BYTEA, True)])
    for text in ("", "\\", "\\x0", "xx00", "\\x0g"):
        # As a part of the row id alone: the new row does not have it, and the key is not written.
        with pytest.raises(CaptureError, match="column id: message b'U'"):
            decoded(table, begin(5), update(T, [UNCHANGED], key=[text]))


@pytest.mark.parametrize("count", [1600, 1664, 1665, 65535])
def test_a_table_of_more_columns_than_postgresql_has_is_refused(count: int) -> None:
    table = relation(T, "public.t", [(str(i), INT4, False) for i in range(count)])
    if count > 1664:
        with pytest.raises(CaptureError, match="describes a table with too many columns"):
            decoded(table)
    else:
        [event] = decoded(table, begin(5), insert(T, *map(str, range(count))), commit(5))
        assert msgpack.unpackb(event.new_value or b"") == {str(i): i for i in range(count)}
