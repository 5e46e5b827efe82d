"""Every sparsity on systems with a known graph: what is recovered, forecast, and predicted of interventions.

Systems: three second-order oscillators (8 of 18 inputs are real), Lorenz-96 with 10 and 20 variables, random Hill
networks of 20 and 100 genes at 5 % and 10 % noise and at irregular times, the 350-gene yeast network (left out without
its file), and Hill networks seen in wild type and seven knock-outs that are asked about an eighth.

Methods: the default (group lasso, then elimination); every other sparsity before elimination; every sparsity
without it ("penalty only"); one network for all genes, as in the papers ("dense"); the default's graph averaged over
bootstraps; and baselines of graphs and of courses. Strengths and thresholds are chosen on held-out runs, never on the
truth.

Rows are appended to a table as they come: a run that was cut short goes on where it ended, and parts can be run one by
one, or at once. The default comes first in every part. Rows stay when the code changes: delete the table to begin anew.

    python benchmarks/dynamics_synthetic.py [--systems ...] [--methods ...] [--seeds 5] [--jobs 2] [--effort 1]
        [--other-effort 0.5] [--bootstraps 10] [--quick] [--report] [--list]
        [--output FOLDER]
"""

from __future__ import annotations

import argparse
import fcntl
import multiprocessing
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from _common import one_thread
from _dynamics_methods import BOOTSTRAPS, COURSES, DEFAULT, FITS, GRAPHS, METHODS, RANDOM, is_possible, measure
from _dynamics_report import report
from _dynamics_systems import KNOCKOUT, SYSTEMS, missing_data

QUICK_METHODS = (DEFAULT, "cnode, penalty only", "pathreg, dense", RANDOM, *GRAPHS, *COURSES)
QUICK_EFFORT = 0.02


@dataclass(frozen=True)
class Task:
    """One row of the table."""

    system: str
    method: str
    seed: int
    effort: float

    def run(self, *, quick: bool, n_bootstraps: int) -> dict[str, Any]:
        """Measure it."""
        found = measure(self.system, self.method, self.seed, effort=self.effort, quick=quick, n_bootstraps=n_bootstraps)
        return asdict(self) | found


def tasks_of(arguments: argparse.Namespace) -> list[Task]:
    """Return what is asked for, the default first."""
    tasks = []
    for method in sorted(arguments.methods, key=lambda name: name != DEFAULT):
        for system in arguments.systems:
            # Three fits each say what a knock-out that was never seen does; other methods only on demand.
            if not is_possible(system, method) or (
                system.startswith(KNOCKOUT) and method != DEFAULT and not arguments.named_methods
            ):
                continue
            effort = arguments.effort if method in {DEFAULT, BOOTSTRAPS} else arguments.other_effort
            effort = effort if method in {BOOTSTRAPS, *FITS} else 1.0
            tasks += [Task(system, method, seed, effort) for seed in range(arguments.seeds)]
    return tasks


def done_before(path: Path) -> set[Task]:
    """Return what a table already has."""
    if not path.is_file():
        return set()
    table = pd.read_csv(path)
    return {Task(*row) for row in table[["system", "method", "seed", "effort"]].itertuples(index=False, name=None)}


def append(path: Path, row: dict[str, Any]) -> None:
    """Write a row to the table, also while other parts do; columns that it is the first to have are added."""
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        table = pd.DataFrame([row])
        if path.is_file():
            table = pd.concat([pd.read_csv(path), table], ignore_index=True)
        beside = path.with_suffix(".tmp")
        table.to_csv(beside, index=False)
        beside.replace(path)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS), metavar="NAME")
    parser.add_argument("--methods", nargs="+", choices=METHODS, metavar="NAME", help="in quotes where it has spaces")
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--effort", type=float, help="of the default")
    parser.add_argument("--other-effort", type=float, help="of the other fits")
    parser.add_argument("--bootstraps", type=int)
    parser.add_argument("--quick", action="store_true", help="tiny systems, few steps: only to see that it runs")
    parser.add_argument("--report", action="store_true", help="only print tables and draw figures")
    parser.add_argument("--list", action="store_true", help="only list systems and methods")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    arguments.named_methods = arguments.methods is not None
    quick = arguments.quick
    for name, usual, short in (
        ("methods", METHODS, QUICK_METHODS),
        ("seeds", 5, 1),
        ("effort", 1.0, QUICK_EFFORT),
        ("other_effort", 0.5, QUICK_EFFORT),
        ("bootstraps", 10, 2),
    ):
        if getattr(arguments, name) is None:
            setattr(arguments, name, short if quick else usual)
    return arguments


def main() -> None:
    """Measure what is missing, then report on the whole table."""
    arguments = parse()
    if arguments.list:
        print("systems:", ", ".join(SYSTEMS), "\nmethods:", *METHODS, sep="\n")
        return
    arguments.output.mkdir(parents=True, exist_ok=True)
    path = arguments.output / f"dynamics_synthetic{'_quick' if arguments.quick else ''}.csv"
    if not arguments.report:
        for system in arguments.systems:
            reason = missing_data(system)
            if reason is not None:
                print(f"{system} is left out: {reason}")
                arguments.systems = [name for name in arguments.systems if name != system]
        done = done_before(path)
        tasks = [task for task in tasks_of(arguments) if task not in done]
        print(f"{len(tasks)} rows to measure, {len(done)} in {path}", flush=True)
        run_all(tasks, path, arguments)
    report(path)


def run_all(tasks: list[Task], path: Path, arguments: argparse.Namespace) -> None:
    """Run tasks side by side, and write each as it ends."""
    one_thread()
    options = {"quick": arguments.quick, "n_bootstraps": arguments.bootstraps}
    if arguments.jobs == 1:
        for task in tasks:
            finish(task.run(**options), path)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(arguments.jobs, mp_context=context, initializer=one_thread) as pool:
        for future in as_completed([pool.submit(task.run, **options) for task in tasks]):
            finish(future.result(), path)


def finish(row: dict[str, Any], path: Path) -> None:
    """Keep a row and show what matters of it."""
    append(path, row)
    shown = ("auprc", "support_error", "error_new_start_beyond", "error_intervention_within", "seconds")
    values = ", ".join(f"{name} {row[name]:.3f}" for name in shown if name in row)
    print(f"{row['system']}, {row['method']}, seed {row['seed']}: {values}", flush=True)


if __name__ == "__main__":
    main()
