"""What becomes of a value of PostgreSQL, in plain Python: the text in which the server writes it, as MessagePack.

Written from PostgreSQL's documentation and docs/postgres.md, to compare the compiled decoder with. Slow and short.
"""

from __future__ import annotations

import datetime
import math
import re
import struct
from fractions import Fraction
from typing import Any, Final

import msgpack

__all__ = ["ARRAYS", "SCALARS", "Refused", "key_of", "packed_map", "value_of"]

SCALARS: Final = {
    16: "bool",
    17: "bytea",
    20: "integer",
    21: "integer",
    23: "integer",
    26: "integer",
    700: "float4",
    701: "float8",
    1184: "timestamptz",
    1700: "numeric",
}
"""By the object identifier of the type. Any other is text."""

ARRAYS: Final = {
    1000: 16, 1001: 17, 1016: 20, 1005: 21, 1007: 23, 1028: 26, 1021: 700, 1022: 701, 1185: 1184, 1231: 1700,
    1009: 25, 1015: 1043, 1020: 603, 1115: 1114, 2951: 2950, 3807: 3802,
}  # fmt: skip
"""Some arrays, with the type of their elements."""

LAST_SECOND: Final = (2**63 - 1) // 1_000_000
DIMENSIONS: Final = 6


class Refused(Exception):
    """The server does not write this."""


def value_of(oid: int, text: bytes) -> bytes:
    """The value as MessagePack."""
    if oid in ARRAYS:
        return array_of(SCALARS.get(ARRAYS[oid], "text"), text, b";" if ARRAYS[oid] == 603 else b",")
    return scalar_of(SCALARS.get(oid, "text"), text)


def scalar_of(kind: str, text: bytes) -> bytes:
    if kind == "bool":
        return packed({b"t": True, b"f": False}.get(text))
    if kind == "integer":
        return packed(integer(text))
    if kind == "float8":
        return b"\xcb" + struct.pack(">d", number(text, float))
    if kind == "float4":
        return b"\xca" + struct.pack(">f", number(text, nearest_single))
    if kind == "bytea":
        if not re.fullmatch(rb"\\x([0-9a-fA-F]{2})*", text):
            raise Refused
        return packed(bytes.fromhex(text[2:].decode()))
    if kind == "timestamptz":
        return packed(timestamp(text))
    return packed(unicode(text))


def packed(value: Any) -> bytes:
    """As MessagePack in its shortest form. Null is not written by its text."""
    if value is None:
        raise Refused
    return msgpack.packb(value)


def packed_map(items: list[tuple[str, bytes]]) -> bytes:
    """A map of names to what is packed already."""
    return msgpack.Packer().pack_map_header(len(items)) + b"".join(packed(name) + value for name, value in items)


def unicode(text: bytes) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        raise Refused from error


def integer(text: bytes) -> int:
    if not re.fullmatch(rb"-?[0-9]{1,19}", text) or not -(2**63) <= int(text) < 2**63:
        raise Refused
    return int(text)


def number(text: bytes, read: Any) -> float:
    words = {b"NaN": math.nan, b"Infinity": math.inf, b"-Infinity": -math.inf}
    if text in words:
        return words[text]
    # The server writes less than 32 bytes.
    if len(text) > 32 or not re.fullmatch(rb"-?[0-9]+(\.[0-9]*)?([eE][-+]?[0-9]+)?", text):
        raise Refused
    if math.isinf(float(text)) or math.isinf(read(text)):
        raise Refused
    return float(read(text))


def nearest_single(text: bytes) -> float:
    """The number of 24 bits that is nearest, of two as near the even one."""
    sign, wide = math.copysign(1.0, float(text)), abs(float(text))
    if wide == 0.0:
        return sign * 0.0
    unit = Fraction(2) ** (max(math.frexp(wide)[1] - 1, -126) - 23)
    nearest = round(abs(Fraction(text.decode())) / unit) * unit
    return sign * (float(nearest) if nearest < Fraction(2) ** 128 else math.inf)


TIMESTAMP: Final = re.compile(
    rb"([0-9]{4,7})-([0-9]{2})-([0-9]{2}) ([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,6}))?"
    rb"([-+])([0-9]{2})(?::([0-9]{2})(?::([0-9]{2}))?)?( BC)?"
)


def timestamp(text: bytes) -> msgpack.Timestamp:
    if text in (b"infinity", b"-infinity"):
        return msgpack.Timestamp(-LAST_SECOND if text[:1] == b"-" else LAST_SECOND, 0)
    found = TIMESTAMP.fullmatch(text)
    if found is None:
        raise Refused
    year, month, day, hour, minute, second = map(int, found.groups()[:6])
    fraction, sign, *zone, before_christ = found.groups()[6:]
    zone_hour, zone_minute, zone_second = (int(part or 0) for part in zone)
    if not year or max(hour, zone_hour) > 23 or max(minute, second, zone_minute, zone_second) > 59:
        raise Refused
    # The calendar repeats after 400 years, and datetime has the years from 1 to 9999.
    cycles, of_cycle = divmod((1 - year if before_christ else year) - 2000, 400)
    try:
        days = datetime.date(2000 + of_cycle, month, day).toordinal() - datetime.date(1970, 1, 1).toordinal()
    except ValueError as error:
        raise Refused from error
    seconds = 86400 * (days + 146097 * cycles) + 3600 * hour + 60 * minute + second
    seconds -= (3600 * zone_hour + 60 * zone_minute + zone_second) * (1 if sign == b"+" else -1)
    # From 4714-11-24 BC, which is day 0 of the Julian count, to the end of 294276.
    if not -210_866_803_200 <= seconds < 9_224_318_016_000:
        raise Refused
    if seconds >= LAST_SECOND:
        return msgpack.Timestamp(LAST_SECOND, 0)
    return msgpack.Timestamp(seconds, int((fraction or b"").ljust(9, b"0")))


def array_of(kind: str, text: bytes, delimiter: bytes) -> bytes:
    if text[:1] == b"[":
        _bounds, equals, text = text.partition(b"=")
        if not equals:
            raise Refused
    if text == b"{}":
        return b"\x90"
    # Quoted text, a brace, a delimiter, or text without quotes; what none of them matches is no array.
    token = re.compile(rb'"((?:[^"\\]|\\.)*)"|([{}' + delimiter + rb'])|([^{}"\\' + delimiter + rb"]+)", re.DOTALL)
    tokens, at = [], 0
    while at < len(text):
        found = token.match(text, at)
        if found is None:
            raise Refused
        tokens.append(found)
        at = found.end()
    tokens.reverse()
    made = items_of(kind, tokens, delimiter, 0)
    if tokens:
        raise Refused
    return made


def items_of(kind: str, tokens: list[re.Match[bytes]], delimiter: bytes, depth: int) -> bytes:
    """One item, of the tokens from the last one on."""
    if not tokens:
        raise Refused
    quoted, mark, plain = tokens.pop().groups()
    if quoted is not None and depth:
        return scalar_of(kind, re.sub(rb"\\(.)", rb"\1", quoted, flags=re.DOTALL))
    if plain is not None and depth:
        return b"\xc0" if plain == b"NULL" else scalar_of(kind, plain)
    if mark != b"{" or depth == DIMENSIONS:
        raise Refused
    items = [items_of(kind, tokens, delimiter, depth + 1)]
    while tokens and tokens[-1].group() == delimiter:
        tokens.pop()
        items.append(items_of(kind, tokens, delimiter, depth + 1))
    if not tokens or tokens.pop().group() != b"}":
        raise Refused
    return msgpack.Packer().pack_array_header(len(items)) + b"".join(items)


def key_of(oid: int, text: bytes | None, *, is_alone: bool) -> str:
    """The part of a row id."""
    if text is None:
        return "NULL"
    shown, kind = unicode(text), "text" if oid in ARRAYS else SCALARS.get(oid, "text")
    quoted = "'" + shown.replace("'", "''") + "'"
    if kind == "bool":
        return "TRUE" if shown == "t" else "FALSE"
    if kind in {"integer", "float4", "float8", "numeric"}:
        return shown if shown[-1:] in set("0123456789") else quoted
    if kind == "bytea":
        if not re.fullmatch(rb"\\x([0-9a-fA-F]{2})*", text):
            raise Refused
        return "X'" + shown[2:].upper() + "'"
    return quoted if not is_alone or shown.startswith(("'", "X'")) else shown
