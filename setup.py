"""Builds the compiled modules, and puts their hand-written stubs beside them."""

from glob import glob
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

COMPILED = [
    "_ring",
    "_event",
    "_batch",
    "_producer",
    "_consumer",
    "_row_writer",
    "_capture",
    "_arrow_schema",
    "_arrow",
    "_arrow_import",
    "_native",
]
STUBS = Path("typings", "nodedb_ring")


class BuildWithStubs(build_ext):
    """Type checkers look for a module's stub beside the module."""

    def run(self) -> None:
        """Builds, then puts copies of the stubs into a wheel, or links to them into the source tree."""
        super().run()
        for name in COMPILED:
            stub = STUBS / f"{name}.pyi"
            if self.inplace:
                link = Path("nodedb_ring", stub.name)
                link.unlink(missing_ok=True)
                link.symlink_to(Path("..", stub))
            else:
                self.copy_file(str(stub), str(Path(self.build_lib, "nodedb_ring", stub.name)))


setup(
    cmdclass={"build_ext": BuildWithStubs},
    ext_modules=[
        Extension(
            f"nodedb_ring.{name}",
            [f"nodedb_ring/{name}.pyx"],
            # Every module shares the structs of the .pxd files: one that is older would read another layout.
            depends=sorted(glob("nodedb_ring/*.pxd") + glob("nodedb_ring/*.h")),
            # gcc makes short memsets `rep stos`, which takes longer to start than libc's takes in all.
            extra_compile_args=["-O3", "-std=gnu11", "-fno-builtin-memset"],
        )
        for name in COMPILED
    ],
)
