"""What a user gets: stubs beside the modules, sources in the sdist, and a plain answer where nothing was built."""

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

import nodedb_ring

PACKAGE = Path(nodedb_ring.__file__).parent
SOURCE = Path(__file__).parents[2]


def test_every_compiled_module_has_its_stub_and_its_pxd_beside_it() -> None:
    compiled = {path.name.partition(".")[0] for path in PACKAGE.glob("*.so")}
    stubs = {path.stem for path in PACKAGE.glob("*.pyi") if path.is_file()}
    assert compiled >= {"_ring", "_event", "_batch", "_producer", "_consumer"}
    assert stubs == compiled
    assert {path.stem for path in PACKAGE.glob("*.pxd")} >= {"_atomic", "_ring", "_event", "_producer", "_consumer"}
    assert (PACKAGE / "py.typed").is_file()


def import_in(directory: Path) -> str:
    imported = subprocess.run(
        [sys.executable, "-c", "import nodedb_ring"], cwd=directory, capture_output=True, text=True, check=False
    )
    assert imported.returncode == 1, imported.stdout
    return imported.stderr.splitlines()[-1]


@pytest.fixture
def unbuilt(tmp_path: Path) -> Path:
    """A source tree in which nothing was compiled."""
    (tmp_path / "nodedb_ring").mkdir()
    for source in (SOURCE / "nodedb_ring").glob("*.py"):
        shutil.copy(source, tmp_path / "nodedb_ring")
    return tmp_path


def test_a_source_tree_that_is_not_built_says_how_to_build_it(unbuilt: Path) -> None:
    complaint = import_in(unbuilt)
    assert complaint.startswith("ImportError: nodedb_ring._")
    assert "is not built" in complaint
    assert "pip install -e ." in complaint
    assert "C compiler" in complaint


def test_another_missing_module_is_not_blamed_on_the_build(unbuilt: Path) -> None:
    for name in ("_consumer", "_producer", "_ring", "_event", "_batch"):
        (unbuilt / "nodedb_ring" / f"{name}.py").write_text("import a_module_that_nobody_has\n")
    assert import_in(unbuilt) == "ModuleNotFoundError: No module named 'a_module_that_nobody_has'"


def test_the_sdist_has_what_it_takes_to_build_and_test(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    unwanted = shutil.ignore_patterns(
        ".git", "build", "dist", "*.so", "*.egg-info", "__pycache__", ".*_cache", ".hypothesis"
    )
    shutil.copytree(SOURCE, tree, ignore=unwanted, symlinks=True)
    # What a build leaves behind must not travel.
    (tree / "nodedb_ring" / "_ring.pyi").unlink(missing_ok=True)
    (tree / "nodedb_ring" / "_ring.pyi").symlink_to("../typings/nodedb_ring/_ring.pyi")
    for left in ("nodedb_ring/_ring.c", "nodedb_ring/_ring.so", "tests/cimport_client/client.c"):
        (tree / left).write_text("")
    built = subprocess.run(
        [sys.executable, "-c", "import setuptools.build_meta as backend; print(backend.build_sdist('dist'))"],
        cwd=tree,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    with tarfile.open(tree / "dist" / built.stdout.splitlines()[-1]) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {"setup.py", "pyproject.toml", "README.md", "LICENSE", "nodedb_ring/py.typed"}
    for pattern in ("nodedb_ring/**/*.p*[dxy]", "typings/**/*.pyi", "docs/*.md", "tests/**/*.p*", "benchmarks/*.*"):
        found = {str(path.relative_to(tree)) for path in tree.glob(pattern)}
        assert found, pattern
        wanted |= found
    wanted |= {"nodedb_ring/_ring.pyx", "nodedb_ring/_ring.pxd", "tests/cimport_client/client.pyx"}
    assert wanted - packed == set()
    assert [name for name in packed if name.endswith((".so", ".pyc"))] == []
    assert [name for name in packed if name.endswith(".pyi") and not name.startswith("typings/")] == []
    assert [name for name in packed if name.endswith(".c") and not name.startswith("benchmarks/")] == []
