"""Random schemas: what tables there are, by asking the database, and statements that change them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, TypeVar, cast

import apsw

from nodedb_ring.log.sqlite import LOG_TABLES

from .sqlite_replica import Query, has_text_affinity, quoted

T = TypeVar("T")

TYPES: Final = ["", "INTEGER", "INT", "REAL", "FLOAT", "TEXT", "VARCHAR(9)", "BLOB", "NUMERIC"]
STRICT_TYPES: Final = ["INTEGER", "REAL", "TEXT", "BLOB", "ANY"]
COLUMNS: Final = ["a", "b", "c", "d", "Odd Name", "größe", "oid"]
TABLES: Final = ["t0", "t1", "t2", "T3", "odd table", "säge"]
CONFLICTS: Final = ["ABORT", "FAIL", "IGNORE", "REPLACE", "ROLLBACK"]
ACTIONS: Final = ["CASCADE", "SET NULL", "SET DEFAULT", "RESTRICT", "NO ACTION"]
MOST_TABLES: Final = 9
MOST_TRIGGERS: Final = 5
MOST_INDEXES: Final = 12


class Column(NamedTuple):
    name: str
    type: str
    key: int  # place in the primary key from 1 on, 0 outside
    generated: bool

    @property
    def sql(self) -> str:
        return quoted(self.name)


class Table(NamedTuple):
    """A table, a view or a virtual table, as the database describes it."""

    schema: str
    name: str
    kind: str
    without_rowid: bool
    strict: bool
    columns: tuple[Column, ...]

    @property
    def sql(self) -> str:
        return f"{self.schema}.{quoted(self.name)}"

    @property
    def writable(self) -> list[Column]:
        return [column for column in self.columns if not column.generated]

    @property
    def key(self) -> list[Column]:
        return sorted((column for column in self.columns if column.key), key=lambda column: column.key)

    @property
    def rowid(self) -> str | None:
        """A name of the rowid that is not a column's."""
        if self.without_rowid or self.kind != "table":
            return None
        names = {column.name.lower() for column in self.columns}
        return next(alias for alias in ("rowid", "_rowid_", "oid") if alias not in names)


def read_tables(query: Query) -> list[Table]:
    """All that can be written to, the tables of SQLite, of a log and of virtual tables left out."""
    sql = "SELECT schema, name, type, wr, strict FROM pragma_table_list WHERE type <> 'shadow' ORDER BY schema, name"
    found: list[Table] = []
    for schema, name, kind, without_rowid, strict in query(sql):
        if str(name).lower().startswith("sqlite_") or str(name) in LOG_TABLES or (schema, name) == ("temp", "never"):
            continue  # "never": what a twin's triggers would write to
        sql = "SELECT name, type, pk, hidden FROM pragma_table_xinfo(?, ?) WHERE hidden <> 1 ORDER BY cid"
        try:
            described = query(sql, name, schema)
        except apsw.SQLError:
            continue  # a view of a table that is gone
        columns = tuple(
            Column(str(column), str(declared).upper(), cast("int", key), bool(hidden))
            for column, declared, key, hidden in described
        )
        found.append(Table(str(schema), str(name), str(kind), bool(without_rowid), bool(strict), columns))
    return found


class Schemas:
    """Draws statements that change the schema."""

    def __init__(
        self, chance: random.Random, query: Query, in_transaction: Callable[[], bool], *, virtual: bool
    ) -> None:
        self.chance = chance
        self._in_transaction = in_transaction
        self._virtual = virtual
        self.query = query
        self._made = 0

    def maybe(self, probability: float) -> bool:
        return self.chance.random() < probability

    def pick(self, choices: Sequence[T]) -> T:
        return self.chance.choice(choices)

    def tables(self, *kinds: str, schema: str | None = None) -> list[Table]:
        """Those of these kinds, ordinary ones by default."""
        wanted = kinds or ("table",)
        found = read_tables(self.query)
        return [table for table in found if table.kind in wanted and schema in (None, table.schema)]

    def names(self, kind: str, schema: str = "main") -> list[str]:
        """Of the indexes, triggers or views that somebody made."""
        sql = f"SELECT name FROM {schema}.sqlite_schema WHERE type = ? AND sql IS NOT NULL ORDER BY name"
        return [str(name) for (name,) in self.query(sql, kind) if not str(name).startswith("nodedb_ring")]

    def new_name(self, stem: str) -> str:
        self._made += 1
        return f"{stem}{self._made}"

    # Literals.

    def literal(self, declared: str = "", *, strict: bool = False) -> str:
        """A value, mostly one of a few that meet again; of any type where any can be stored."""
        if strict and declared != "ANY":
            if self.maybe(0.05):
                return "NULL"
            return {"INT": self.integer, "INTEGER": self.integer, "REAL": self.real, "TEXT": self.text}.get(
                declared, self.blob
            )()
        if "INT" in declared:
            natural: Callable[[], str] = self.integer
        elif has_text_affinity(declared):
            natural = self.text
        elif declared in ("REAL", "FLOAT"):
            natural = self.pick([self.real, self.integer])
        else:
            natural = self.integer
        drawn = self.chance.random()
        if drawn < 0.8:
            return natural()
        if drawn < 0.88:
            return "NULL"
        return self.pick([self.integer, self.real, self.text, self.blob])()

    def integer(self) -> str:
        if self.maybe(0.9):
            return str(self.chance.randrange(12))
        return str(self.pick([-1, 127, 128, 255, 32768, 2**31, 2**32, 2**53 + 1, 2**62, -(2**63)]))

    def real(self) -> str:
        if self.maybe(0.7):
            return f"{self.chance.randrange(8)}.{self.pick('05')}"
        return self.pick(["-0.0", "1e300", "9e999", "-9e999", "1e18", "9007199254740993.0", "0.1", "-2.5"])

    def text(self) -> str:
        if self.maybe(0.7):
            return f"'{self.pick('abcdeABC')}'"
        return self.pick(
            [
                "''",
                "'1'",
                "'1.0'",
                "'007'",
                "'x,y'",
                "'it''s'",
                "'''q'''",
                "'X''61'''",
                "'é漢😀'",
                "'a' || char(0) || 'b'",
                f"printf('%.*c', {self.chance.randrange(200, 6000)}, 'z')",
            ]
        )

    def blob(self) -> str:
        # UTF-8 all of them: `||` makes a text of a blob, and what is not UTF-8 cannot be captured.
        return self.pick(["X''", "X'61'", "X'007f'", f"zeroblob({self.chance.randrange(40)})"])

    # Tables.

    def create_table(self, name: str | None = None, schema: str = "main") -> str:
        if name is None:
            name = self.pick(TABLES)
        strict = self.maybe(0.15)
        without_rowid = self.maybe(0.3)
        names = self.chance.sample(COLUMNS, self.chance.randrange(2, 5))
        types = [self.pick(STRICT_TYPES if strict else TYPES) for _ in names]
        # A rowid of its own, an INTEGER PRIMARY KEY, another key of one column, a key of several.
        key = self.pick(
            ["integer", "one", "several"] if without_rowid else ["none", "integer", "integer", "one", "several"]
        )
        if key == "integer":
            types[0] = "INTEGER"
        parts = [self._column(*column, strict=strict) for column in zip(names, types, strict=True)]
        autoincrement = " AUTOINCREMENT" if not without_rowid and self.maybe(0.1) else ""
        if key == "integer":
            parts[0] = f"{quoted(names[0])} INTEGER PRIMARY KEY{autoincrement}{self._on_conflict()}"
        elif key == "one":
            parts[0] = f"{quoted(names[0])} {types[0]} PRIMARY KEY{self.pick(['', ' DESC', ' ON CONFLICT REPLACE'])}"
        elif key == "several":
            columns = ", ".join(quoted(column) for column in self.chance.sample(names[:3], 2))
            parts.append(f"PRIMARY KEY ({columns}){self._on_conflict()}")
        if self.maybe(0.15):
            expression = self.pick(["{0} || 'g'", "fn({0})", "typeof({0})", "{0} + 1"]).format(quoted(names[0]))
            declared = self.pick(["ANY" if strict else "", "TEXT"]) if strict else self.pick(["", "TEXT", "REAL"])
            place = self.chance.randrange(1, len(names) + 1)
            parts.insert(place, f"gen {declared} AS ({expression}) STORED")
        options = ", ".join(["STRICT"] * strict + ["WITHOUT ROWID"] * without_rowid)
        temporary = "TEMP " if schema == "temp" else ""
        prefix = "" if schema == "temp" else f"{schema}."
        return f"CREATE {temporary}TABLE {prefix}{quoted(name)}({', '.join(parts)}) {options}".rstrip()

    def _on_conflict(self) -> str:
        return f" ON CONFLICT {self.pick(CONFLICTS)}" if self.maybe(0.15) else ""

    def _column(self, name: str, declared: str, *, strict: bool) -> str:
        parts = [quoted(name), declared]
        if self.maybe(0.15):
            parts.append(f"UNIQUE{self._on_conflict()}")
        if self.maybe(0.1):
            default = self.literal(declared, strict=strict)
            parts.append(
                f"NOT NULL{self._on_conflict()} DEFAULT ({'0' if default == 'NULL' and not strict else default})"
            )
        elif self.maybe(0.1):
            parts.append(f"DEFAULT (fn({self.literal(declared, strict=strict)}))")
        if self.maybe(0.1):
            parts.append(self.pick(["CHECK (fn({0}) IS NOT 7)", "CHECK ({0} IS NOT 11)"]).format(quoted(name)))
        if self.maybe(0.1):
            parts.append(f"COLLATE {self.pick(['NOCASE', 'RTRIM', 'py'])}")
        if self.maybe(0.12):
            parents = [table for table in self.tables(schema="main") if len(table.key) == 1]
            if parents:
                parts.append(self._references(self.pick(parents)))
        return " ".join(part for part in parts if part)

    def _references(self, parent: Table) -> str:
        clause = f"REFERENCES {quoted(parent.name)}({parent.key[0].sql})"
        if self.maybe(0.7):
            clause += f" ON DELETE {self.pick(ACTIONS)}"
        if self.maybe(0.5):
            clause += f" ON UPDATE {self.pick(ACTIONS)}"
        return clause + (" DEFERRABLE INITIALLY DEFERRED" if self.maybe(0.5) else "")

    def create_trigger(self, target: Table) -> str:
        """On a table, or instead of a write to a view."""
        event = self.pick(["INSERT", "UPDATE", "DELETE"])
        when = "INSTEAD OF" if target.kind == "view" else self.pick(["BEFORE", "AFTER", "AFTER"])
        image = "old" if event == "DELETE" else "new"
        value = f"{image}.{self.pick(target.columns).sql}"
        condition = f" WHEN {value} > {self.literal()}" if self.maybe(0.4) else ""
        body = "; ".join(self._trigger_statement(value) for _ in range(self.chance.randrange(1, 3)))
        name = self.new_name("trigger_")
        prefix = "TEMP TRIGGER " if target.schema == "temp" else f"TRIGGER {target.schema}."
        head = f"CREATE {prefix}{name} {when} {event} ON {quoted(target.name)}"
        return f"{head} FOR EACH ROW{condition} BEGIN {body}; END"

    def _trigger_statement(self, value: str) -> str:
        others = [table for table in self.tables(schema="main") if table.writable]
        kind = self.pick(["insert", "insert", "update", "delete", "raise", "fn"])
        if kind == "raise" or not others:
            action = self.pick([*CONFLICTS[:3], "ROLLBACK"])
            message = "IGNORE" if action == "IGNORE" else f"{action}, 'raised'"
            return f"SELECT RAISE({message}) WHERE {value} = {self.literal()}"
        if kind == "fn":
            return f"SELECT fn({value})"
        other = self.pick(others)
        column = self.pick(other.writable)
        # A few rows at most: triggers set each other off.
        rows = f"{other.rowid} IN (SELECT {other.rowid} FROM {quoted(other.name)} LIMIT 2)" if other.rowid else None
        rows = rows or f"{other.key[0].sql} = {value}"
        if kind == "update":
            value = self.pick([value, f"fn({value})"])
            return f"UPDATE {self._or()}{quoted(other.name)} SET {column.sql} = {value} WHERE {rows}"
        if kind == "delete":
            return f"DELETE FROM {quoted(other.name)} WHERE {rows} AND {column.sql} = {value}"
        columns = ", ".join(each.sql for each in other.writable)
        values = ", ".join(self.pick([value, self.literal(each.type)]) for each in other.writable)
        return f"INSERT {self._or()}INTO {quoted(other.name)}({columns}) VALUES ({values})"

    def _or(self) -> str:
        return f"OR {self.pick(CONFLICTS)} " if self.maybe(0.4) else ""

    # Any change of the schema.

    def change(self) -> str:
        """A statement that may change the schema of ``main``, ``temp`` or an attached database; it may fail, too."""
        return self.pick(_CHANGES)(self)

    def _new_table(self) -> str:
        if len(self.tables()) >= MOST_TABLES:
            return self._drop_table()
        schema = self.pick(["main"] * 6 + ["temp", "aux"])
        return self.create_table(schema=schema)

    def _drop_table(self) -> str:
        found = self.tables("table", "virtual")
        return f"DROP TABLE {self.pick(found).sql}" if found else self.create_table()

    def _make_again(self) -> str:
        """The same name with other columns, in one string."""
        found = self.tables(schema="main")
        if not found:
            return self.create_table()
        name = self.pick(found).name
        statements = [f"DROP TABLE main.{quoted(name)}", self.create_table(name)]
        return "; ".join(["BEGIN", *statements, "COMMIT"] if self.maybe(0.4) else statements)

    def _create_as(self) -> str:
        found = self.tables("table", "view")
        if not found or len(found) >= MOST_TABLES:
            return self._drop_table()
        schema = self.pick(["main."] * 5 + ["temp."])
        return f"CREATE TABLE {schema}{self.new_name('copy_')} AS SELECT * FROM {self.pick(found).sql} LIMIT 50"

    def _index(self) -> str:
        found = self.tables()
        names = self.names("index")
        if not found or len(names) >= MOST_INDEXES or (names and self.maybe(0.3)):
            return f"DROP INDEX main.{quoted(self.pick(names))}" if names else self.create_table()
        table = self.pick(found)
        columns = self.chance.sample(table.columns, min(len(table.columns), self.chance.randrange(1, 3)))
        parts = [
            self.pick(["{0}", "{0} DESC", "fn({0})", "{0} COLLATE py", "{0} || 'i'"]).format(c.sql) for c in columns
        ]
        unique = "UNIQUE " if self.maybe(0.25) else ""
        partial = f" WHERE {self.pick(table.columns).sql} IS NOT NULL" if self.maybe(0.2) else ""
        name = self.new_name("index_")
        return f"CREATE {unique}INDEX {table.schema}.{name} ON {quoted(table.name)}({', '.join(parts)}){partial}"

    def _view(self) -> str:
        views = self.tables("view", schema="main")
        found = self.tables(schema="main")
        if not found or len(views) > 2:
            return f"DROP VIEW {self.pick(views).sql}" if views else self.create_table()
        table = self.pick(found)
        columns = ", ".join(column.sql for column in table.columns)
        return f"CREATE VIEW main.{self.new_name('view_')} AS SELECT {columns} FROM {quoted(table.name)}"

    def _trigger(self) -> str:
        triggers = self.names("trigger")
        found = self.tables("table", "view", schema=self.pick(["main"] * 9 + ["temp"]))
        if not found or len(triggers) >= MOST_TRIGGERS or (triggers and self.maybe(0.3)):
            return f"DROP TRIGGER main.{self.pick(triggers)}" if triggers else self.create_table()
        return self.create_trigger(self.pick(found))

    def _rename_table(self) -> str:
        found = self.tables()
        if not found:
            return self.create_table()
        return f"ALTER TABLE {self.pick(found).sql} RENAME TO {quoted(self.pick([*TABLES, self.new_name('t_')]))}"

    def _rename_column(self) -> str:
        # Not where a temporary table has the same name: SQLite searches the columns of the other one's indexes there,
        # and what an index then takes for text is not in it. That needs no capture.
        everywhere = self.tables()
        hidden = {table.name.lower() for table in everywhere if table.schema == "temp"}
        found = [table for table in everywhere if table.schema != "main" or table.name.lower() not in hidden]
        if not found:
            return self.create_table()
        table = self.pick(found)
        return f"ALTER TABLE {table.sql} RENAME {self.pick(table.columns).sql} TO {self._column_name()}"

    def add_column(self) -> str:
        found = self.tables()
        if not found:
            return self.create_table()
        table = self.pick(found)
        declared = self.pick(STRICT_TYPES if table.strict else TYPES)
        default = ""
        if self.maybe(0.8):
            value = self.literal(declared, strict=table.strict)
            if value[0] in "XN'-" or value[0].isdigit():
                default = f" DEFAULT {value}" if "||" not in value else ""
        if default and "NULL" not in default and self.maybe(0.3):
            default += " NOT NULL"
        elif not default and self.maybe(0.2):
            parents = [each for each in self.tables(schema="main") if len(each.key) == 1]
            default = f" {self._references(self.pick(parents))}" if parents else ""
        return f"ALTER TABLE {table.sql} ADD COLUMN {self._column_name()} {declared}{default}"

    def _column_name(self) -> str:
        return quoted(self.pick([*COLUMNS, self.new_name("c_")]))

    def _drop_column(self) -> str:
        found = [table for table in self.tables() if len(table.columns) > 2]
        if not found:
            return self.add_column()
        table = self.pick(found)
        return f"ALTER TABLE {table.sql} DROP COLUMN {self.pick(table.columns).sql}"

    def _words(self) -> str:
        """A full-text index, another virtual table beside the capture's."""
        if not self._virtual:
            return self.create_table()
        if self.tables("virtual"):
            return "DROP TABLE words"
        return "CREATE VIRTUAL TABLE main.words USING fts5(word)"

    def _attach(self) -> str:
        attached = [str(name) for _, name, _ in self.query("PRAGMA database_list")]
        if "aux" in attached:
            # With a capture an attached database is read in each transaction, so it cannot be detached in one.
            return self.create_table(schema="aux") if self._in_transaction() else "DETACH aux"
        return self.pick(["ATTACH ':memory:' AS aux", "ATTACH '{folder}/aux.db' AS aux"])

    def _maintain(self) -> str:
        names = self.names("index")
        return self.pick(
            ["VACUUM", "ANALYZE", "REINDEX", f"PRAGMA user_version = {self.chance.randrange(100)}"]
            + [f"REINDEX main.{quoted(name)}" for name in names[:1]]
        )

    def _setting(self) -> str:
        return self.pick(
            [
                f"PRAGMA temp_store = {self.chance.randrange(3)}",
                f"PRAGMA cache_size = {self.pick([1, 5, 100, -2000])}",
                f"PRAGMA foreign_keys = {self.pick(['ON', 'OFF'])}",
                f"PRAGMA recursive_triggers = {self.pick(['ON', 'OFF'])}",
                "PRAGMA defer_foreign_keys = ON",
                "PRAGMA main.incremental_vacuum",
                "PRAGMA wal_checkpoint(TRUNCATE)",
                "PRAGMA shrink_memory",
            ]
        )


# pyright: reportPrivateUsage=false
_CHANGES: Final[list[Callable[[Schemas], str]]] = [
    *[Schemas._new_table] * 3,
    Schemas._drop_table,
    *[Schemas._make_again] * 2,
    *[Schemas._create_as] * 2,
    *[Schemas._index] * 3,
    *[Schemas._view] * 2,
    *[Schemas._trigger] * 3,
    Schemas._rename_table,
    *[Schemas._rename_column] * 2,
    *[Schemas.add_column] * 3,
    *[Schemas._drop_column] * 2,
    Schemas._words,
    Schemas._attach,
    *[Schemas._maintain] * 3,
    *[Schemas._setting] * 2,
]
