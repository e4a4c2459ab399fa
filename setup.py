"""Builds the compiled modules, and puts the hand-written stubs beside them."""

from setuptools import Extension, setup

COMPILED = ["_ring", "_event", "_batch", "_producer", "_consumer"]

setup(
    ext_modules=[
        Extension(f"nodedb_ring.{name}", [f"nodedb_ring/{name}.pyx"], extra_compile_args=["-O3", "-std=gnu11"])
        for name in COMPILED
    ],
)
