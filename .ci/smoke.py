"""What an installed package must do, run outside the source tree."""

import importlib
import importlib.resources
import pathlib
import subprocess
import sys
import sysconfig
import tempfile

import nodedb_ring
from nodedb_ring import EventBatch, WriteEvent, WriteOp, create_event_bus, follow, logged
from nodedb_ring.log.sqlite import SqliteEventLog

package = pathlib.Path(nodedb_ring.__file__).parent
assert "site-packages" in str(package), package
for name in ("py.typed", "_ring.pxd", "_ring.pyi"):
    assert importlib.resources.files(nodedb_ring).joinpath(name).is_file(), f"{name} is not in the package"
for module in package.rglob("*.so"):
    stub = module.with_name(f"{module.name.partition('.')[0]}.pyi")
    assert stub.is_file(), f"{stub} is not in the package"
assert not list(package.rglob("*.c")), "generated C is in the package"

# Everything is there but what needs an extra, and nothing of it switches the GIL on where there may be none.
EXTRAS = {"apsw", "matplotlib", "msgpack", "nats", "prometheus_client", "psycopg2", "rich"}


def import_module(name):
    """Imports it, unless it needs an extra, which its error or that error's cause names."""
    try:
        importlib.import_module(name)
    except ImportError as error:
        if not EXTRAS & {getattr(each, "name", None) for each in (error, error.__cause__)}:
            raise


for path in sorted(path for kind in ("*.py", "*.so") for path in package.rglob(kind)):
    module = path.relative_to(package.parent).with_name(path.name.partition(".")[0])
    if module.name != "__main__":
        import_module(".".join(module.parts).removesuffix(".__init__"))
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        assert not sys._is_gil_enabled(), f"{module} switches the GIL on"

producers, consumers = create_event_bus(2, capacity=100)
events = [
    WriteEvent(sequence=n, collection="flights", op=WriteOp.INSERT, row_id=str(n), lsn=n, new_value=b"v" * n)
    for n in range(1, 101)
]
assert producers[0].capacity == 128
assert all(producers[0].emit(event) for event in events[:50])
assert producers[0].emit_batch(EventBatch.from_events(events[50:])) == 50
assert consumers[1].try_recv() is None
batch = consumers[0].drain()
assert list(batch) == events
assert batch.sequence.tolist() == list(range(1, 101))

with tempfile.TemporaryDirectory() as folder, SqliteEventLog(pathlib.Path(folder, "log")) as log:
    (producer,), (consumer,) = create_event_bus(1, capacity=8)
    with logged(producer, log) as core:
        assert core.emit_batch(EventBatch.from_events(events)) == 8
    with follow(consumer, log, group="smoke") as follower:
        assert [number for batch in follower for number in batch.sequence.tolist()] == list(range(1, 101))
# Between two processes, every answer checked.
subprocess.run([sys.executable, "-m", "nodedb_ring", "bench", "--quick", "--seconds=0.5"], check=True)
print(f"nodedb_ring {nodedb_ring.__version__} works on Python {sys.version.split()[0]}")
