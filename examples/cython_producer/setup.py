"""Builds ``sensor``: what a package that cimports nodedb_ring needs, and no more."""

from Cython.Build import cythonize
from setuptools import setup

import nodedb_ring

setup(name="sensor", ext_modules=cythonize("sensor.pyx", include_path=[nodedb_ring.get_include()]))
