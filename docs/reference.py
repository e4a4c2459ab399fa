"""The reference shows compiled classes with the types of their stubs, and links names that docstrings quote.

A compiled method has a docstring and no annotations; the stub beside its module has annotations and no docstrings.
Sphinx (8.2 and newer) reads a stub instead of a compiled module, and only of one that it is the first to import; so the
two are joined here: each class of a stub gets the docstrings of the compiled class and is shown in its place.
"""

import __future__

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, Generic, TypeVar

import numpy.typing
from sphinx.application import Sphinx
from sphinx.ext.napoleon import Config
from sphinx.ext.napoleon.docstring import NumpyDocstring
from sphinx.pycode import ModuleAnalyzer

_Scalar = TypeVar("_Scalar")


class NDArray(Generic[_Scalar]):
    """Stands for NumPy's alias, whose name would be lost to ``ndarray[tuple[Any, ...], dtype[uint64]]``."""


NDArray.__module__ = "numpy.typing"
vars(numpy.typing)["NDArray"] = NDArray

import nodedb_ring  # noqa: E402 - its modules take NDArray from there
from nodedb_ring.batch import members as _members  # noqa: E402

# For a reader a column is an array; only type checkers need to know more of it.
vars(_members)["MemberArray"] = NDArray[numpy.uint8]

NUMPYDOC: Any = Config(
    napoleon_google_docstring=False,
    napoleon_custom_sections=[("Attributes", "params_style"), "Thread safety", "What an acknowledgement promises"],
)
MADE_FOR_YOU = frozenset(
    (
        *("EventBus", "EventProducer", "Reservation", "EventConsumer", "Lease", "EventRing", "Follower", "Merger"),
        *("CommitMerger", "capture.Snapshot"),
        *("LoggedProducer", "WriteOp", "EventSource", "PressureState"),
        *("ProducerStats", "ConsumerStats", "RingStats", "FollowStats"),
    )
)
"""Classes whose instances a function or method hands out: their constructors are nobody's business."""


def stub_of(compiled: ModuleType) -> ModuleType:
    """The stub of a compiled module, run as a module that has the compiled one's name."""
    path = Path(str(compiled.__file__)).with_name(f"{compiled.__name__.rpartition('.')[2]}.pyi")
    stub = ModuleType(compiled.__name__)
    stub.__package__ = compiled.__package__
    # Annotations stay strings: in a stub they may name what comes later.
    code = compile(path.read_text(), path, "exec", flags=__future__.annotations.compiler_flag, dont_inherit=True)
    exec(code, stub.__dict__)  # noqa: S102 - our own stubs
    ModuleAnalyzer.cache["module", compiled.__name__] = ModuleAnalyzer.for_file(str(path), compiled.__name__)
    return stub


def give_docstrings(stub: type, compiled: type) -> None:
    """Gives a class of a stub, and its members, the docstrings of the compiled class."""
    stub.__doc__ = compiled.__doc__
    for name, member in vars(stub).items():
        if isinstance(member, FunctionType | property):
            member.__doc__ = getattr(getattr(compiled, name), "__doc__", None)


def public_paths() -> Iterator[str]:
    """Names that a docstring may quote: ``EventBus``, ``EventBus.create``."""
    for name in nodedb_ring.__all__:
        yield name
        public = getattr(nodedb_ring, name)
        if isinstance(public, type):
            # A member without a docstring has no place of its own.
            members = (member for member in dir(public) if not member.startswith("_"))
            yield from (f"{name}.{member}" for member in members if getattr(public, member).__doc__)


def lay_out(  # noqa: PLR0917 - autodoc's event
    app: Sphinx, what: str, name: str, obj: object, options: Any, lines: list[str]
) -> None:
    """Turns the sections of a docstring into fields, and names that it quotes into links.

    Napoleon's own hook would take the docstring of a property for "type: description". Types in a docstring are words
    ("int, at least 1"); what links to a type is the signature.
    """
    kind: Any = "method" if what in ("attribute", "data", "property") else what
    parsed = NumpyDocstring(list(_apart(lines)), NUMPYDOC, app, kind, name, obj, options).lines()
    lines[:] = [_laid_out(line, name) for line in parsed]


def _apart(lines: list[str]) -> Iterator[str]:
    """The lines with a second blank one before each paragraph: so Napoleon knows that it ends a list of parameters."""
    for before, line, after in zip(["", *lines], lines, [*lines[1:], ""], strict=False):
        if line and not (before or line[0].isspace() or after.startswith("---")):
            yield ""
        yield line


def _laid_out(line: str, inside: str) -> str:
    if field := _TYPE.match(line):
        return f"{field[1]}*{field[2].replace('``', '')}*"
    return _QUOTED.sub(lambda quoted: _link(quoted, inside), line)


def _link(quoted: re.Match[str], inside: str) -> str:
    # A method's name alone is that of the class whose docstring it is.
    for path in (quoted[1], f"{inside.split('.')[1]}.{quoted[1]}"):
        if path in _PATHS and f"nodedb_ring.{path}" != inside:
            return f":py:obj:`{quoted[1]}{quoted[2] or ''} <nodedb_ring.{path}>`"
    return quoted[0]


def hide_constructor(_: Sphinx, what: str, name: str, *arguments: Any) -> tuple[str, None] | None:
    """Hides the signature of classes that users do not create, so that nobody tries to call them."""
    is_ours = name.removeprefix("nodedb_ring.") in MADE_FOR_YOU
    _obj, _options, signature, _returns = arguments
    return ("", None) if signature and (what == "exception" or (what == "class" and is_ours)) else None


def setup(app: Sphinx) -> dict[str, bool]:
    """Connects to autodoc."""
    app.connect("autodoc-process-docstring", lay_out)
    app.connect("autodoc-process-signature", hide_constructor)
    return {"parallel_read_safe": True}


_classes = [thing for name in nodedb_ring.__all__ if isinstance(thing := getattr(nodedb_ring, name), type)]
for _compiled in {sys.modules[thing.__module__] for thing in _classes}:
    if str(_compiled.__file__).endswith(".py"):
        continue
    _stub = stub_of(_compiled)
    for _name in set(nodedb_ring.__all__) & set(_compiled.__all__):
        give_docstrings(getattr(_stub, _name), getattr(_compiled, _name))
        setattr(nodedb_ring, _name, getattr(_stub, _name))

# Names that a module imports for type checkers alone.
for _module in [module for name, module in sys.modules.items() if name.startswith("nodedb_ring.")]:
    for _name in nodedb_ring.__all__:
        vars(_module).setdefault(_name, getattr(nodedb_ring, _name))

# A constant's docstring stands where it is defined, and autodoc searches where it is imported.
_docstrings = ModuleAnalyzer.for_module("nodedb_ring").find_attr_docs()
for _home, _name in (
    ("nodedb_ring.bus.event_bus", "DEFAULT_EVENT_BUS_CAPACITY"),
    ("nodedb_ring.batch.schema", "EVENT_DTYPE"),
):
    _docstrings["", _name] = ModuleAnalyzer.for_module(_home).find_attr_docs()["", _name]

_QUOTED = re.compile(r"(?<!:)``([A-Za-z_.]+)(\(\))?``")
_TYPE = re.compile(r"^(\s*:(?:var)?type [^:]+: )(.+)$")
_PATHS = frozenset(public_paths())
