"""Batches: bytes of their rows, columns, `split`."""

from __future__ import annotations

from .mutant import Mutant

MUTANTS = [
    Mutant("bytes: reserved ones of copied rows not cleared", "bytes", "core/nodedb_layout.h",
           (("(uint32_t)row->source << 8;", "(uint32_t)row->source << 8 | (uint32_t)row->reserved << 16;"),
            ("span_offset, span_length, 0};", "span_offset, span_length, row->reserved_too};")), ("core/_bulk",)),
    Mutant("bytes: reserved ones of a reservation not cleared", "bytes", "core/nodedb_layout.h",
           (("(uint32_t)row->source << 8;", "(uint32_t)row->source << 8 | (uint32_t)row->reserved << 16;"),
            ("span_offset, span_length, 0};", "span_offset, span_length, row->reserved_too};")), ("ends/_reservation",)),
    Mutant("bytes: payload of a reservation not initialized", "bytes", "ends/_reservation.pyx",
           (("            memset(self._block.bytes, 0, self._payload_bytes)\n", "            pass\n"),)),
    Mutant("bytes: rows of a reservation not initialized", "bytes", "ends/_reservation.pyx",
           (("    memset(row, 0, sizeof(EventRow))\n", "    row.lsn = row.tenant_id = row.vshard_id = row.op = row.source = 0\n"),)),
    Mutant("bytes: unused ones of a batch's rows not cleared", "bytes", "batch/_row_checks.pyx",
           (("        _settle(block.rows + i)\n", "        pass\n"),), ("batch/_row_checks",)),
    Mutant("bytes: an event keeps its position in the ring", "bytes", "batch/_event_rows.pyx",
           (("    clear_unnamed(&event.row)\n", ""), ("    clear_unnamed(row)\n", "")), ("batch/_event_rows",)),
    Mutant("columns: a column's mask ignored", "columns", "batch/columns.py",
           (("mask if mask.dtype == np.bool_ else None", "None"),), ()),
    Mutant("columns: fractions of milliseconds truncated", "columns", "batch/columns.py",
           (("    cut = whole % scale.denominator != 0\n", "    cut = np.zeros_like(nat)\n"),), ()),
    Mutant("columns: an overflow to milliseconds not refused", "columns", "batch/columns.py",
           (("    far |= np.abs(whole) > _MOST_MS // scale.numerator\n", ""),), ()),
    Mutant("columns: an overflow of years not refused", "columns", "batch/columns.py",
           (("        far = np.abs(ticks) > _MOST_YEARS *", "        far = np.abs(ticks) > 2**62 + 0 * _MOST_YEARS *"),), ()),
    Mutant("columns: a set accepted, in hash order", "columns", "batch/columns.py",
           (("    if isinstance(values, Set) and not isinstance(values, KeysView):\n", "    if False:\n"),), ()),
    Mutant("columns: a bool accepted as an integer", "columns", "batch/columns.py",
           (("issubclass(kind, bool | np.timedelta64)", "issubclass(kind, np.timedelta64)"),), ()),
    Mutant("columns: a masked element accepted for an event", "columns", "batch/integers.py",
           (("    if is_masked_array(value) and np.ma.is_masked(value):\n", "    if False:\n"),), ()),
    Mutant("columns: the mask of records ignored", "columns", "batch/_event_batch.pyx",
           (('plain_array("records", records)', "records"),)),
    Mutant("columns: a reservation converts values", "columns", "ends/_reservation.pyx",
           (("        checked = fixed_column(column, value, check_members=False)\n",
             "        checked = __import__('numpy').asarray(value)\n"),)),
    Mutant("split takes a neighbour's table", "split", "batch/_split.pyx",
           (("if self.groups.count == 0 or not is_group(", "if self.groups.count == 0 or False and not is_group("),)),
]  # fmt: skip
