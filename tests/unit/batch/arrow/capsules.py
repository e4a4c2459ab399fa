"""The structs of the Arrow interfaces: takes a capsule apart as an importer does, on any thread, without the GIL."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_char_p, c_int, c_int64, c_void_p
from typing import Any, Final

# Functions called through a prototype of ctypes.CFUNCTYPE run without the GIL.
RELEASE: Final = ctypes.CFUNCTYPE(None, c_void_p)
GET: Final = ctypes.CFUNCTYPE(c_int, c_void_p, c_void_p)
GET_ERROR: Final = ctypes.CFUNCTYPE(c_char_p, c_void_p)
# And these with it.
RELEASE_WITH_GIL: Final = ctypes.PYFUNCTYPE(None, c_void_p)


class ArrowSchema(ctypes.Structure):
    """As the interface declares it."""


ArrowSchema._fields_ = [
    ("format", c_char_p),
    ("name", c_char_p),
    ("metadata", c_char_p),
    ("flags", c_int64),
    ("n_children", c_int64),
    ("children", POINTER(POINTER(ArrowSchema))),
    ("dictionary", POINTER(ArrowSchema)),
    ("release", c_void_p),
    ("private_data", c_void_p),
]


class ArrowArray(ctypes.Structure):
    """As the interface declares it."""


ArrowArray._fields_ = [
    ("length", c_int64),
    ("null_count", c_int64),
    ("offset", c_int64),
    ("n_buffers", c_int64),
    ("n_children", c_int64),
    ("buffers", POINTER(c_void_p)),
    ("children", POINTER(POINTER(ArrowArray))),
    ("dictionary", POINTER(ArrowArray)),
    ("release", c_void_p),
    ("private_data", c_void_p),
]


class ArrowArrayStream(ctypes.Structure):
    """As the interface declares it."""


ArrowArrayStream._fields_ = [
    ("get_schema", c_void_p),
    ("get_next", c_void_p),
    ("get_last_error", c_void_p),
    ("release", c_void_p),
    ("private_data", c_void_p),
]


_get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_get_pointer.restype = c_void_p
_get_pointer.argtypes = [ctypes.py_object, c_char_p]
_new = ctypes.pythonapi.PyCapsule_New
_new.restype = ctypes.py_object
_new.argtypes = [c_void_p, c_char_p, c_void_p]


def _struct_in(capsule: object, kind: type[Any], name: bytes) -> Any:
    struct = kind.from_address(_get_pointer(capsule, name))
    # Its memory is the capsule's.
    struct.capsule = capsule
    return struct


def schema_in(capsule: object) -> ArrowSchema:
    struct: ArrowSchema = _struct_in(capsule, ArrowSchema, b"arrow_schema")
    return struct


def array_in(capsule: object) -> ArrowArray:
    struct: ArrowArray = _struct_in(capsule, ArrowArray, b"arrow_array")
    return struct


def stream_in(capsule: object) -> ArrowArrayStream:
    struct: ArrowArrayStream = _struct_in(capsule, ArrowArrayStream, b"arrow_array_stream")
    return struct


def capsule_of(struct: ctypes.Structure, name: bytes) -> Any:
    """A capsule of a struct that somebody else keeps; it is not released. `name` must stay as long."""
    return _new(ctypes.addressof(struct), name, None)


def moved(struct: Any) -> Any:
    """Takes a struct over, as the interface says: a copy of it, and the original marked as released."""
    taken = type(struct).from_buffer_copy(struct)
    struct.release = None
    return taken


def release(struct: Any, *, with_gil: bool = False) -> None:
    (RELEASE_WITH_GIL if with_gil else RELEASE)(struct.release)(ctypes.addressof(struct))
    assert struct.release is None


def next_of(stream: ArrowArrayStream, array: ArrowArray) -> int:
    code: int = GET(stream.get_next or 0)(ctypes.addressof(stream), ctypes.addressof(array))
    return code


def schema_of(stream: ArrowArrayStream, schema: ArrowSchema) -> int:
    code: int = GET(stream.get_schema or 0)(ctypes.addressof(stream), ctypes.addressof(schema))
    return code


def error_of(stream: ArrowArrayStream) -> str | None:
    said: bytes | None = GET_ERROR(stream.get_last_error or 0)(ctypes.addressof(stream))
    return None if said is None else said.decode()
