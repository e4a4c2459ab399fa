"""The tables of docs/layout.md against the code: structs as the compiler lays them out, the dtype, the file's head."""

from __future__ import annotations

import re
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest

from nodedb_ring import EVENT_DTYPE, EventBus, WriteEvent, WriteOp
from nodedb_ring._ring import block_bytes
from nodedb_ring.bus import file as bus_file

from .blocks import ROOT

PAGE = (ROOT / "docs" / "layout.md").read_text()
CORE = ROOT / "nodedb_ring" / "core"
HEADER = CORE / "nodedb_layout.h"
# What the compiler says of each member of a struct: its name, offset and size in bytes.
PROGRAM = """
#include <stdio.h>
#include "{header}"
#define SHOW(member) \
    printf(#member " %zu %zu\\n", offsetof({struct}, member), sizeof((({struct} *)0)->member));
int main(void) {{ {shows} printf("%zu\\n", sizeof({struct})); }}
"""


def table(title: str) -> dict[str, list[str]]:
    """The rows of the table under a heading, by the name in their first cell."""
    section = PAGE.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"]
    named = {row[0].strip("`"): row for row in rows if row[0].startswith("`")}
    assert named, f"no table under {title!r}"
    return named


def places(title: str) -> dict[str, tuple[int, int]]:
    """The same as offsets and sizes."""
    return {name: (int(row[1]), int(row[2])) for name, row in table(title).items()}


def compiled(struct: str, directory: Path) -> tuple[dict[str, tuple[int, int]], int]:
    """The members of a struct as the compiler places them, and the size of the struct."""
    bare = re.sub(r"//.*", "", "".join(header.read_text() for header in (CORE / "nodedb_schema.h", HEADER)))
    body = bare.partition(f"}} {struct};")[0].rpartition("struct {")[2]
    members: list[str] = []
    for statement in body.split(";"):
        for declarator in re.sub(r"\bNODEDB_\w+", "", statement).split(","):
            members += re.findall(r"(\w+)(?:\[\w*\])?\s*$", declarator)
    program = directory / f"{struct}.c"
    program.write_text(
        PROGRAM.format(header=HEADER, struct=struct, shows=" ".join(f"SHOW({name})" for name in members))
    )
    subprocess.run(["cc", "-std=gnu11", "-o", program.with_suffix(""), program], check=True)
    *lines, size = subprocess.check_output([program.with_suffix("")], text=True).splitlines()
    return {name: (int(at), int(width)) for name, at, width in map(str.split, lines)}, int(size)


def test_the_row_is_the_compilers(tmp_path: Path) -> None:
    assert EVENT_DTYPE.names is not None
    members, size = compiled("nodedb_row", tmp_path)
    field_at, field_bytes = members.pop("field")
    reserved = {name for name in members if name.startswith("reserved")}
    shown = places("A row")
    variable = {name: place for name, place in shown.items() if place[0] >= field_at and name in EVENT_DTYPE.names}
    assert {name: place for name, place in shown.items() if name not in variable} == {
        name: place for name, place in members.items() if name not in reserved
    }
    assert sum(width for _, width in variable.values()) == field_bytes
    assert size == 128
    covered = sum(width for _, width in shown.values()) + sum(members[name][1] for name in reserved)
    assert covered == size


def test_the_row_is_the_dtypes() -> None:
    assert EVENT_DTYPE.fields is not None
    shown = table("A row")
    for name, (dtype, offset, *_) in EVENT_DTYPE.fields.items():
        row = shown[name]
        assert (int(row[1]), int(row[2]), row[3]) == (offset, dtype.itemsize, dtype.str.lstrip("<|")), name
    assert EVENT_DTYPE.itemsize == 128


def test_the_header_is_the_compilers(tmp_path: Path) -> None:
    members, size = compiled("nodedb_header", tmp_path)
    assert places("A ring's header") == members
    assert f"{size} bytes" in PAGE.split("## A ring's header\n", 1)[1]


def test_the_head_of_a_bus_is_the_codes() -> None:
    head = bus_file._Head.__slots__  # pyright: ignore[reportPrivateUsage]
    layout = bus_file._HEAD  # pyright: ignore[reportPrivateUsage]
    codes = [*re.findall(r"(\d*)([QI])", layout.format), *[("", code) for code in re.findall(r"\d+s", layout.format)]]
    sizes = [struct.calcsize(code) for times, code in codes for _ in range(int(times or 1))]
    offsets = np.cumsum([0, *sizes[:-1]]).tolist()
    assert places("A bus's file") == dict(zip(head, zip(offsets, sizes, strict=True), strict=True))


@pytest.mark.parametrize(("capacity", "arena_bytes"), [(8, 4096), (1024, 10_000), (4096, 65536)])
def test_a_bus_read_by_the_page_alone(tmp_path: Path, capacity: int, arena_bytes: int) -> None:
    """What the page says where things are is where they are: a bus with known events, read as bytes."""
    head, header, row = places("A bus's file"), places("A ring's header"), places("A row")

    def number(data: bytes, place: tuple[int, int], base: int = 0) -> int:
        at, width = place
        return int.from_bytes(data[base + at : base + at + width], "little")

    with (
        EventBus.create("page", 3, capacity, arena_bytes=arena_bytes, directory=tmp_path) as bus,
        bus.producer(2) as producer,
        bus.consumer(2) as consumer,
    ):
        for sequence in (41, 42, 43):
            producer.emit(
                WriteEvent(
                    sequence=sequence, collection="orders", op=WriteOp.UPDATE, row_id="A-1", lsn=7, new_value=b"new"
                )
            )
        assert consumer.try_recv() is not None
        data = bus.path.read_bytes()
    assert len(data) == number(data, head["file_bytes"])
    assert data[:8] == b"ringbus1"
    assert (number(data, head["num_cores"]), number(data, head["capacity"])) == (3, capacity)
    assert number(data, head["block_bytes"]) == block_bytes(capacity, arena_bytes)

    block = number(data, head["blocks_at"]) + 2 * number(data, head["block_bytes"])
    assert data[block : block + 8] == b"edbring1"
    assert number(data, header["core_id"], block) == 2
    assert number(data, header["emitted_sequence"], block) == 43
    published, released = (number(data, header[name], block) for name in ("published", "released"))
    assert (published, released) == (3, 1)

    parts = [block + number(data, header[name], block) for name in ("index_at", "rows_at", "arena_at")]
    index_at, rows_at, arena_at = parts
    assert (index_at - block) % 4096 == (rows_at - block) % 4096 == 0
    assert arena_at - rows_at == 128 * capacity
    assert number(data, head["block_bytes"]) - (arena_at - block) == -(-arena_bytes // 4096) * 4096
    for position in range(released, published):
        slot = position & (capacity - 1)
        at = rows_at + 128 * number(data, (4 * slot, 4), index_at)
        assert number(data, row["sequence"], at) == 41 + position
        assert number(data, row["position"], at) == position
        assert number(data, row["op"], at) == WriteOp.UPDATE
        for name, value in (("collection", b"orders"), ("row_id", b"A-1"), ("new_value", b"new")):
            start = arena_at + number(data, row[f"{name}_offset"], at)
            assert data[start : start + number(data, row[f"{name}_length"], at)] == value
        assert number(data, row["old_value_length"], at) == 2**32 - 1
