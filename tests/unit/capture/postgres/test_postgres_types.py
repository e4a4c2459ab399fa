"""Every built-in type: what an event has, compared with what the table says of itself."""

from __future__ import annotations

import struct
from typing import Any, Final

import msgpack
import psycopg2.extensions
import pytest

from .captured import captured, maps
from .server import Database

SAMPLES: Final = {
    "bool": ["t", "f"],
    "bytea": ["\\x", "\\x00ff5c", "\\x" + "ab" * 70_000],
    '"char"': ["a", "\\", ""],
    "name": ["a name", "quoted\"'"],
    "int8": ["0", "-1", "9223372036854775807", "-9223372036854775808", "4294967296"],
    "int2": ["-32768", "127", "128", "-33", "32767"],
    "int4": ["-2147483648", "2147483647", "255", "256", "-129"],
    "regproc": ["now", "pg_catalog.now"],
    "text": ["", "a", "NULL", "it's", 'a "b" \\ {c,d}', "tab\tnewline\n", "grün 漢字 🦆", "x" * 300, "y" * 70_000],
    "oid": ["0", "4294967295"],
    "tid": ["(1,2)"],
    "xid": ["7"],
    "cid": ["7"],
    "oidvector": ["1 2 3", ""],
    "int2vector": ["1 2 3"],
    "json": ['{"a": [1, null]}', '"x"'],
    "jsonb": ['{"a": {"b": "c,d"}}', "null"],
    "xml": ["<a>b</a>"],
    "xid8": ["18446744073709551615"],
    "point": ["(1,-2.5)"],
    "lseg": ["[(0,0),(1,1)]"],
    "path": ["((0,0),(1,1))", "[(0,0),(1,1)]"],
    "box": ["(1,1),(0,0)"],
    "polygon": ["((0,0),(1,1),(1,0))"],
    "line": ["{1,2,3}"],
    "circle": ["<(1,2),3>"],
    "float4": ["1.1", "-0", "NaN", "Infinity", "-Infinity", "3.4028235e+38", "1e-45", "16777217", "0.1"],
    "float8": [
        "0.37",
        "-0",
        "NaN",
        "Infinity",
        "-Infinity",
        "1.7976931348623157e+308",
        "5e-324",
        "1e22",
        "1e23",
        "9007199254740993",
        "123456789.123456789",
        "2.2250738585072011e-308",
        "0.000001",
        "-1e15",
        "1e16",
    ],
    "macaddr": ["08:00:2b:01:02:03"],
    "macaddr8": ["08:00:2b:01:02:03:04:05"],
    "inet": ["192.168.0.1/24", "::1"],
    "cidr": ["10.0.0.0/8"],
    "money": ["$1,234.50", "-7"],
    "bpchar": ["abc  "],
    "varchar": ["abc", "NULL"],
    "date": ["2013-01-01", "infinity", "0044-03-15 BC"],
    "time": ["05:15:00.25", "24:00:00"],
    "timetz": ["05:15:00+02"],
    "timestamp": ["2013-01-01 05:15:00.25", "-infinity", "4713-01-01 BC"],
    "timestamptz": [
        "2013-01-01 05:15:00+00",
        "2013-01-01 05:15:00.123456+09:30",
        "1969-12-31 23:59:59.999999+00",
        "1970-01-01 00:00:00+00",
        "2106-02-07 06:28:16+00",
        "2514-05-30 01:53:04+00",
        "0001-01-01 00:00:00+00",
        "4713-01-01 00:00:00+00 BC",
        "0001-12-31 23:59:59.5+00 BC",
        "99999-12-31 00:00:00+00",
        "2000-02-29 12:00:00+00",
    ],
    "interval": ["1 year 2 mons 3 days 04:05:06.7", "-1 day"],
    "bit": ["1"],
    "varbit": ["10101"],
    "numeric": ["0", "-1.50", "NaN", "Infinity", "123456789012345678901234567890.000000001", "1e-20"],
    "refcursor": ["c"],
    "regprocedure": ["now()"],
    "regoper": ["pg_catalog.||/"],
    "regoperator": ["+(integer,integer)"],
    "regclass": ["pg_class"],
    "regcollation": ['pg_catalog."C"'],
    "regtype": ["int4"],
    "regrole": ["postgres"],
    "regnamespace": ["public"],
    "regconfig": ["english"],
    "regdictionary": ["simple"],
    "uuid": ["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"],
    "pg_lsn": ["1/2A"],
    "tsvector": ["'a':1 'b c':2"],
    "tsquery": ["'a' & 'b'"],
    "txid_snapshot": ["10:20:10,14"],
    "pg_snapshot": ["10:20:10,14"],
    "jsonpath": ['$."a"'],
    "aclitem": ["postgres=r/postgres"],
    "int4range": ["[1,5)", "empty", "(,)"],
    "int8range": ["[1,5)"],
    "numrange": ["[1.5,2)"],
    "tsrange": ["[2013-01-01,2013-01-02)"],
    "tstzrange": ["[2013-01-01,2013-01-02)"],
    "daterange": ["[2013-01-01,2013-01-02)"],
    "int4multirange": ["{[1,2),[5,6)}", "{}"],
    "int8multirange": ["{[1,2)}"],
    "nummultirange": ["{[1,2)}"],
    "tsmultirange": ["{[2013-01-01,2013-01-02)}"],
    "tstzmultirange": ["{[2013-01-01,2013-01-02)}"],
    "datemultirange": ["{[2013-01-01,2013-01-02)}"],
}

# Types of columns that the server alone may make, or whose values have no input.
NOT_FOR_TABLES: Final = {"gtsvector", "pg_node_tree", "pg_ndistinct", "pg_dependencies", "pg_mcv_list"} | {
    "pg_brin_bloom_summary",
    "pg_brin_minmax_multi_summary",
    "pg_ddl_command",
}
LAST_SECOND: Final = (2**63 - 1) // 1_000_000


def test_every_built_in_type_has_samples(database: Database) -> None:
    query = "SELECT typname FROM pg_type WHERE typtype IN ('b', 'r', 'm') AND typelem = 0 AND oid < 10000"
    query += " UNION SELECT typname FROM pg_type WHERE typname IN ('name', 'point', 'lseg', 'box', 'line')"
    found = {name for (name,) in database.execute(query)}
    assert found - NOT_FOR_TABLES - {name.strip('"') for name in SAMPLES} == set()


def shown(cursor: psycopg2.extensions.cursor, kind: str, literal: str) -> Any:
    """A value of the type as the server has it, and as an event must have it."""
    cast = f"%s::{kind}"
    if kind in {"int2", "int4", "int8", "oid", "bool"}:
        cursor.execute(f"SELECT {cast}{'::int8' if kind == 'oid' else ''}", (literal,))
    elif kind == "float4":
        cursor.execute(f"SELECT {cast}::float8", (literal,))
    elif kind == "float8":
        cursor.execute(f"SELECT float8send({cast})", (literal,))
    elif kind == "bytea":
        cursor.execute(f"SELECT {cast}", (literal,))
    elif kind == "timestamptz":
        cursor.execute(f"SELECT (extract(epoch FROM {cast}) * 1000000)::numeric", (literal,))
    else:
        # As its output function writes it, which a cast to text does not always.
        cursor.execute(f"SELECT format('%%s', {cast})", (literal,))
    [(value,)] = cursor.fetchall()
    if kind == "float8":
        return struct.unpack(">d", bytes(value))[0]
    if kind == "bytea":
        return bytes(value)
    return int(value) if kind == "timestamptz" else value


def plain(value: Any) -> Any:
    """A timestamp as microseconds, and a NaN as a word, so that values compare."""
    if isinstance(value, list):
        return [plain(each) for each in value]
    if isinstance(value, msgpack.Timestamp):
        assert value.nanoseconds % 1000 == 0
        return value.seconds * 1_000_000 + value.nanoseconds // 1000
    if isinstance(value, float):
        return repr(value)
    return value


@pytest.mark.parametrize("kind", SAMPLES)
def test_values_and_arrays(database: Database, kind: str) -> None:
    column = f"v {kind}, a {kind}[], b {kind}[]"
    with captured(database, f"t(id int PRIMARY KEY, {column})", arena_bytes=4 << 20) as core:
        literals = SAMPLES[kind]
        with database.session() as cursor:
            cursor.execute("SET timezone = 'UTC'; SET datestyle = ISO; SET xmloption = content")
            expected = [shown(cursor, kind, literal) for literal in literals]
            every = "ARRAY[" + ", ".join(f"%s::{kind}" for _ in literals) + ", NULL]"
            nested = f"ARRAY[ARRAY[%s::{kind}, NULL], ARRAY[NULL, %s::{kind}]]"
            for i, literal in enumerate(literals):
                values = (i, literal, *literals, literal, literal)
                cursor.execute(f"INSERT INTO t VALUES (%s, %s::{kind}, {every}, {nested})", values)
            cursor.execute("INSERT INTO t VALUES (-1, NULL, '{}', NULL)")
            if kind != "box":
                cursor.execute(
                    f"INSERT INTO t(id, a) SELECT -2, ('[5:6]=' || (ARRAY[%s::{kind}, NULL])::text)::{kind}[]",
                    literals[:1],
                )
        events = maps(core.drain(len(literals) + (2 if kind != "box" else 1)))
        rows = [new for *_, new in events if new is not None]
        for i, row in enumerate(rows[: len(literals)]):
            assert plain(row["v"]) == plain(expected[i])
            assert plain(row["a"]) == plain([*expected, None])
            assert plain(row["b"]) == plain([[expected[i], None], [None, expected[i]]])
        assert rows[len(literals)] == {"id": -1, "v": None, "a": [], "b": None}
        if kind != "box":
            assert plain(rows[-1]["a"]) == plain([expected[0], None])


def test_infinite_times_stay_in_order(database: Database) -> None:
    with captured(database, "t(id int PRIMARY KEY, at timestamptz)") as core:
        database.execute("INSERT INTO t VALUES (1, '-infinity'), (2, 'infinity'), (3, '2020-01-01Z')")
        batch = core.drain(3)
        assert [plain(new["at"]) for *_, new in maps(batch) if new is not None][:2] == [
            -LAST_SECOND * 1_000_000,
            LAST_SECOND * 1_000_000,
        ]
        at = batch.rows("new_value", core.capture().schema("public.t"))["at"]
        assert at[0] < at[2] < at[1]


def test_types_of_the_database_itself_are_text(database: Database) -> None:
    made = (
        "CREATE TYPE mood AS ENUM ('sad', 'it''s fine')",
        "CREATE TYPE pair AS (a int, b text)",
        "CREATE DOMAIN small AS int CHECK (VALUE < 10)",
        "CREATE TYPE span AS RANGE (subtype = float8)",
    )
    database.execute(*made)
    with captured(database, "t(id small PRIMARY KEY, m mood, ms mood[], p pair, s span)") as core:
        database.execute("INSERT INTO t VALUES (3, 'it''s fine', '{sad,NULL}', '(1,\"x,y\")', '[1,2)')")
        [(_, row_id, _, new)] = maps(core.drain(1))
        assert new == {"id": "3", "m": "it's fine", "ms": "{sad,NULL}", "p": '(1,"x,y")', "s": "[1,2)"}
        assert row_id == "3"


def test_deep_arrays(database: Database) -> None:
    with captured(database, "t(id int PRIMARY KEY, a int[], b text[])") as core:
        database.execute(
            'INSERT INTO t VALUES (1, \'{{{{{{1,2}}}}}}\', \'{{"a\\"b","{x}"},{"","NULL"}}\')',
            "INSERT INTO t VALUES (2, (SELECT array_agg(i) FROM generate_series(1, 100000) i), ARRAY['\\', ','])",
        )
        first, second = (new for *_, new in maps(core.drain(2)))
        assert first == {"id": 1, "a": [[[[[[1, 2]]]]]], "b": [['a"b', "{x}"], ["", "NULL"]]}
        assert second == {"id": 2, "a": list(range(1, 100_001)), "b": ["\\", ","]}
