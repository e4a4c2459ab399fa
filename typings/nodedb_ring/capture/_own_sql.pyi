import apsw

__all__ = ["fold", "rows"]

def fold(name: str) -> str: ...
def rows(
    connection: apsw.Connection,
    sql: str,
    bindings: tuple[int | float | str | bytes | memoryview | None, ...] = (),
    *,
    can_cache: bool = True,
) -> list[tuple[int | float | str | bytes | None, ...]]: ...
