"""Seconds and memory of an evaluation, beside cell-eval's full profile on the same files.

A simulated sparse screen (a tenth of the values above 0, a tenth of the cells controls) and a prediction of all its
perturbed cells with weaker effects are written to files, which every run reads in a process of its own; reading is not
counted. Memory is the highest resident set of that process, libraries and cells included.

- "full suite": all metrics, all baselines, floor and ceiling, verdicts.
- "all metrics": the same for the prediction, floor and ceiling, without further baselines.
- "cell_eval suite": the metrics of cell-eval, for the prediction, floor and ceiling.
- "cell_eval suite, all cells": the same without drawing cells, as cell-eval does it, so that values compare.
- "cell-eval": `MetricsEvaluator`, profile "full", for the prediction alone, in the interpreter that `--python` names.

All runs follow one another and have as many threads as `--threads`. "Times faster" is against cell-eval at the same size.

Then the cost against cells, genes and perturbations, one at a time. Rows are appended to a table as they come: a run
that was cut short goes on where it ended. Rows stay when the code changes: delete the table to begin anew.

    python benchmarks/evaluation_speed.py [--cells 150000] [--genes 2000] [--perturbations 300] [--threads 2]
        [--runs ...] [--parts screen scaling] [--python INTERPRETER] [--quick] [--output FOLDER]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from _common import markdown
from _simulated_screen import CONTROL, simulated_screen
from flow_speed import apart, exponent
from scipy import sparse

import perturbflow as pf

if TYPE_CHECKING:
    from collections.abc import Sequence

CELL_EVAL = "cell-eval"
ALL_CELLS = "cell_eval suite, all cells"
OWN: dict[str, dict[str, Any]] = {
    "full suite": {"metrics": "all"},
    "all metrics": {"metrics": "all", "baselines": ["control cells"]},
    "cell_eval suite": {"metrics": "cell_eval", "baselines": ["control cells"], "n_permutations": 0},
    ALL_CELLS: {"metrics": "cell_eval", "baselines": ["control cells"], "n_permutations": 0, "n_cells": None},
}
RUNS = (*OWN, CELL_EVAL)
SCALED = "all metrics"
SIZES = ("cells", "genes", "perturbations")
MODEL = "predicted"
SHRINK = 0.7
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "POLARS_MAX_THREADS")
COLOURS = {SCALED: "#0072B2", "cell_eval suite": "#009E73", CELL_EVAL: "#D55E00"}  # Okabe and Ito


@dataclass(frozen=True)
class Task:
    """One row of the table."""

    run: str
    cells: int
    genes: int
    perturbations: int
    threads: int


def write_screen(folder: Path, cells: int, genes: int, perturbations: int) -> None:
    """Write real and predicted cells, with the real controls in both."""
    real = simulated_screen(cells, genes, perturbations)
    predicted = simulated_screen(cells, genes, perturbations, shrink=SHRINK, draw=1)
    is_control = (real.obs["perturbation"] == CONTROL).to_numpy()
    predicted.X = sparse.vstack([real.X[is_control], predicted.X[~is_control]], format="csr")  # controls come first
    real.write_h5ad(folder / "real.h5ad")
    predicted.write_h5ad(folder / "predicted.h5ad")


def evaluated(folder: Path, run: str, threads: int) -> tuple[dict[str, float], pd.DataFrame]:
    """Cost of one call of ``pf.tl.evaluate``, and the scores of the prediction by perturbation and metric."""
    from _memory import resident
    from anndata import read_h5ad

    real, predicted = (read_h5ad(folder / f"{name}.h5ad") for name in ("real", "predicted"))
    real.obs["split"] = np.where(real.obs["perturbation"] == CONTROL, "train", "test")
    if run == "full suite":  # baselines need perturbed cells to be fitted on
        order = np.random.default_rng(0).permutation(real.n_obs)
        real.obs["split"] = np.where((real.obs["perturbation"] == CONTROL) | (order % 4 == 0), "train", "test")
    pf.pp.setup_perturbation(real, perturbation_key="perturbation", control=CONTROL)
    evaluate = pf.tl.evaluate  # imported here, as cell-eval is before its clock starts
    options: dict[str, Any] = {"key": None, "splits": ("test",), "n_jobs": threads, "progress_bar": False}
    wall, cpu = time.perf_counter(), time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        evaluate(real, {MODEL: predicted}, **options, **OWN[run])
    cost = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
    scores, summary = real.uns["evaluation"], real.uns["evaluation_summary"]
    cost |= {"peak_gb": resident() / 1e9, "metrics": summary["metric"].nunique(), "models": summary["model"].nunique()}
    scores = scores[scores["model"] == MODEL]
    return cost, scores.pivot(index="perturbation", columns="metric", values="value")


def cell_evaluated(folder: Path, python: Path, threads: int) -> tuple[dict[str, float], pd.DataFrame]:
    """Cost of cell-eval, and its values."""
    script = Path(__file__).with_name("_cell_eval_run.py")
    command = [str(python), str(script), "real.h5ad", "predicted.h5ad", "--control", CONTROL]
    command += ["--column", "perturbation", "--threads", str(threads), "--output", "."]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return json.loads((folder / "cost.json").read_text()) | {"models": 1}, pd.read_csv(
        folder / "values.csv", index_col=0
    )


def measured(task: Task, folder: Path, options: argparse.Namespace) -> tuple[dict[str, Any], pd.DataFrame]:
    """Measure one row."""
    if task.run == CELL_EVAL:
        cost, values = cell_evaluated(folder, options.python, task.threads)
    else:
        cost, values = apart(evaluated, folder, task.run, task.threads)
    return asdict(task) | cost, values


def measure(
    sizes: Sequence[tuple[int, int, int]], runs: Sequence[str], options: argparse.Namespace, path: Path
) -> None:
    """Measure what the table lacks, and compare the values where there are both."""
    for size in sizes:
        table = pd.read_csv(path) if path.is_file() else pd.DataFrame(columns=list(asdict(Task("", 0, 0, 0, 0))))
        keys = table[["run", "cells", "genes", "perturbations", "threads"]].itertuples(index=False, name=None)
        done = {Task(*key) for key in keys}
        tasks = [Task(run, *size, options.threads) for run in runs]
        tasks = [task for task in tasks if task not in done]
        if not tasks:
            continue
        with tempfile.TemporaryDirectory(dir=options.output) as name:
            folder = Path(name)
            write_screen(folder, *size)
            for task in tasks:
                row, values = measured(task, folder, options)
                table = pd.concat([table, pd.DataFrame([row])], ignore_index=True)
                beside = path.with_suffix(".tmp")
                table.to_csv(beside, index=False)
                beside.replace(path)
                stem = "x".join(map(str, size))
                values.to_csv(options.output / f"{path.stem}_{file_name(task.run)}_{stem}.csv")
                print(f"  {task.run}, {size}: {row['seconds']:.1f} s, {row['peak_gb']:.2f} GB", flush=True)


def print_screen(table: pd.DataFrame, size: tuple[int, int, int]) -> None:
    """Print the cost of every run at the full size."""
    here = table[(table[list(SIZES)] == size).all(axis=1)].drop_duplicates("run", keep="last").set_index("run")
    if here.empty:
        return
    theirs = here.loc[CELL_EVAL] if CELL_EVAL in here.index else None
    rows = {}
    for run in [name for name in RUNS if name in here.index]:
        row = here.loc[run]
        rows[run] = {
            "models": f"{row['models']:.0f}",
            "metrics": f"{row['metrics']:.0f}",
            "threads": f"{row['threads']:.0f}",
            "seconds": f"{row['seconds']:,.1f}",
            "CPU seconds": f"{row['cpu_seconds']:,.1f}",
            "peak GB": f"{row['peak_gb']:.2f}",
            "times faster": "–" if theirs is None else f"{theirs['seconds'] / row['seconds']:.1f}",
            "times less CPU": "–" if theirs is None else f"{theirs['cpu_seconds'] / row['cpu_seconds']:.1f}",
        }
    print(f"\n{size[0]:,} cells, {size[1]:,} genes, {size[2]:,} perturbations\n")
    print(markdown(pd.DataFrame.from_dict(rows, orient="index").rename_axis("run")))


def print_values(options: argparse.Namespace) -> None:
    """Print the values of both at the base size."""
    stem = "x".join(map(str, options.base))
    name = f"evaluation_speed{'_quick' * options.quick}"
    paths = [options.output / f"{name}_{file_name(run)}_{stem}.csv" for run in (ALL_CELLS, CELL_EVAL)]
    if all(path.is_file() for path in paths):
        print(f"\nValues of shared metrics on all cells, perturbation by perturbation; {tuple(options.base)}\n")
        print(markdown(compared(*(pd.read_csv(path, index_col=0) for path in paths))))


def file_name(run: str) -> str:
    """Name of a run in file names."""
    return run.replace(",", "").replace(" ", "_")


def compared(own: pd.DataFrame, theirs: pd.DataFrame) -> pd.DataFrame:
    """Means of both and the largest difference."""
    rows = {}
    for name in pf.metrics.SUITES["cell_eval"]:
        source = pf.metrics.METRICS[name].source.split(": ")[-1].split(", ")[0]
        if name in own and source in theirs:
            pair = own[name].align(theirs[source], join="inner")
            rows[name] = {"in cell-eval": source, "ours": f"{pair[0].mean():.6f}", "theirs": f"{pair[1].mean():.6f}"}
            rows[name] |= {"largest difference": f"{(pair[0] - pair[1]).abs().max():.1e}"}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("metric")


def sweeps(options: argparse.Namespace) -> dict[str, list[tuple[int, int, int]]]:
    """Sizes by what changes."""
    base = options.base
    return {
        name: [
            tuple(round(factor * value) if k == place else value for k, value in enumerate(base))
            for factor in options.factors
        ]
        for place, name in enumerate(SIZES)
    }


def print_scaling(table: pd.DataFrame, options: argparse.Namespace) -> None:
    """Print how time and memory grow, and draw it."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib import ticker

    figure, axes = plt.subplots(2, 3, figsize=(9, 5), sharey="row", sharex="col", layout="constrained")
    rows = []
    for column, (name, sizes) in enumerate(sweeps(options).items()):
        for run, colour in COLOURS.items():
            part = table[(table["run"] == run) & table[list(SIZES)].apply(tuple, axis=1).isin(sizes)]
            part = part.drop_duplicates(list(SIZES), keep="last").sort_values(name)
            if len(part) < 2:
                continue
            rows.append({"run": run, "with": name, "from": f"{part[name].iloc[0]:,}", "to": f"{part[name].iloc[-1]:,}"})
            for row, (value, label) in enumerate((("cpu_seconds", "CPU seconds"), ("peak_gb", "peak GB"))):
                axis = axes[row, column]
                axis.plot(part[name], part[value], "o-", color=colour, markersize=4, label=run)
                axis.set(xscale="log", yscale="log", xlabel=name if row else "")
                axis.set_xticks(part[name], [f"{size:,}" for size in part[name]])
                axis.xaxis.set_minor_locator(ticker.NullLocator())
                axis.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
                axis.yaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
                axis.yaxis.set_minor_locator(ticker.NullLocator())
                rows[-1][f"exponent of {label}"] = f"{exponent(part[name], part[value]):.2f}"
                if column == 0:
                    axis.set_ylabel(label)
    if rows:
        axes[0, 0].legend(fontsize=7, frameon=False)
        print("\nScaling exponents (slope between logarithms; 0 is constant, 1 is linear)\n")
        print(markdown(pd.DataFrame(rows).set_index(["run", "with"])))
        figure.savefig(options.output / f"evaluation_speed{'_quick' * options.quick}.png", dpi=150)
    plt.close(figure)


def parsed() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in SIZES:
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--base", type=int, nargs=3, metavar=("CELLS", "GENES", "PERTURBATIONS"), help="of the sweeps")
    parser.add_argument("--factors", type=float, nargs="+", help="of the sweeps")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", nargs="+", choices=RUNS, default=list(RUNS), metavar="NAME")
    parser.add_argument("--parts", nargs="+", choices=("screen", "scaling"), default=["screen", "scaling"])
    parser.add_argument("--python", type=Path, help="an interpreter that has cell-eval")
    parser.add_argument("--quick", action="store_true", help="tiny screens: only to see that it runs")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    for name, usual, short in (
        ("cells", 150_000, 600),
        ("genes", 2000, 60),
        ("perturbations", 300, 6),
        ("base", [24_000, 2000, 60], [600, 60, 6]),
        ("factors", [0.5, 1.0, 2.0], [1.0, 2.0]),
    ):
        if getattr(options, name) is None:
            setattr(options, name, short if options.quick else usual)
    if options.python is None and CELL_EVAL in options.runs:
        print("cell-eval is left out: name an interpreter that has it with --python")
        options.runs.remove(CELL_EVAL)
    return options


def main() -> None:
    """Measure, save and print."""
    options = parsed()
    os.environ.update(dict.fromkeys(THREADS, str(options.threads)))
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / f"evaluation_speed{'_quick' * options.quick}.csv"
    size = (options.cells, options.genes, options.perturbations)
    if "screen" in options.parts:
        measure([size], options.runs, options, path)
    if "scaling" in options.parts:
        scaled = [run for run in options.runs if run in COLOURS and (run == SCALED or not options.quick)]
        compare = [ALL_CELLS] if {ALL_CELLS, CELL_EVAL} <= {*options.runs} else []
        measure([tuple(options.base)], scaled + compare, options, path)
        measure(list(dict.fromkeys(sum(sweeps(options).values(), []))), scaled, options, path)
    if not path.is_file():
        print(f"nothing measured in {path}")
        return
    table = pd.read_csv(path)
    if "screen" in options.parts:
        print_screen(table, size)
    if "scaling" in options.parts:
        print_scaling(table, options)
        print_values(options)


if __name__ == "__main__":
    main()
