"""How a package that cimports ``nodedb_ring`` is built."""

from Cython.Build import cythonize
from setuptools import setup

import nodedb_ring

setup(name="client", ext_modules=cythonize("client.pyx", include_path=[nodedb_ring.get_include()]))
