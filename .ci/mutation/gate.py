"""Breaks the code in one place at a time, in copies of the tree, and looks whether a check fails."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from .mutant import ATTEMPTS, CHECKS, Mutant

ROOT = Path(__file__).resolve().parent.parent.parent
SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")
INCLUDE = sysconfig.get_paths()["include"]
RING = ("_ring", "core/_bulk", "core/_claims", "core/_room", "core/_waiting", "core/_waking")
PLAIN = "-O1 -g0"
TSAN = "-O1 -g -fsanitize=thread -fno-builtin-memcpy -Wno-tsan"
# Derandomized, the model draws the same examples in every run: what it caught once it catches until it, the ring or
# Hypothesis changes. That is chance put off, so no mutant rests on it alone. Nobody reads the least counterexample.
CONFTEST = """
from hypothesis import Phase, settings

settings.register_profile("gate", derandomize=True, phases=[Phase.explicit, Phase.generate])
settings.load_profile("gate")
"""


def run(command: list[str], tree: Path, patience: float | None = None, **more: str) -> subprocess.CompletedProcess[str]:
    """Runs it to its end. What takes longer than its patience, in seconds, is killed with all that it started."""
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=tree, env=os.environ | more, start_new_session=True, **streams) as process:
        try:
            out, err = process.communicate(timeout=patience)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def compile_modules(tree: Path, modules: Iterable[str], flags: str) -> None:
    """Each .pyx to a .so beside it: what setup.py does, for the one module that a mutant changes."""
    for name in modules:
        source = f"nodedb_ring/{name}.pyx"
        done = run([sys.executable, "-m", "cython", "-3", source], tree)
        if done.returncode == 0:
            folders = [f"-I{folder}" for folder in {path.parent for path in tree.rglob("nodedb_ring/**/*.h")}]
            command = ["gcc", "-shared", "-fPIC", "-w", "-fwrapv", "-std=gnu11", *flags.split(), f"-I{INCLUDE}"]
            done = run([*command, *folders, f"nodedb_ring/{name}.c", "-o", f"nodedb_ring/{name}{SUFFIX}"], tree)
        if done.returncode != 0:
            raise SystemExit(f"mutants: {source} does not compile\n{done.stdout}{done.stderr}")


def caught(check: str, tree: Path, patience: float | None = None) -> str:
    """What the check found, or nothing. What keeps it from running is not a finding; that it does not end is one."""
    settings = {"PYTHONDONTWRITEBYTECODE": "1", "STRESS_PATIENCE": "10", "CFLAGS": PLAIN}
    if check == "tsan":
        library = run(["gcc", "-print-file-name=libtsan.so"], tree).stdout.strip()
        options = f"exitcode=66 halt_on_error=1 log_path={tree}/race"
        settings |= {"CFLAGS": TSAN, "LDFLAGS": "-fsanitize=thread", "STRESS_EVENTS": "2000"}
        settings |= {"LD_PRELOAD": str(Path(library).resolve()), "TSAN_OPTIONS": options}
    flags = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:logging", "--tb=line"]
    try:
        done = run([sys.executable, "-m", "pytest", *flags, *CHECKS[check]], tree, patience, **settings)
    except subprocess.TimeoutExpired:
        return "no end"
    if list(tree.glob("race.*")):
        return "data race"
    if done.returncode < 0:
        return f"killed by signal {-done.returncode}"
    if done.returncode == 0:
        return ""
    if not re.search(r"\d+ failed", done.stdout):
        raise SystemExit(f"mutants: the check {check} did not run\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    reason = re.search(r"(no progress|torn while leased|torn|out of order|longer than the arena)", done.stdout)
    return reason[0] if reason else "a test failed"


def sound(check: str, tree: Path) -> tuple[str, float]:
    """What the check finds in the code as it is, and how long it takes, in seconds."""
    started = time.monotonic()
    return caught(check, tree), time.monotonic() - started


def attempt(mutant: Mutant, bases: dict[str, Path], usual: dict[str, float]) -> tuple[str, float]:
    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        tree = Path(stack.enter_context(tempfile.TemporaryDirectory()), "tree")
        shutil.copytree(bases["tsan" if mutant.check == "tsan" else "plain"], tree)
        source = tree / "nodedb_ring" / mutant.file
        text = source.read_text()
        for old, new in mutant.edits:
            if text.count(old) != 1:
                raise SystemExit(f"mutants: {mutant.what}: {mutant.file} has this {text.count(old)} times:\n{old}")
            text = text.replace(old, new)
        source.write_text(text)
        compile_modules(tree, mutant.modules, TSAN if mutant.check == "tsan" else PLAIN)
        found = [
            next(filter(None, (caught(check, tree, 60 + 4 * usual[check]) for _ in range(ATTEMPTS.get(check, 1)))), "")
            for check in mutant.checks  # some mutants make a loop endless, in the test or when Python exits
        ]
    return ", ".join(found) if all(found) else "", time.monotonic() - started


def judge(mutants: list[Mutant]) -> int:
    """Prints a table of them; 1 if one survives, or if a check fails on the code as it is."""
    with contextlib.ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        pool = stack.enter_context(concurrent.futures.ThreadPoolExecutor(2))
        bases = {name: work / name for name in ("plain", "tsan")}
        unwanted = shutil.ignore_patterns("*.so", "_*.c", "__pycache__", "*.pyi")
        for part in ("nodedb_ring", "tests"):
            shutil.copytree(ROOT / part, bases["plain"] / part, ignore=unwanted)
        shutil.copy(ROOT / "pyproject.toml", bases["plain"])
        (bases["plain"] / "conftest.py").write_text(CONFTEST)
        package = bases["plain"] / "nodedb_ring"
        modules = [str(path.relative_to(package).with_suffix("")) for path in package.rglob("*.pyx")]
        list(pool.map(lambda name: compile_modules(bases["plain"], (name,), PLAIN), modules))
        # The ring alone meets the native traffic, and so it alone has to show TSan what it does.
        shutil.copytree(bases["plain"], bases["tsan"])
        compile_modules(bases["tsan"], RING, TSAN)
        checks = sorted({check for mutant in mutants for check in mutant.checks})
        usual = {}
        as_it_is = pool.map(lambda check: sound(check, bases["tsan" if check == "tsan" else "plain"]), checks)
        for check, (found, usual[check]) in zip(checks, as_it_is, strict=True):
            if found:
                print(f"mutants: the check {check} fails on the code as it is: {found}")
                return 1
        survivors = 0
        print(f"{'mutant':52} {'check':14} {'caught as':32} seconds")
        for mutant, (found, took) in zip(mutants, pool.map(lambda m: attempt(m, bases, usual), mutants), strict=True):
            survivors += not found
            print(f"{mutant.what:52} {' '.join(mutant.checks):14} {found or 'SURVIVED':32} {took:7.1f}", flush=True)
    print(f"mutants: {len(mutants) - survivors} of {len(mutants)} caught")
    return 1 if survivors else 0
