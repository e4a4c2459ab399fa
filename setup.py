"""Builds the compiled modules, every .pyx of the package, and puts their hand-written stubs beside them."""

import os
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

PACKAGE = Path("nodedb_ring")
COMPILED = sorted(PACKAGE.rglob("*.pyx"))
# Every module shares the structs of these: one that is older would read another layout.
SHARED = sorted(str(path) for pattern in ("*.pxd", "*.h") for path in PACKAGE.rglob(pattern))
HEADER_FOLDERS = sorted({str(path.parent) for path in PACKAGE.rglob("*.h")})


class BuildWithStubs(build_ext):
    """Type checkers look for a module's stub beside the module."""

    def run(self) -> None:
        """Builds, then puts copies of the stubs into a wheel, or links to them into the source tree."""
        super().run()
        for source in COMPILED:
            beside = source.with_suffix(".pyi")
            stub = Path("typings", beside)
            if self.inplace:
                beside.unlink(missing_ok=True)
                beside.symlink_to(os.path.relpath(stub, beside.parent))
            else:
                self.copy_file(str(stub), str(Path(self.build_lib, beside)))


setup(
    cmdclass={"build_ext": BuildWithStubs},
    ext_modules=[
        Extension(
            ".".join(source.with_suffix("").parts),
            [str(source)],
            depends=SHARED,
            include_dirs=HEADER_FOLDERS,
            # gcc makes short memsets `rep stos`, which takes longer to start than libc's takes in all.
            extra_compile_args=["-O3", "-std=gnu11", "-fno-builtin-memset"],
        )
        for source in COMPILED
    ],
)
