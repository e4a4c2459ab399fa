"""Random steps of an application: writes of every kind, transactions, schema changes, and what goes wrong meanwhile."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final, NamedTuple, cast

from .sqlite_faults import SAME_FOR_A_TWIN, Fault, FaultKind, Value
from .sqlite_replica import Query, quoted
from .sqlite_schemas import CONFLICTS, Column, Schemas, Table
from .sqlite_session import Do, Step

SAVEPOINTS: Final = "pqr"
CURSORS: Final = "xy"
OTHERS: Final = "others"
"""The table that another connection writes to, and alters. It has no triggers and no foreign keys."""


class Case(NamedTuple):
    """What a run is restricted to."""

    faults: tuple[FaultKind, ...] = ()
    schema: bool = True
    """Schema changes happen after the capture has begun."""
    beside: bool = True
    """Other connections, cursors that stay open."""
    refusals: bool = True
    """Changes that cannot be captured."""
    virtual: bool = True
    """Full-text tables, which are virtual tables as the capture's is."""
    sweeps: float = 0.005
    """How often a statement is stopped at each place where it can be."""


CASES: Final = {
    "all": Case(
        (
            *SAME_FOR_A_TWIN,
            *("function", "function", "function", "collation", "interrupt", "interrupt", "interrupt in function"),
            *("deny", "deny own", "update hook", "preupdate hook"),
        )
    ),
    "rows": Case(schema=False, beside=False, refusals=False, virtual=False),
    "schema": Case(beside=False, refusals=False, virtual=False),
    "virtual": Case(("deny own", "interrupt"), beside=False, refusals=False),
    "functions": Case(("function", "collation"), schema=False, beside=False, refusals=False, virtual=False),
    "interrupts": Case(
        ("interrupt", "interrupt in function"), schema=False, beside=False, refusals=False, virtual=False
    ),
    "hooks": Case(
        ("commit hook", "commit refused", "update hook", "rollback hook", "preupdate hook", "trace"),
        schema=False,
        beside=False,
        refusals=False,
    ),
    "denials": Case(("deny", "deny table"), schema=False, beside=False, refusals=False),
    "beside": Case(("full",), schema=False, refusals=False),
    "refusals": Case(schema=False, beside=False),
    # SQLite itself continues outside any transaction where a table has triggers and no capture, and reads freed memory
    # where the transaction has changed the schema: the tables are captured from the beginning on, and stay.
    "rollbacks": Case(("rollback in function",), schema=False, beside=False, refusals=False, virtual=False),
    "joins": Case(("interrupt",), refusals=False, virtual=False, sweeps=0.1),
}


class Statements:
    """Draws steps. What is drawn follows from `chance` and from what the database says of its schema.

    Parameters
    ----------
    chance : random.Random
    query : Query
        Asks the database.
    in_transaction : Callable[[], bool]
    case : Case
    twin : bool
        Only steps that have the same outcome without a capture.
    fails : float
        Probability that a statement has a fault.
    full : bool
        The database may be full: not where a log takes pages that a twin does not use.
    """

    def __init__(
        self,
        chance: random.Random,
        query: Query,
        in_transaction: Callable[[], bool],
        case: Case,
        *,
        twin: bool,
        fails: float,
        full: bool,
    ) -> None:
        self._chance = chance
        self._in_transaction = in_transaction
        self._case = case
        self._fails = fails
        self._schemas = Schemas(chance, query, in_transaction, virtual=case.virtual)
        self._maybe, self._pick, self._literal = self._schemas.maybe, self._schemas.pick, self._schemas.literal
        allowed: list[FaultKind] = [kind for kind in case.faults if not twin or kind in SAME_FOR_A_TWIN]
        self._faults: list[FaultKind] = [kind for kind in allowed if kind != "full" or full or not twin]
        self._refusals = case.refusals and not twin
        self.chosen: frozenset[str] | None = None
        self._writes: list[Callable[[Table], str]] = [
            *[self._insert] * 5,
            self._insert_select,
            self._upsert,
            *[self._update] * 4,
            *[self._update_key] * 2,
            self._update_from,
            *[self._delete] * 3,
        ]

    def captures(self, name: str) -> bool:
        """Whether changes of a table are captured."""
        return self.chosen is None or name.lower() in self.chosen

    # Before the capture begins.

    def setting_up(self) -> list[Step]:
        """The settings and the first tables."""
        first: list[str] = []
        if self._maybe(0.4):
            first.append(f"PRAGMA page_size = {self._pick([512, 1024])}")
        if self._maybe(0.15):
            first.append("PRAGMA encoding = 'UTF-16'")
        if self._maybe(0.2):
            first.append(f"PRAGMA auto_vacuum = {self._pick(['FULL', 'INCREMENTAL'])}")
        first.append(f"PRAGMA foreign_keys = {self._pick(['ON', 'ON', 'OFF'])}")
        first.append(f"PRAGMA recursive_triggers = {self._pick(['ON', 'OFF'])}")
        if self._maybe(0.4):
            first.append(f"PRAGMA cache_size = {self._pick([1, 5, 20])}")
        steps = [Step("sql", "; ".join([*first, "PRAGMA synchronous = OFF"]))]
        if self._case.beside:
            steps.append(Step("sql", f"CREATE TABLE {OTHERS}(a INTEGER PRIMARY KEY, b)"))
        return steps

    def first_table(self) -> Step:
        return Step("sql", self._schemas.create_table())

    def first_change(self) -> Step:
        """Triggers, indexes and views of the first tables, or rows of them."""
        return self._row_step() if self._maybe(0.6) else Step("sql", self._schemas.change())

    # Afterwards.

    def next(self) -> list[Step]:
        """One step, or a few that belong together."""
        drawn = self._chance.random()
        if drawn < 0.24:
            return [self._with_fault(Step("sql", self._control()))]
        if drawn < 0.27:
            return [Step(self._pick(["enter", "leave", "fail"]))]
        if drawn < 0.38 and self._case.schema:
            return [self._with_fault(Step("sql", self._schemas.change()))]
        if drawn < 0.40:
            return [self._several()]
        if drawn < 0.45 and self._case.beside:
            return [self._beside()]
        if drawn < 0.46 and self._refusals:
            return [self._refusal()]
        if drawn < 0.465:
            return [self._many_rows()]
        if drawn < 0.465 + self._case.sweeps and self._faults:
            return self._sweep()
        return [self._with_fault(self._row_step())]

    def _with_fault(self, step: Step) -> Step:
        if not self._faults or not self._maybe(self._fails):
            return step
        kind = self._pick(self._faults)
        return self._failing(step, kind, self._at(kind))

    def _at(self, kind: FaultKind) -> int:
        match kind:
            case "interrupt":
                return self._chance.randrange(1, self._pick([12, 60, 400]))
            case "function" | "collation" | "interrupt in function" | "rollback in function":
                return self._chance.randrange(1, self._pick([3, 8]))
            case "deny" | "deny own" | "full" | "update hook" | "preupdate hook":
                return self._chance.randrange(1, 6)
            case _:
                return 1

    def _failing(self, step: Step, kind: FaultKind, at: int) -> Step:
        tables = self._schemas.tables()
        table = self._pick(tables).name if kind == "deny table" and tables else ""
        return Step(step.do, step.sql, step.bindings, step.count, step.name, Fault(kind, at, table), step.refusable)

    def _sweep(self) -> list[Step]:
        """One statement, stopped at its first instruction or call, at its second, and so on."""
        kind: FaultKind = self._pick(
            [k for k in self._faults if k in ("interrupt", "function", "deny")] or self._faults
        )
        step = self._row_step()
        # Between them one that nothing disturbs: what failed before must not refuse it.
        innocent = Step("sql", f"UPDATE {OTHERS} SET b = b WHERE b IS (SELECT b FROM {OTHERS} LIMIT 1)")
        places = range(1, 1 + {"interrupt": 60, "deny": 12}.get(kind, 6))
        return [each for at in places for each in (self._failing(step, kind, at), innocent)]

    def _control(self) -> str:
        name = self._pick(SAVEPOINTS)
        if not self._in_transaction():
            return self._pick(["BEGIN", "BEGIN", "BEGIN IMMEDIATE", f"SAVEPOINT {name}", "COMMIT"])
        return self._pick(
            [
                *(f"SAVEPOINT {name}", f"SAVEPOINT {name}", f"RELEASE {name}", f"ROLLBACK TO {name}"),
                *(f"ROLLBACK TO {name}", "COMMIT", "COMMIT", "END", "ROLLBACK"),
            ]
        )

    def _several(self) -> Step:
        """Statements in one string; a table that is made and written by the same string."""
        if self._case.schema and self._maybe(0.5):
            name = self._schemas.new_name("t_")
            create = f"CREATE TABLE main.{quoted(name)}(a INTEGER PRIMARY KEY, b, c REAL DEFAULT 3)"
            values = ", ".join(f"({self._literal()})" for _ in range(3))
            statements = [create, f"INSERT INTO {name}(b) VALUES {values}", f"UPDATE {name} SET a = a + 10"]
        else:
            statements = [self._row_step().sql or "SELECT 1" for _ in range(self._chance.randrange(2, 5))]
        if self._maybe(0.3):
            statements = ["SAVEPOINT s", *statements, self._pick(["RELEASE s", "ROLLBACK TO s; RELEASE s"])]
        elif self._maybe(0.4):
            statements = ["BEGIN", *statements, self._pick(["COMMIT", "COMMIT", "ROLLBACK"])]
        return self._with_fault(Step("sql", "; ".join(statements)))

    def _beside(self) -> Step:
        """Other connections, and cursors of this one that stay open."""
        name = self._pick(CURSORS)
        kind = self._pick(["read", "done", "done", "other", "other", "open", "open", "next", "next", "close"])
        if kind == "other":
            return Step("other", self._of_another_connection(), name=OTHERS)
        if kind == "open":
            tables = self._schemas.tables("table", "view")
            sql = f"SELECT * FROM {self._pick(tables).sql}" if tables else "SELECT 1"
            if self._maybe(0.4):
                returning = self._row_step(returning=True)
                sql = returning.sql
            return Step("open", sql, name=name, count=self._chance.randrange(3))
        do = cast("Do", kind)
        return Step(do, name=name, count=1) if kind in ("next", "close") else Step(do)

    def _of_another_connection(self) -> str:
        columns = [table.columns for table in self._schemas.tables(schema="main") if table.name == OTHERS]
        if not columns or self._maybe(0.6):
            value = self._literal()
            return self._pick(
                [
                    f"INSERT OR IGNORE INTO {OTHERS}(a, b) VALUES ({self._chance.randrange(20)}, {value})",
                    f"UPDATE {OTHERS} SET b = {value}",
                    f"DELETE FROM {OTHERS} WHERE a > 5",
                ]
            )
        if self._maybe(0.5):
            return f"CREATE TABLE {self._schemas.new_name('t_')}(a INTEGER PRIMARY KEY, b REAL)"
        if len(columns[0]) > 4:
            return f"ALTER TABLE {OTHERS} DROP COLUMN {columns[0][-1].sql}"
        return f"ALTER TABLE {OTHERS} ADD COLUMN {self._schemas.new_name('c_')} REAL DEFAULT 3"

    def _refusal(self) -> Step:
        """What the documentation says cannot be captured, so cannot be committed."""
        # Text that is not UTF-8 stays in a table that is not captured, and then apsw fails in collations.
        tables = [t for t in self._schemas.tables(schema="main") if not t.strict and self.captures(t.name)]
        if not tables:
            return self._row_step()
        table = self._pick(tables)
        column = self._pick(table.writable)
        found = self._schemas.query(f"SELECT {table.rowid} FROM {table.sql} LIMIT 1") if table.rowid else []
        if found and self._maybe(0.5):
            bindings: tuple[Value, ...] = (table.name, column.name, found[0][0], b"?")
            return Step("blob", bindings=(bindings,), refusable=True)
        sql = self._pick(["INSERT INTO {}({}) VALUES ({})", "UPDATE {} SET {} = {}"])
        return Step("sql", sql.format(table.sql, column.sql, "CAST(X'61ff' AS TEXT)"), refusable=True)

    def _no_table(self) -> Step:
        """There is none to write to."""
        return Step("sql", self._schemas.create_table() if self._case.schema else self._control())

    def _many_rows(self) -> Step:
        """So many that a b-tree gets several levels, or few by executemany."""
        tables = [table for table in self._schemas.tables(schema="main") if table.writable]
        if not tables:
            return self._no_table()
        table = self._pick(tables)
        columns = ", ".join(column.sql for column in table.writable)
        conflict = self._pick(["", "OR IGNORE ", "OR REPLACE ", "OR FAIL "])
        if self._maybe(0.5):
            rows = tuple(tuple(self._bound(column) for column in table.writable) for _ in range(20))
            marks = ", ".join("?" for _ in table.writable)
            return Step("many", f"INSERT {conflict}INTO {table.sql}({columns}) VALUES ({marks})", bindings=rows)
        values = ", ".join(self._pick(["n", "n * 3", "hex(n)", "n / 2.0"]) for _ in table.writable)
        series = (
            f"WITH RECURSIVE r(n) AS (SELECT 20 UNION ALL SELECT n + 1 FROM r WHERE n < {self._pick([80, 600, 2000])})"
        )
        return Step("sql", f"{series} INSERT {conflict}INTO {table.sql}({columns}) SELECT {values} FROM r")

    def _bound(self, column: Column) -> Value:
        values: list[Value] = [
            self._chance.randrange(30),
            self._chance.randrange(30) / 2,
            self._pick("abcd"),
            b"x",
            None,
        ]
        return values[0] if "INT" in column.type or self._maybe(0.5) else self._pick(values)

    # Statements that change rows.

    def _row_step(self, *, returning: bool = False) -> Step:
        kinds = ["table"] * 8 + ["view", "virtual"]
        tables = self._schemas.tables(self._pick(kinds)) or self._schemas.tables()
        tables = [table for table in tables if table.writable]
        if not tables:
            return self._no_table()
        table = self._pick(tables)
        if table.kind == "virtual":
            return Step("sql", self._of_words(table))
        if table.kind == "view":
            return Step("sql", self._pick([self._insert, self._update, self._delete])(table))
        if table.rowid and self._maybe(0.05):
            return Step("sql", f"DELETE FROM {table.sql}")
        sql = self._pick(self._writes)(table)
        if returning or self._maybe(0.12):
            sql += f" RETURNING {self._pick(['*', f'fn({self._pick(table.columns).sql})'])}"
            if not returning and self._maybe(0.6):
                return Step("partly", sql, count=self._chance.randrange(3))
        return Step("sql", sql)

    def _of_words(self, table: Table) -> str:
        return self._pick(
            [
                f"INSERT INTO {table.sql}(word) VALUES ({self._literal('TEXT')}), ('hello')",
                f"UPDATE {table.sql} SET word = fn('world') WHERE rowid % 2",
                f"DELETE FROM {table.sql} WHERE rowid > 3",
            ]
        )

    def _or(self) -> str:
        return f"OR {self._pick(CONFLICTS)} " if self._maybe(0.35) else ""

    def _name(self, table: Table) -> str:
        """Without its database, too, where a temporary table of the same name goes before."""
        return quoted(table.name) if self._maybe(0.3) else table.sql

    def _value(self, column: Column, table: Table) -> str:
        literal = self._literal(column.type, strict=table.strict)
        return f"fn({literal})" if self._maybe(0.15) else literal

    def _condition(self, table: Table) -> str:
        column = self._pick(table.columns).sql
        conditions = [
            f"{column} > {self._literal()}",
            f"{column} = {self._literal()}",
            f"{column} < {self._literal()}",
            f"{column} IS NULL",
            f"fn({column}) >= {self._literal()}",
            f"fn({column}) IS NOT {self._literal()}",
            f"{column} COLLATE py_raising > 'b'",
            "1",
        ]
        if table.rowid:
            conditions += [f"{table.rowid} % 3 = 1", f"{table.rowid} > {self._chance.randrange(9)}"]
        return self._pick(conditions)

    def _insert(self, table: Table) -> str:
        if self._maybe(0.05):
            return f"INSERT {self._or()}INTO {self._name(table)} DEFAULT VALUES"
        columns = table.writable
        if self._maybe(0.2):
            columns = self._chance.sample(columns, self._chance.randrange(1, len(columns) + 1))
        rows = ", ".join(
            f"({', '.join(self._value(column, table) for column in columns)})"
            for _ in range(self._pick([1, 1, 2, 3, 5]))
        )
        verb = "REPLACE" if self._maybe(0.1) else f"INSERT {self._or()}".rstrip()
        return f"{verb} INTO {self._name(table)}({', '.join(column.sql for column in columns)}) VALUES {rows}"

    def _insert_select(self, table: Table) -> str:
        source = self._pick(self._schemas.tables("table", "view"))
        if self._maybe(0.2) and len(source.columns) == len(table.columns):
            # Without WHERE SQLite may copy whole records, and its hook does not know the defaults that they lack:
            # docs/capture.md, of tables made later.
            return f"INSERT {self._or()}INTO {self._name(table)} SELECT * FROM {source.sql} WHERE 1"
        column = self._pick(source.columns).sql
        forms = ["{0}", "fn({0})", "agg({0})", "win({0}) OVER (ORDER BY {0} ROWS 2 PRECEDING)", "count(*)"]
        first = self._pick(forms)
        selected = [first.format(column), *(self._pick([column, self._literal(c.type)]) for c in table.writable[1:])]
        group = f" GROUP BY {column}" if first in (forms[2], forms[4]) else ""
        order = f" ORDER BY {column} COLLATE py_raising" if self._maybe(0.2) and not group else ""
        columns = ", ".join(each.sql for each in table.writable)
        name = self._name(table)
        query = f"SELECT {', '.join(selected)} FROM {source.sql}{group}{order} LIMIT 20"
        return f"INSERT {self._or()}INTO {name}({columns}) {query}"

    def _upsert(self, table: Table) -> str:
        columns = table.writable
        rows = ", ".join(f"({', '.join(self._value(c, table) for c in columns)})" for _ in range(2))
        target = f"({', '.join(column.sql for column in table.key)})" if table.key and self._maybe(0.8) else ""
        column = self._pick(columns)
        values = [f"excluded.{column.sql}", f"fn(excluded.{column.sql})", self._value(column, table)]
        change = f"{column.sql} = {self._pick(values)}"
        action = self._pick(["NOTHING", f"UPDATE SET {change}", f"UPDATE SET {change}"])
        names = ", ".join(each.sql for each in columns)
        return f"INSERT INTO {self._name(table)}({names}) VALUES {rows} ON CONFLICT{target} DO {action}"

    def _assignment(self, column: Column, table: Table) -> str:
        forms = [self._value(column, table), f"fn({column.sql})", self._pick(table.columns).sql]
        if "INT" in column.type or column.type in ("REAL", "FLOAT", "NUMERIC"):
            forms += [f"{column.sql} + 1", f"-{column.sql}"]
        return f"{column.sql} = {self._pick(forms)}"

    def _update(self, table: Table) -> str:
        columns = self._chance.sample(table.writable, self._chance.randrange(1, min(3, len(table.writable) + 1)))
        changes = ", ".join(self._assignment(column, table) for column in columns)
        return f"UPDATE {self._or()}{self._name(table)} SET {changes} WHERE {self._condition(table)}"

    def _update_key(self, table: Table) -> str:
        if table.rowid and not table.key:
            key = table.rowid
        elif table.key:
            key = self._pick(table.key).sql
        else:
            return self._update(table)
        value = self._pick([f"{key} + 1", f"{key} + 100", f"-{key}", f"{key} || 'k'", "fn(3)", f"{key}"])
        return f"UPDATE {self._or()}{self._name(table)} SET {key} = {value} WHERE {self._condition(table)}"

    def _update_from(self, table: Table) -> str:
        source = self._pick(self._schemas.tables("table", "view"))
        column = self._pick(table.writable).sql
        other = self._pick(source.columns).sql
        rows = f"(SELECT {other} AS v FROM {source.sql} ORDER BY 1 LIMIT 3) AS s"
        return f"UPDATE {self._or()}{table.sql} SET {column} = s.v FROM {rows} WHERE {self._condition(table)}"

    def _delete(self, table: Table) -> str:
        return f"DELETE FROM {self._name(table)} WHERE {self._condition(table)}"
