"""Writes the corpus of ``tests.fuzz.postgres``: ``python -m tests.fuzz.corpus_of_postgres``."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tests.unit.capture.postgres.messages import (
    UNCHANGED,
    begin,
    commit,
    delete,
    insert,
    relation,
    truncate,
    update,
)

FOLDER: Final = Path(__file__).with_name("corpus") / "postgres"
MESSAGES, VALUE, COPY = b"\0", b"\1", b"\2"
ROW: Final = ("1", "a", "2013-01-01 05:15:00.25+00", '{1.50,NULL,"2"}')
KEYED: Final = ("1", None, None, None)
ID: Final = [("id", 23, True), ("b", 17, True)]


def framed(*messages: bytes) -> bytes:
    return b"".join(bytes([len(message)]) + message for message in messages)


CORPUS: Final = {
    "messages-described": MESSAGES + b"\1" + framed(insert(1, *ROW), delete(1, old=ROW), truncate(1, 2), commit(5)),
    "messages-keys": MESSAGES
    + b"\1"
    + framed(
        update(1, ROW, old=ROW), update(1, ("2", UNCHANGED, *ROW[2:]), key=KEYED), delete(1, key=KEYED), update(1, ROW)
    ),
    "messages-whole": MESSAGES
    + b"\0"
    + framed(relation(7, "s.t", ID), begin(4), insert(7, "1", "\\x00"), commit(4), b"Y", b"O", b"M")
    + framed(begin(5, -1), delete(7, key=("1", "\\x0f")), commit(5)),
    "messages-delivered": MESSAGES + b"\5" + framed(*(insert(2, str(i), None) for i in range(4))),
    "value-bool": VALUE + b"\0t",
    "value-bytea": VALUE + b"\1\\x00ff",
    "value-integer": VALUE + b"\2-9223372036854775808",
    "value-float4": VALUE + b"\x063.4028235e+38",
    "value-float4-without-digit": VALUE + b"\x06-.4028235e+38",
    "value-float8": VALUE + b"\x071.7976931348623157e+308",
    "value-float8-infinite": VALUE + b"\x07-Infinity",
    "value-timestamptz": VALUE + b"\x080044-03-15 12:00:00.123456+05:30:10 BC",
    "value-timestamptz-infinite": VALUE + b"\x08-infinity",
    "value-text": VALUE + b"\x0a'gr\xc3\xbcn",
    "value-array-of-bool": VALUE + b"\x0b{t,f,NULL}",
    "value-array-bounds": VALUE + b"\x0d[5:6]={1,NULL}",
    "value-array-deep": VALUE + b"\x0e{{{{{{1,2}}}}}}",
    "value-array-of-text": VALUE + b'\x15{{"a\\"b","{x}"},{"","NULL"}}',
    "value-array-of-boxes": VALUE + b"\x17{(1,1),(0,0);(2,2),(1,1)}",
    "copy": COPY + b"\xfe1\ta\\tb\\\\\t2013-01-01 05:15:00+00\t{1,NULL}\n2\t\\N\t\\N\t\\N\n",
    "copy-pieces": COPY + b"\x0b1\n2\n",
    "copy-two": COPY + b"\x111\ta\n2\t\\N\n",
}

if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, data in CORPUS.items():
        (FOLDER / name).write_bytes(data)
