"""Forecasts of human motion out of distribution: every sparsity, first and second order, beside all null models.

Walks of one person are fitted. Forecast are new walks of the same person, walks of two others, jogs of the same person,
and a run and jumps of another one; from the first half of a sequence or from its first frame. Errors are squared, over
the mean variance of the channels in training. Strengths are chosen on training sequences that are held out; what all
fits share was chosen on the validation split, and nothing on the test splits.

Stress tests, on the training frames alone: noise of a tenth of each channel's s.d.; half of the frames missing at
random; one trial only. Beside each score: the share of zero weights, of absent inputs and of channels that nothing uses.

Every fit, its results and its forecasts have files of their own in the output folder: a run that was cut short goes on where
it ended. Files stay when the code changes: delete the results (.json) to forecast anew, and the fits (.h5ad) to begin anew.

    python benchmarks/motion_capture.py [--kinds ...] [--sparsities ...] [--seeds 3] [--stress-seeds 1] [--effort 0.1]
        [--workers 1] [--quick] [--report] [--output FOLDER]
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from _common import one_thread
from _motion_fits import DEFAULT, KINDS, Setting, defaults, fit, frames, judge, settings
from _motion_report import report

from perturbflow.dynamics import SPARSITIES

EFFORT, QUICK_EFFORT = 0.1, 0.02


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", choices=KINDS)
    parser.add_argument("--sparsities", nargs="+", choices=SPARSITIES)
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--stress-seeds", type=int)
    parser.add_argument("--effort", type=float)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument(
        "--quick",
        action="store_true",
        help="two short fits of each sparsity, one sequence of each level: only to see that it runs",
    )
    parser.add_argument("--report", action="store_true", help="only print tables and draw figures")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    quick = arguments.quick
    for name, usual, short in (
        ("kinds", KINDS, KINDS[:1]),
        ("sparsities", tuple(SPARSITIES), (DEFAULT, "none")),
        ("seeds", 3, 1),
        ("stress_seeds", 1, 0),
        ("effort", EFFORT, QUICK_EFFORT),
    ):
        if getattr(arguments, name) is None:
            setattr(arguments, name, short if quick else usual)
    return arguments


def main() -> None:
    """Fit what is missing, then report on all that is there."""
    arguments = parse()
    try:
        for kind in arguments.kinds:
            frames(kind)
    except FileNotFoundError as error:
        print(error)
        return
    folder = arguments.output / f"motion_capture{'_quick' if arguments.quick else ''}"
    folder.mkdir(parents=True, exist_ok=True)
    if not arguments.report:
        wanted = [] if arguments.quick else defaults(tuple(arguments.kinds), n_seeds=arguments.seeds)
        wanted += settings(
            kinds=tuple(arguments.kinds),
            orders=(2,) if arguments.quick else (2, 1),
            sparsities=tuple(arguments.sparsities),
            n_seeds=arguments.seeds,
            n_stress_seeds=arguments.stress_seeds,
            effort=arguments.effort,
        )
        print(f"{len(wanted)} fits in {folder}", flush=True)
        run_all(wanted, folder, n_workers=arguments.workers, n_sequences=1 if arguments.quick else None)
    report(folder, kinds=tuple(arguments.kinds))


def run_all(wanted: list[Setting], folder: Path, *, n_workers: int, n_sequences: int | None) -> None:
    """Fit and judge side by side what is missing, and show what matters of each."""
    one_thread()
    missing = [one for one in wanted if not one.path(folder, ".json").is_file()]
    if n_workers == 1:
        for one in missing:
            show(fit_and_judge(one, folder, n_sequences))
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(n_workers, mp_context=context, initializer=one_thread) as pool:
        for future in as_completed([pool.submit(fit_and_judge, one, folder, n_sequences) for one in missing]):
            show(future.result())


def fit_and_judge(setting: Setting, folder: Path, n_sequences: int | None) -> dict[str, Any]:
    """Fit unless that was done before, and judge the forecasts."""
    if not setting.path(folder, ".h5ad").is_file():
        fit(setting, folder)
    return judge(setting, folder, n_sequences=n_sequences)


def show(result: dict[str, Any]) -> None:
    """Print a line."""
    errors: dict[str, list[float]] = {}
    for row in result["rows"]:
        if row["task"] == "second half":
            errors.setdefault(row["split"], []).append(sum(row["error"]) / len(row["error"]))
    found = ", ".join(f"{split} {sum(values) / len(values):.3f}" for split, values in errors.items())
    about = [str(result[key]) for key in ("kind", "order", "sparsity", "condition", "seed")]
    print(
        f"{' '.join(about)}: {found}; {result['seconds']:.0f} + {result['seconds_of_forecasts']:.0f} CPU s", flush=True
    )


if __name__ == "__main__":
    os.environ.setdefault("MPLBACKEND", "Agg")
    main()
