"""A producer in Cython, compiled against nodedb_ring's .pxd, that emits from a thread without the GIL.

Needs Cython, setuptools and a C compiler. Run: ``python examples/cython_producer/run.py``

``sensor.pyx`` is the producer and ``setup.py`` builds it: copy the two. This script builds in a temporary directory.
"""

import importlib
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np

from nodedb_ring import create_event_bus, get_include

COUNT = 60_000  # no more than the ring has slots: nothing is dropped, however slow the reader


def build(directory: str) -> None:
    """As ``python setup.py build_ext --inplace`` in your own package."""
    for name in ("sensor.pyx", "setup.py"):
        shutil.copy(Path(__file__).with_name(name), directory)
    subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--inplace"],
        cwd=directory,
        env=os.environ | {"PYTHONPATH": get_include()},
        check=True,
    )


def main() -> None:
    """A thread measures, without the GIL, and this one adds up what arrives meanwhile."""
    with tempfile.TemporaryDirectory() as directory:
        build(directory)
        sys.path.insert(0, directory)
        sensor = importlib.import_module("sensor")
    (producer,), (consumer,) = create_event_bus(1)
    measured: list[int] = []

    def measure() -> None:
        with producer:
            measured.append(sensor.measure(producer, COUNT))

    thread = threading.Thread(target=measure)
    thread.start()
    received, total = 0, 0.0
    for batch in consumer:
        # Each value is eight bytes of the payload: gather them, and view them as doubles.
        places = batch.records["new_value_offset"][:, np.newaxis] + np.arange(8, dtype=np.uint32)
        total += batch.payload[places].view(np.float64).sum()
        received += len(batch)
    thread.join()
    assert [received] == measured == [COUNT]
    assert total == (np.arange(1, COUNT + 1) % 1000 / 8).sum()
    print(f"{received} readings, their sum is {total}")


if __name__ == "__main__":
    main()
