"""Columns of every kind, and what each is read as.

They stand under the first cells of the table of docs/columns.md.
"""

# The stubs of pyarrow and pandas lag behind them, and know no Arrow capsules.
# pyright: reportArgumentType=false, reportOptionalMemberAccess=false, reportAttributeAccessIssue=false
# pyright: reportMissingTypeArgument=false, reportUnknownParameterType=false, reportCallIssue=false

from __future__ import annotations

import array
import collections
import dataclasses
import datetime
import functools
import warnings
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa

NO_TIME: Final = -(2**63)
UTC: Final = datetime.UTC
BERLIN: Final = datetime.timezone(datetime.timedelta(hours=2))
NOON: Final = 1_714_564_800_000
NOON_TEXT: Final = "2024-05-01T12:00:00"


@dataclasses.dataclass(frozen=True)
class Sample:
    """A column of some rows, and what each kind of column reads it as: its values, or the row that is refused."""

    make: Callable[[], Any]
    numbers: list[int] | int = 0
    timestamps: list[int] | int = 0
    strings: list[str | None] | int = 0
    values: list[bytes | None] | int = 0
    rows: int = 2
    whole: bool = False
    """Refused as a whole, without a row."""


def number(make: Callable[[], Any], rows: list[int], **others: Any) -> Sample:
    return Sample(make, numbers=rows, timestamps=rows, rows=len(rows), **others)


def timestamp(make: Callable[[], Any], rows: list[int | None], **others: Any) -> Sample:
    return Sample(make, timestamps=[NO_TIME if one is None else one for one in rows], rows=len(rows), **others)


def text(make: Callable[[], Any], rows: list[str | None], **others: Any) -> Sample:
    return Sample(make, strings=rows, rows=len(rows), **others)


def value(make: Callable[[], Any], rows: list[bytes | None], **others: Any) -> Sample:
    return Sample(make, values=rows, rows=len(rows), **others)


def refused(make: Callable[[], Any], rows: int = 2, **others: Any) -> Sample:
    return Sample(make, rows=rows, **others)


def whole(make: Callable[[], Any]) -> Sample:
    return Sample(make, whole=True)


def missing(make: Callable[[], Any], **others: Any) -> Sample:
    """One row of None, which a number refuses."""
    return Sample(make, numbers=0, timestamps=[NO_TIME], strings=[None], values=[None], rows=1, **others)


def no_stamp() -> np.datetime64:
    """NaT without a unit, of which NumPy warns from 2.5 on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return np.datetime64("NaT")


def masked(values: Any, mask: Any, dtype: Any = None) -> Any:
    return np.ma.array(values, mask=mask, dtype=dtype)


def array_of(dtype: str, *values: Any) -> Any:
    return np.array(values, dtype)


class Index:
    """What is an integer by ``__index__`` alone."""

    def __index__(self) -> int:
        return 8


NOON_TICKS: Final = {
    "h": NOON // 3_600_000, "m": NOON // 60_000, "s": NOON // 1000, "ms": NOON, "us": NOON * 1000, "ns": NOON * 10**6,
    "D": 19844,
}  # fmt: skip
AT_NOON: Final = datetime.datetime(2024, 5, 1, 12)

SAMPLES: Final[dict[str, list[Sample]]] = {
    "integers: `int`, NumPy's": [
        number(lambda: [7, 8], [7, 8]),
        number(lambda: (7, 8), [7, 8]),
        number(lambda: [7, np.uint8(8), Index()], [7, 8, 8]),
        number(lambda: range(7, 9), [7, 8]),
        number(lambda: array.array("H", [7, 8]), [7, 8]),
        number(lambda: memoryview(array.array("i", [7, 8])), [7, 8]),
        number(lambda: memoryview(array.array("i", [7, 0, 8]))[::2], [7, 8]),
        number(lambda: bytearray([7, 8]), [7, 8]),
        *[
            number(functools.partial(array_of, dtype, 7, 8), [7, 8])
            for dtype in ("i1", "u1", "<i2", ">u2", ">i4", "<u4", ">i8", "<i8", ">u8", "<u8")
        ],
        number(lambda: np.array([7, 0, 8], ">i8")[::2], [7, 8]),
        number(lambda: np.array([8, 7])[::-1], [7, 8]),
        number(lambda: np.frombuffer(b"_\7\0_\0\10"[1:5], "<u2"), [7, 95]),
        number(lambda: np.array([7, 8], object), [7, 8]),
        number(lambda: (n for n in (7, 8)), [7, 8]),
        number(lambda: iter([7, 8]), [7, 8]),
        number(lambda: collections.deque([7, 8]), [7, 8]),
        number({7: 1, 8: 2}.keys, [7, 8]),
        number({1: 7, 2: 8}.values, [7, 8]),
        number(lambda: masked([7, 8], [0, 0]), [7, 8]),
        number(lambda: [2**63 - 1, 0], [2**63 - 1, 0]),
        Sample(lambda: [2**64 - 1, 0], numbers=[2**64 - 1, 0]),
        Sample(lambda: np.array([0, 2**64 - 1], np.uint64), numbers=[0, 2**64 - 1], timestamps=1),
        Sample(lambda: [0, -1], numbers=1, timestamps=[0, -1]),
        Sample(lambda: np.array([0, -1]), numbers=1, timestamps=[0, -1]),
        Sample(lambda: np.array([0, 1, -5], ">i2"), numbers=2, timestamps=[0, 1, -5], rows=3),
        Sample(lambda: [1, 2**64], numbers=1, timestamps=1),
        Sample(lambda: [1, -(2**63)], numbers=1, timestamps=[1, NO_TIME]),
        Sample(lambda: [1, -(2**63) - 1], numbers=1, timestamps=1),
    ],
    "integers of pandas": [
        number(lambda: pd.Series([7, 8]), [7, 8]),
        number(lambda: pd.Series([7, 8], dtype="uint8"), [7, 8]),
        number(lambda: pd.Series([7, 8], dtype="Int64"), [7, 8]),
        number(lambda: pd.Series([7, 8], dtype="UInt16"), [7, 8]),
        number(lambda: pd.Series([7, 8], dtype="int64[pyarrow]"), [7, 8]),
        number(lambda: pd.Series([7, 8]).astype("category"), [7, 8]),
        number(lambda: pd.Series(pd.arrays.SparseArray([7, 0])), [7, 0]),
        number(lambda: pd.Series([7, 8], dtype=object), [7, 8]),
        number(lambda: pd.Index([7, 8]), [7, 8]),
        number(lambda: pd.array([7, 8]), [7, 8]),
        number(lambda: pd.Series([9, 7, 8], dtype="Int64")[1:], [7, 8]),
        Sample(lambda: pd.Series([7, None], dtype="Int64"), numbers=1, timestamps=[7, NO_TIME]),
        Sample(lambda: pd.Series([2**53 + 1, None], dtype="Int64"), numbers=1, timestamps=[2**53 + 1, NO_TIME]),
        Sample(
            lambda: pd.Series([2**53 + 1, None], dtype="int64[pyarrow]"), numbers=1, timestamps=[2**53 + 1, NO_TIME]
        ),
        number(lambda: pa.array([7, 8]), [7, 8]),
        number(lambda: pa.array([7, 8], pa.uint8()), [7, 8]),
        number(lambda: pa.chunked_array([[7], [8]]), [7, 8]),
        number(lambda: pa.array([7, 8]).dictionary_encode(), [7, 8]),
        number(lambda: pa.chunked_array([pa.array([7, 8]).dictionary_encode()]), [7, 8]),
        number(lambda: pa.RunEndEncodedArray.from_arrays([2], [7]), [7, 7]),
        Sample(lambda: pa.array([2**53 + 1, None]), numbers=1, timestamps=[2**53 + 1, NO_TIME]),
        Sample(lambda: pa.chunked_array([[2**53 + 1], [None]]), numbers=1, timestamps=[2**53 + 1, NO_TIME]),
        Sample(lambda: pa.array([2**64 - 1, 1], pa.uint64()), numbers=[2**64 - 1, 1]),
        number(lambda: pl.Series([7, 8]), [7, 8]),
        number(lambda: pl.Series([7, 8], dtype=pl.UInt8), [7, 8]),
        number(lambda: pl.Series([7, 8], dtype=pl.Int128), [7, 8]),
        Sample(lambda: pl.Series([7, 2**70], dtype=pl.Int128), numbers=1, timestamps=1),
        Sample(lambda: pl.Series([2**53 + 1, None]), numbers=1, timestamps=[2**53 + 1, NO_TIME]),
        Sample(lambda: pl.Series([2**64 - 1, 1], dtype=pl.UInt64), numbers=[2**64 - 1, 1]),
    ],
    "bools": [
        refused(lambda: [True, False]),
        refused(lambda: np.array([True, False])),
        refused(lambda: np.array([True, 8], object)),
        Sample(lambda: [7, True], numbers=1, timestamps=1),
        Sample(lambda: [7, np.True_], numbers=1, timestamps=1),
        Sample(lambda: collections.deque([7, True]), numbers=1, timestamps=1),
        refused(lambda: np.array([True, False]).data),
        refused(lambda: pd.Series([True, False])),
        refused(lambda: pd.Series([True, False], dtype="boolean")),
        refused(lambda: pa.array([True, False])),
        refused(lambda: pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1, 0], pa.int8()))),
        refused(lambda: pl.Series([True, False])),
    ],
    "floats": [
        refused(lambda: [7.0, 8.0]),
        refused(lambda: [float("nan"), 8.0]),
        refused(lambda: np.array([7.0, 8.0])),
        refused(lambda: np.array([7.0, 8.0], ">f2")),
        refused(lambda: np.array([7.0, 8.0], np.longdouble)),
        refused(lambda: masked([7.0, 8.0], [0, 0])),
        Sample(lambda: [7, 8.0], numbers=1, timestamps=1),
        refused(lambda: pd.Series([7.0, 8.0])),
        Sample(lambda: pd.Series([7, None])),
        refused(lambda: pd.Series([7, 8], dtype="Float64")),
        refused(lambda: pa.array([7.0, 8.0])),
        refused(lambda: pa.array([np.float16(7), np.float16(8)])),
        refused(lambda: pl.Series([7.0, 8.0])),
    ],
    "`Decimal`": [
        refused(lambda: [Decimal(7), Decimal(8)]),
        refused(lambda: [Fraction(7), Fraction(8)]),
        refused(lambda: [7j, 8j]),
        refused(lambda: np.array([7j, 8j])),
        refused(lambda: np.array([Decimal(7), Decimal(8)])),
        refused(lambda: pa.array([7, 8], pa.decimal128(5, 0))),
        refused(lambda: pd.Series([7, 8], dtype=pd.ArrowDtype(pa.decimal128(5, 0)))),
        refused(lambda: pl.Series([Decimal(7), Decimal(8)])),
    ],
    "times": [
        *[
            timestamp(
                functools.partial(array_of, f"datetime64[{unit}]", ticks, "NaT"),
                [NOON - NOON % 86_400_000 if unit == "D" else NOON, None],
            )
            for unit, ticks in NOON_TICKS.items()
        ],
        timestamp(lambda: np.array([0, 54], "datetime64[Y]"), [0, 1_704_067_200_000]),
        timestamp(lambda: np.array([0, -1], "datetime64[M]"), [0, -31 * 86_400_000]),
        timestamp(lambda: np.array([0, -1], "datetime64[W]"), [0, -7 * 86_400_000]),
        timestamp(lambda: np.array([10**9, -(10**9)], "datetime64[ps]"), [1, -1]),
        timestamp(lambda: np.array([10**12, 0], "datetime64[fs]"), [1, 0]),
        timestamp(lambda: np.array([10**15, 0], "datetime64[as]"), [1, 0]),
        timestamp(lambda: np.array([4, -4], "datetime64[25s]"), [100_000, -100_000]),
        timestamp(lambda: np.array([4, -8], "datetime64[250us]"), [1, -2]),
        timestamp(lambda: np.array([2, 3], "datetime64[10Y]"), [631_152_000_000, 946_684_800_000]),
        timestamp(lambda: np.array([NOON, 1], ">M8[ms]"), [NOON, 1]),
        timestamp(lambda: np.array([NOON, 5, 1], "M8[ms]")[::2], [NOON, 1]),
        timestamp(lambda: np.array([2**63 - 1, -(2**63) + 1], "M8[ms]"), [2**63 - 1, -(2**63) + 1]),
        timestamp(lambda: np.array([(2**63 - 1) // 1000, 0], "M8[s]"), [(2**63 - 1) // 1000 * 1000, 0]),
        timestamp(lambda: masked([1, 2**62], [0, 1], "M8[s]"), [1000, None]),
        timestamp(lambda: [np.datetime64(1, "s"), None], [1000, None]),
        # A number beside a timestamp stays milliseconds, and a coarse unit beside a fine one does not overflow it.
        timestamp(lambda: [1, np.datetime64(2, "s")], [1, 2000], numbers=1),
        timestamp(lambda: [np.datetime64(2**50, "s"), np.datetime64(10**6, "ns")], [2**50 * 1000, 1]),
        timestamp(
            lambda: [AT_NOON, AT_NOON.replace(tzinfo=UTC), AT_NOON.replace(tzinfo=BERLIN)],
            [NOON, NOON, NOON - 7_200_000],
        ),
        timestamp(
            lambda: [datetime.datetime(1, 1, 1), datetime.datetime(9999, 12, 31)],
            [-62_135_596_800_000, 253_402_214_400_000],
        ),
        timestamp(lambda: [datetime.date(1970, 1, 2), no_stamp()], [86_400_000, None]),
        timestamp(lambda: [pd.Timestamp(NOON_TEXT), pd.NaT], [NOON, None]),
        timestamp(lambda: np.array([AT_NOON, None], object), [NOON, None]),
        timestamp(lambda: (day for day in (datetime.date(1970, 1, 2), None)), [86_400_000, None]),
        timestamp(lambda: pd.to_datetime(pd.Series([NOON, None]), unit="ms"), [NOON, None]),
        timestamp(lambda: pd.Series([AT_NOON, AT_NOON]).dt.tz_localize("Europe/Berlin"), [NOON - 7_200_000] * 2),
        timestamp(lambda: pd.DatetimeIndex([NOON_TEXT, None]), [NOON, None]),
        timestamp(lambda: pd.Series([AT_NOON, None], dtype=pd.ArrowDtype(pa.timestamp("ns"))), [NOON, None]),
        timestamp(lambda: pa.array([NOON, None], pa.timestamp("ms")), [NOON, None]),
        timestamp(lambda: pa.array([NOON * 10**6, None], pa.timestamp("ns", "Europe/Berlin")), [NOON, None]),
        timestamp(lambda: pa.chunked_array([[NOON // 1000], [None]], pa.timestamp("s")), [NOON, None]),
        timestamp(lambda: pa.array([1, None], pa.date32()), [86_400_000, None]),
        timestamp(lambda: pl.Series([AT_NOON, None]), [NOON, None]),
        timestamp(lambda: pl.Series([AT_NOON, None]).cast(pl.Datetime("ns", "Europe/Berlin")), [NOON, None]),
        timestamp(lambda: pl.Series([datetime.date(1970, 1, 2), None]), [86_400_000, None]),
        # What is not a whole number of milliseconds, or does not fit.
        Sample(lambda: np.array([1000, 1], "M8[us]"), timestamps=1),
        Sample(lambda: np.array([10**6, -1], "M8[ns]"), timestamps=1),
        Sample(lambda: np.array([0, 1], "M8[as]"), timestamps=1),
        Sample(lambda: np.array([4, 5], "M8[250us]"), timestamps=1),
        Sample(lambda: np.array([0, 2**62], "M8[s]"), timestamps=1),
        Sample(lambda: np.array([0, -(2**63) // 1000 - 1], "M8[s]"), timestamps=1),
        Sample(lambda: np.array([0, 2**62], "M8[D]"), timestamps=1),
        Sample(lambda: np.array([0, 2**62], "M8[M]"), timestamps=1),
        Sample(lambda: np.array([0, -(2**62)], "M8[Y]"), timestamps=1),
        Sample(lambda: np.array([0, 292_277_025], "M8[Y]"), timestamps=1),
        Sample(lambda: np.array([0, 2**60], "M8[25s]"), timestamps=1),
        Sample(lambda: [np.datetime64(0, "s"), np.datetime64(2**62, "s")], timestamps=1),
        Sample(lambda: [AT_NOON, datetime.datetime(2024, 1, 1, 0, 0, 0, 1)], timestamps=1),
        Sample(lambda: [AT_NOON, pd.Timestamp(1)], timestamps=1),
        Sample(lambda: pd.Series([10**6, 1], dtype="M8[ns]"), timestamps=1),
        Sample(lambda: pd.Series([10**6, 1], dtype="M8[ns]").dt.tz_localize("UTC"), timestamps=1),
        Sample(lambda: pa.array([10**6, 1], pa.timestamp("ns")), timestamps=1),
        Sample(lambda: pl.Series([10**6, 1]).cast(pl.Datetime("ns")), timestamps=1),
        Sample(lambda: pl.Series([1000, 1]).cast(pl.Datetime("us", "UTC")), timestamps=1),
    ],
    "`timedelta64`": [
        refused(lambda: np.array([7, 8], "m8[ms]")),
        refused(lambda: np.array([7, 8], "m8[ns]")),
        refused(lambda: [np.timedelta64(7, "ms"), np.timedelta64(8, "ms")]),
        Sample(lambda: [7, np.timedelta64(8, "ms")], numbers=1, timestamps=1),
        refused(lambda: [datetime.timedelta(7), datetime.timedelta(8)]),
        refused(lambda: [datetime.time(7), datetime.time(8)]),
        refused(lambda: pd.Series([7, 8], dtype="m8[ns]")),
        refused(lambda: pd.Series(pd.period_range("2020", periods=2))),
        refused(lambda: pa.array([7, 8], pa.duration("ms"))),
        refused(lambda: pa.array([7, 8], pa.time32("ms"))),
        refused(lambda: pa.array([7, 8], pa.time64("us"))),
        refused(lambda: pl.Series([datetime.timedelta(7), datetime.timedelta(8)])),
        refused(lambda: pl.Series([datetime.time(7), datetime.time(8)])),
    ],
    "text": [
        text(lambda: ["é", ""], ["é", ""]),
        text(lambda: ("é", ""), ["é", ""]),
        text(lambda: (word for word in ("é", "")), ["é", ""]),
        text({"é": 1, "": 2}.keys, ["é", ""]),
        text({1: "é", 2: ""}.values, ["é", ""]),
        text(lambda: np.array(["é", ""]), ["é", ""]),
        text(lambda: np.array(["é", "_", ""], ">U1")[::2], ["é", ""]),
        text(lambda: np.array(["é", None], object), ["é", None]),
        text(lambda: np.array(["é", ""], np.dtypes.StringDType()), ["é", ""]),
        text(lambda: np.array(["é", None], np.dtypes.StringDType(na_object=None)), ["é", None]),
        text(lambda: np.array(["é", np.nan], np.dtypes.StringDType(na_object=np.nan)), ["é", None]),
        text(lambda: masked(["é", "_"], [0, 1]), ["é", None]),
        text(lambda: masked(["é", "_"], [0, 1], object), ["é", None]),
        text(lambda: pd.Series(["é", ""]), ["é", ""]),
        text(lambda: pd.Series(["é", None], dtype="string"), ["é", None]),
        text(lambda: pd.Series(["é", None], dtype="category"), ["é", None]),
        text(lambda: pd.Series(["é", None], dtype="string[pyarrow]"), ["é", None]),
        text(lambda: pd.Index(["é", ""]), ["é", ""]),
        text(lambda: pa.array(["é", None]), ["é", None]),
        text(lambda: pa.array(["é", None], pa.string_view()), ["é", None]),
        text(lambda: pa.chunked_array([["é"], [None]]), ["é", None]),
        text(lambda: pa.array(["é", None]).dictionary_encode(), ["é", None]),
        text(lambda: pl.Series(["é", None]), ["é", None]),
        text(lambda: pl.Series(["é", None], dtype=pl.Categorical), ["é", None]),
        text(lambda: pl.Series(["é", None], dtype=pl.Enum(["a", "é"])), ["é", None]),
        Sample(lambda: ["a", "\ud800"], strings=1),
        Sample(lambda: ["a", 7], strings=1),
        Sample(lambda: ("a", 7), strings=1),
        Sample(lambda: ["a", float("nan")], strings=1),
    ],
    "`bytes`": [
        value(lambda: [b"a\0", b""], [b"a\0", b""]),
        value(lambda: (b"a\0", b""), [b"a\0", b""]),
        value(lambda: [np.bytes_(b"a"), b""], [b"a", b""]),
        value(lambda: (word for word in (b"a\0", b"")), [b"a\0", b""]),
        value(lambda: np.array([b"a\0", None], object), [b"a\0", None]),
        value(lambda: masked([b"a\0", b"_"], [0, 1], object), [b"a\0", None]),
        value(lambda: pd.Series([b"a\0", b""]), [b"a\0", b""]),
        value(lambda: pd.Series([b"a\0", None], dtype=pd.ArrowDtype(pa.binary())), [b"a\0", None]),
        value(lambda: pa.array([b"a\0", None]), [b"a\0", None]),
        value(lambda: pa.array([b"a\0", None], pa.binary(2)), [b"a\0", None]),
        value(lambda: pa.array([b"a\0", None], pa.binary_view()), [b"a\0", None]),
        value(lambda: pa.array([b"a\0", None]).dictionary_encode(), [b"a\0", None]),
        value(lambda: pl.Series([b"a\0", None]), [b"a\0", None]),
        Sample(lambda: [b"a", bytearray(b"b")], values=1),
        Sample(lambda: [b"a", memoryview(b"b")], values=1),
        Sample(lambda: [b"a", "b"], values=1),
        value(lambda: np.array([b"a\0", b"\0\0"], "V2"), [b"a\0", b"\0\0"]),
    ],
    "NumPy's `S`": [
        Sample(lambda: np.array([b"a\0", b"bc"]), whole=True),
        Sample(lambda: masked([b"a\0", b"bc"], [0, 1]), whole=True),
    ],
    "a pair": [
        Sample(lambda: (b"abc", [0, 1, 3]), strings=["a", "bc"], values=[b"a", b"bc"]),
        Sample(lambda: (bytearray(b"abc"), (0, 1, 3)), strings=["a", "bc"], values=[b"a", b"bc"]),
        Sample(lambda: (memoryview(b"abc"), np.array([0, 1, 3], ">u4")), strings=["a", "bc"], values=[b"a", b"bc"]),
        Sample(
            lambda: (np.frombuffer(b"abc", np.uint8), pa.array([0, 1, 3])), strings=["a", "bc"], values=[b"a", b"bc"]
        ),
        Sample(lambda: (b"abc", pl.Series([0, 1, 3])), strings=["a", "bc"], values=[b"a", b"bc"]),
        Sample(lambda: (b"abc", (n for n in (0, 1, 3))), strings=["a", "bc"], values=[b"a", b"bc"]),
        Sample(lambda: (b"abc", [0, 3, 1]), strings=1, values=1),
        Sample(lambda: (b"abc", [0, 1, 4]), strings=1, values=1),
        Sample(lambda: (b"abc", [-1, 1, 3])),
        Sample(lambda: (b"abc", masked([0, 1, 3], [0, 1, 0])), strings=1, values=1),
        Sample(lambda: (b"abc", [0, 1, 3.0]), strings=2, values=2),
        Sample(lambda: (b"abc", [0, True, 3]), strings=1, values=1),
        Sample(lambda: (b"abc", pa.array([0, None, 3])), strings=1, values=1),
        Sample(lambda: (masked([97, 98, 99], [0, 0, 1], np.uint8), [0, 1, 3]), strings=2, values=2),
        Sample(lambda: (b"abc", {0, 1, 3}), whole=True),
    ],
    "nothing": [
        missing(lambda: [None]),
        missing(lambda: np.array([None])),
        missing(lambda: [no_stamp()]),
        missing(lambda: np.array(["NaT"], "M8[s]").astype(object)),
        missing(lambda: [pd.NaT]),
        missing(lambda: [pd.NA]),
        missing(lambda: [np.ma.masked]),
        missing(lambda: [masked([5], [1])[0]]),
        missing(lambda: [masked(5, True)]),
        missing(lambda: masked([5], [1])),
        missing(lambda: masked([5.0], [1])),
        missing(lambda: masked(["x"], [1])),
        missing(lambda: masked([b"x"], [1], object)),
        missing(lambda: masked([2**64 - 1], [1], np.uint64)),
        missing(lambda: pd.Series([None], dtype="Int64")),
        missing(lambda: pd.Series([None], dtype=object)),
        missing(lambda: pa.array([None], pa.int64())),
        missing(lambda: pa.nulls(1)),
        missing(lambda: pa.array([None], pa.string())),
        missing(lambda: pl.Series([None])),
        missing(lambda: pl.Series([None], dtype=pl.Binary)),
        # One value for all rows.
        Sample(lambda: None, timestamps=[NO_TIME], strings=[None], values=[None], rows=1, numbers=-1),
        Sample(lambda: pd.NA, timestamps=[NO_TIME], strings=[None], values=[None], rows=1, numbers=-1),
        Sample(no_stamp, timestamps=[NO_TIME], strings=[None], values=[None], rows=1, numbers=-1),
        Sample(lambda: np.ma.masked, timestamps=[NO_TIME], strings=[None], values=[None], rows=1, numbers=-1),
        # Beside what is there.
        Sample(lambda: masked([7, 8, 9], [0, 1, 0]), numbers=1, timestamps=[7, NO_TIME, 9], rows=3),
        Sample(lambda: masked([7, 2**63, 9], [0, 1, 0], np.uint64), numbers=1, timestamps=[7, NO_TIME, 9], rows=3),
        Sample(lambda: [7, None, 9], numbers=1, timestamps=[7, NO_TIME, 9], rows=3),
        Sample(lambda: [7, pd.NA, 9], numbers=1, timestamps=[7, NO_TIME, 9], rows=3),
        Sample(lambda: np.array([7, None, 9], object), numbers=1, timestamps=[7, NO_TIME, 9], rows=3),
    ],
    "NaN in a column of objects": [
        missing(lambda: pd.Series([float("nan")], dtype=object)),
        missing(lambda: pd.Series([None], dtype="str")),
        Sample(lambda: pd.Series(["é", None]), strings=["é", None]),
        Sample(lambda: pd.Series([b"a", float("nan")]), values=[b"a", None]),
        Sample(lambda: pd.Series([AT_NOON, float("nan")], dtype=object), timestamps=[NOON, NO_TIME]),
    ],
    "a table": [
        whole(lambda: np.zeros((2, 1), np.int64)),
        whole(lambda: np.array([["a"], ["b"]])),
        whole(lambda: np.zeros((2, 1), "M8[ms]")),
        whole(lambda: pd.DataFrame({"a": ["x", "y"]})),
        whole(lambda: pl.DataFrame({"a": [7, 8]})),
        whole(lambda: pl.Series([[7], [8]]).reshape((2, 1))),
        whole(lambda: pa.table({"a": [7, 8]})),
        whole(lambda: pa.record_batch({"a": ["x", "y"]})),
        refused(lambda: [[7], [8]]),
        refused(lambda: [[7], [8, 9]]),
        refused(lambda: [np.array([7]), np.array([8])]),
        refused(lambda: pa.array([[7], [8]])),
        refused(lambda: pa.array([{"a": 7}, {"a": 8}])),
        refused(lambda: [("a", 7), ("b", 8)]),
    ],
    "a set": [
        whole(lambda: {7, 8}),
        whole(lambda: frozenset(["a", "b"])),
        whole(lambda: {b"a", b"b"}),
        whole(lambda: {"a": 7, "b": 8}),
        whole(lambda: collections.OrderedDict([("a", 7), ("b", 8)])),
        whole({7: 8, 9: 10}.items),
    ],
}
