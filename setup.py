"""Builds the compiled modules, every .pyx of the package, and puts their hand-written stubs beside them.

All processors take part: Cython translates in as many processes, and as many compilers run, unless ``--parallel`` says
otherwise. ``CFLAGS`` has the last word, so ``CFLAGS=-g pip install .`` gives modules with debug information.
"""

import os
import shlex
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

PACKAGE = Path("nodedb_ring")
COMPILED = sorted(PACKAGE.rglob("*.pyx"))
# A change of a struct in one of these changes every module that includes it, which Cython does not know of.
HEADERS = sorted(str(path) for path in PACKAGE.rglob("*.h"))
HEADER_FOLDERS = sorted({os.path.dirname(header) for header in HEADERS})
# Python's own flags say -g, and seven eighths of a module would be debug information. A module that is faster with -O3,
# or that no event passes through and that compiles faster with -O1, says so: `# distutils: extra_compile_args = -O3`.
FLAGS = [
    "-g0",
    "-O2",
    "-std=gnu11",
    # Python's flags have this one, too, but setuptools drops those where CFLAGS is set.
    "-fwrapv",
    # gcc makes short memsets `rep stos`, which takes longer to start than libc's takes in all.
    "-fno-builtin-memset",
]
WANTED = shlex.split(os.environ.get("CFLAGS", ""))
LINK = [
    # A page less in each module: code and constants share one.
    "-Wl,-z,noseparate-code",
    *([] if any(flag.startswith("-g") for flag in WANTED) else ["-s"]),
]


class BuildInParallel(build_ext):
    """Translates and compiles on all processors, then puts the stubs where type checkers search: beside the modules."""

    def finalize_options(self) -> None:
        """One compiler a processor, unless the caller chose a number."""
        super().finalize_options()
        self.parallel = self.parallel or len(os.sched_getaffinity(0))

    def build_extensions(self) -> None:
        """Translates first: setuptools would do that in threads, of which only one at a time can run."""
        translated = {extension.name: extension for extension in cythonize(self.extensions, nthreads=self.parallel)}
        for extension in self.extensions:
            extension.sources = translated[extension.name].sources
            extension.extra_compile_args = [*FLAGS, *translated[extension.name].extra_compile_args, *WANTED]
        # The largest first: the processors then end together.
        self.extensions.sort(key=lambda extension: -os.path.getsize(extension.sources[0]))
        super().build_extensions()

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


if __name__ == "__main__":
    setup(
        cmdclass={"build_ext": BuildInParallel},
        ext_modules=[
            Extension(
                ".".join(source.with_suffix("").parts),
                [str(source)],
                include_dirs=HEADER_FOLDERS,
                depends=HEADERS,
                extra_link_args=LINK,
            )
            for source in COMPILED
        ],
    )
