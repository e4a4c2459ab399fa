"""What a user gets: stubs beside the modules, sources in the sdist, and a plain answer where nothing was built."""

import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path
from typing import Any

import pytest
from setuptools import find_packages

import nodedb_ring
from tests.absent_libraries import WITHOUT_WHEELS

PACKAGE = Path(nodedb_ring.__file__).parent
SOURCE = Path(__file__).parents[2]


def test_every_compiled_module_has_its_stub_and_its_pxd_beside_it() -> None:
    compiled = {path.with_name(path.name.partition(".")[0]) for path in PACKAGE.rglob("*.so")}
    stubs = {path.with_suffix("") for path in PACKAGE.rglob("*.pyi") if path.is_file()}
    assert {path.name for path in compiled} >= {"_ring", "_event", "_row_block", "_producer", "_consumer"}
    assert stubs == compiled
    shared = {path.stem for path in PACKAGE.rglob("*.pxd")}
    assert shared >= {"atomic", "_ring", "_event", "_producer", "_consumer"}
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
    for source in (SOURCE / "nodedb_ring").rglob("*.py"):
        copy = tmp_path / source.relative_to(SOURCE)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, copy)
    return tmp_path


def test_a_source_tree_that_is_not_built_says_how_to_build_it(unbuilt: Path) -> None:
    complaint = import_in(unbuilt)
    assert complaint.startswith("ImportError: nodedb_ring.")
    assert "is not built" in complaint
    assert "pip install -e ." in complaint
    assert "C compiler" in complaint


def test_another_missing_module_is_not_blamed_on_the_build(unbuilt: Path) -> None:
    for name in ("ends/_consumer", "ends/_producer", "_ring", "batch/_event", "batch/_schema"):
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
    for pattern in (
        "nodedb_ring/**/*.p*[dxy]",
        "nodedb_ring/**/*.h",
        "typings/**/*.pyi",
        "docs/*.md",
        "tests/**/*.p*",
        "benchmarks/*.*",
    ):
        found = {str(path.relative_to(tree)) for path in tree.glob(pattern)}
        assert found, pattern
        wanted |= found
    wanted |= {"nodedb_ring/_ring.pyx", "nodedb_ring/_ring.pxd", "tests/cimport_client/client.pyx"}
    assert wanted - packed == set()
    assert [name for name in packed if name.endswith((".so", ".pyc"))] == []
    assert [name for name in packed if name.endswith(".pyi") and not name.startswith("typings/")] == []
    assert [name for name in packed if name.endswith(".c") and not name.startswith("benchmarks/")] == []


def project() -> dict[str, Any]:
    return tomllib.loads((SOURCE / "pyproject.toml").read_text())


def test_the_version_is_in_one_place() -> None:
    settings = project()
    assert "version" not in settings["project"]
    assert settings["project"]["dynamic"] == ["version"]
    assert settings["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "nodedb_ring.__version__"}
    assert re.fullmatch(r"\d+\.\d+\.\d+", nodedb_ring.__version__)


def headings() -> list[str]:
    return re.findall(r"^## (.*)$", (SOURCE / "CHANGELOG.md").read_text(), re.MULTILINE)


def test_the_changelog_begins_with_this_version_or_unreleased() -> None:
    released = [heading for heading in headings() if heading != "Unreleased"]
    assert headings() in (released, ["Unreleased", *released])
    assert released[0] == nodedb_ring.__version__
    numbers = [tuple(map(int, heading.split("."))) for heading in released]
    assert numbers == sorted(set(numbers), reverse=True)


def check_version(tree: Path, tag: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(tree / ".ci" / "version"), tag], capture_output=True, text=True, check=False
    )


def test_a_release_is_refused_unless_tag_package_and_changelog_agree(tmp_path: Path) -> None:
    for name in (".ci/version", "nodedb_ring/__init__.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(SOURCE / name, tmp_path / name)
    version = nodedb_ring.__version__
    log = tmp_path / "CHANGELOG.md"
    log.write_text(f"# Changelog\n\n## {version}\n\n- All of it.\n\n## 0.0.1\n")
    agreed = check_version(tmp_path, f"v{version}")
    assert (agreed.returncode, agreed.stdout) == (0, f"version {version}\n")
    for tag in (version, "v99.0.0"):
        refused = check_version(tmp_path, tag)
        assert refused.returncode == 1
        assert refused.stderr.startswith(f"the tag is {tag}, the package's version {version}, ")
    log.write_text(f"# Changelog\n\n## Unreleased\n\n## {version}\n")
    assert check_version(tmp_path, f"v{version}").returncode == 1


def test_every_package_is_installed() -> None:
    with_modules = {path.parent for kind in ("*.py", "*.pyx") for path in (SOURCE / "nodedb_ring").rglob(kind)}
    wanted = {".".join(folder.relative_to(SOURCE).parts) for folder in with_modules}
    assert set(find_packages(str(SOURCE), **project()["tool"]["setuptools"]["packages"]["find"])) == wanted


def test_wheels_are_tried_by_a_script_that_there_is() -> None:
    settings = project()["tool"]["cibuildwheel"]
    [script] = re.findall(r"\{project\}/(\S+)", settings["test-command"])
    assert (SOURCE / script).is_file()
    assert set(settings["skip"]) == {"cp313t-*", "*-musllinux_*"}


def requirements_of(*extras: str) -> set[str]:
    """What extras of this package install, those that they name included; without versions."""
    found: set[str] = set()
    for extra in extras:
        for requirement in project()["project"]["optional-dependencies"][extra]:
            name, others = re.findall(r"^([\w-]+)(?:\[([\w,-]+)\])?", requirement)[0]
            found |= requirements_of(*others.split(",")) if name == "nodedb_ring" else {name}
    return found


def test_without_the_gil_the_tests_miss_only_libraries_that_have_no_wheels_there() -> None:
    assert requirements_of("test") - requirements_of("free-threads") == set(WITHOUT_WHEELS)
    assert requirements_of("free-threads") <= requirements_of("test")


def test_workflows_run_files_that_there_are() -> None:
    workflows = sorted((SOURCE / ".github" / "workflows").glob("*.yml"))
    assert [path.name for path in workflows] == ["ci.yml", "wheels.yml"]
    named = {name for path in workflows for name in re.findall(r"\.(?:ci|github)/[\w/.-]+", path.read_text())}
    scripts = {".ci/run", ".ci/free-threads", ".ci/wheels", ".ci/version", ".ci/smoke.py"}
    assert named >= scripts | {".github/workflows/ci.yml"}
    assert [name for name in sorted(named) if not (SOURCE / name).is_file()] == []
