"""How many changes of the mathematics the tests notice: mutation testing of a sample of `flow`, `dynamics` and `metrics`.

mutmut changes one operator, number, argument or word of a function at a time; a change is killed when one of the tests of
its room fails, and survives when all pass. Functions under a decorator are not changed. Every room is copied to a directory
of its own, all its mutants are listed, and as many as asked for are drawn at random and tried.

mutmut changes a function in a process that has imported the package, and runs the tests that called it. What is called while
modules are imported, such as a decorator, has done its work by then. Mutants that survive are therefore tried again by all
tests of the room in a process of their own, which imports the changed package.

    make mutate ARGS="--mutants 100 --rooms flow dynamics metrics"
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
from _common import markdown

ROOMS = ("flow", "dynamics", "metrics")
NO_TEST, SURVIVED = 33, 0  # codes of mutmut
ROOT = Path(__file__).parents[1]
THREADS = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
SHARED = ("benchmarks", "conftest.py", "docs", "src", "pyproject.toml")
CONFIG = """
[tool.mutmut]
source_paths = ["src/"]
only_mutate = ["src/perturbflow/{room}/*.py"]
pytest_add_cli_args_test_selection = ["tests/{room}"]
pytest_add_cli_args = ["-p", "no:cacheprovider", "-n0"]
also_copy = ["benchmarks", "conftest.py", "docs"]
"""


def prepare(room: str, work: Path) -> Path:
    """Copy what the tests of a room need, with a configuration of mutmut, to a new directory."""
    folder = work / room
    if folder.exists():
        shutil.rmtree(folder)
    tests = (f"tests/{room}", *(str(path.relative_to(ROOT)) for path in (ROOT / "tests").glob("*conftest.py")))
    for name in (*SHARED, *tests):
        source, goal = ROOT / name, folder / name
        goal.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(
                source,
                goal,
                ignore=shutil.ignore_patterns("__pycache__", "results", "_build", "generated", "tutorials"),
            )
        else:
            shutil.copy(source, goal)
    with (folder / "pyproject.toml").open("a") as file:
        file.write(CONFIG.format(room=room))
    return folder


def run(folder: Path, names: list[str]) -> str:
    """Run mutmut for some mutants, and return what it printed."""
    command = [sys.executable, "-m", "mutmut", "run", "--max-children", "1", *names]
    done = subprocess.run(command, cwd=folder, env=os.environ | THREADS, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def passes(folder: Path, room: str, name: str = "") -> bool:
    """Return whether all tests of a room pass in a new process, with a mutant or with none."""
    copy = folder / "mutants"
    command = [sys.executable, "-m", "pytest", f"tests/{room}", "-x", "-q", "-n0", "-p", "no:cacheprovider"]
    changed = {"MUTANT_UNDER_TEST": name, "PYTHONPATH": str(copy / "src")} | THREADS
    return subprocess.run(command, cwd=copy, env=os.environ | changed, capture_output=True, check=False).returncode == 0


def results(folder: Path) -> dict[str, int | None]:
    """Return the exit code of the tests for every mutant of a room; None for those that were not tried."""
    found: dict[str, int | None] = {}
    for path in sorted((folder / "mutants").rglob("*.py.meta")):
        found |= json.loads(path.read_text())["exit_code_by_key"]
    return found


def change(folder: Path, name: str) -> str:
    """Return the lines that a mutant removes and adds."""
    shown = subprocess.run(
        [sys.executable, "-m", "mutmut", "show", name], cwd=folder, capture_output=True, text=True, check=False
    ).stdout
    lines = [line for line in shown.split("\n") if line.startswith(("-", "+")) and not line.startswith(("---", "+++"))]
    return "\n".join(line[0] + " " + line[1:].strip() for line in lines)


def is_text(diff: str) -> bool:
    """Return whether a change concerns nothing but the words of a message: its text, or names handed on for it."""
    return all("msg = " in line or "name=" in line or line[2:].startswith(('"', 'f"')) for line in diff.split("\n"))


def judge(room: str, *, n_mutants: int, seed: int, work: Path) -> tuple[dict[str, object], list[str]]:
    """Try a sample of the mutants of a room.

    Returns
    -------
    The row of the room, and the changes that no test has noticed.
    """
    folder = prepare(room, work)
    printed = run(folder, ["none-of-them"])  # lists all mutants, and which tests call which function
    names = sorted(results(folder))
    if not names:
        msg = f"Expected mutants of {room!r}, found none. mutmut said:\n{printed[-2000:]}"
        raise RuntimeError(msg)
    sample = random.Random(seed).sample(names, min(n_mutants, len(names)))
    printed = run(folder, sample)
    codes = {name: code for name, code in results(folder).items() if name in set(sample)}
    tried = [name for name, code in codes.items() if code is not None]
    if not tried:
        msg = f"Expected results of mutants of {room!r}, found none. mutmut said:\n{printed[-2000:]}"
        raise RuntimeError(msg)
    if not passes(folder, room):
        msg = f"Expected the tests of {room!r} to pass without a mutant, found failures. Run them with pytest."
        raise RuntimeError(msg)
    doubtful = [name for name in tried if codes[name] in {SURVIVED, NO_TEST}]
    left = [name for name in doubtful if passes(folder, room, name)]
    changes = {name: change(folder, name) for name in left}
    of_text = sum(is_text(diff) for diff in changes.values())
    row = {
        "room": room,
        "mutants": len(names),
        "tried": len(tried),
        "killed": len(tried) - len(left),
        "killed, %": round(100 * (1 - len(left) / len(tried)), 1),
        "killed in a process of their own": len(doubtful) - len(left),
        "survived": sum(codes[name] == SURVIVED for name in left),
        "without a test": sum(codes[name] == NO_TEST for name in left),
        "survived, words of messages": of_text,
    }
    return row, [f"{name} ({'no test' if codes[name] == NO_TEST else 'survived'})\n{changes[name]}" for name in left]


def main() -> None:
    """Judge all rooms, and print the table and what survived."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rooms", nargs="+", choices=ROOMS, default=list(ROOMS))
    parser.add_argument("--mutants", type=int, default=100, help="mutants drawn from every room")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=ROOT / "benchmarks/results/mutation", help="for the copies")
    options = parser.parse_args()
    rows = []
    for room in options.rooms:
        row, survivors = judge(room, n_mutants=options.mutants, seed=options.seed, work=options.work.resolve())
        rows.append(row)
        print("\n\n".join([f"## {room}", *survivors]), flush=True)
    print(markdown(pd.DataFrame(rows)))


if __name__ == "__main__":
    main()
