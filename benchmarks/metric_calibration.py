"""Which metrics can be trusted: on simulated cells, where fresh cells of the truth are the best there is to predict.

Interpolation: predictions with a share of 0 to 1 of fresh cells of the truth, the rest cells of a negative control:
other control cells, or cells of all other conditions ("mean perturbed"). Means are interpolated along. A metric is
calibrated against a negative control if

- it is monotone: no step of the mean over conditions goes the wrong way by more than its 95 % interval;
- it tells the ends apart: the positive control is better in at least 90 % of the conditions (ties count one half);
- its range is used: the positive control covers at least half of the way from the negative control to the value of a
  perfect prediction (dynamic-range fraction).

Cheaters: predictors with one fault each (`_cheaters.py`), compared with the fresh cells that they are made of. One is
caught by a metric if it scores worse, with a 95 % interval (bootstrap over conditions and seeds) that excludes no
difference.

Seeds are other networks. Scores are appended to a table seed by seed: a run that was cut short goes on where it ended.
Rows stay when the code changes: delete the table to begin anew.

    python benchmarks/metric_calibration.py [--seeds 5] [--cells 100 25] [--genes 300] [--quick] [--report]
        [--output FOLDER]
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from _calibration_report import HONEST, N_SIGNIFICANT, SHARES, mixed, report
from _cheaters import CHEATERS, NEGATIVES, Truth, honest, mixture
from _common import one_thread

import perturbflow as pf
from perturbflow.metrics import METRICS


def scores_of(seed: int, n_cells: int, options: argparse.Namespace) -> pd.DataFrame:
    """Scores of all mixtures and cheaters at every condition of one screen."""
    truth = Truth.simulate(
        n_cells,
        n_genes=options.genes,
        n_perturbations=options.perturbations,
        n_combinations=options.combinations,
        seed=seed,
    )
    makers = {HONEST: honest}
    makers |= {mixed(negative, share): mixture(negative, share) for negative in NEGATIVES for share in SHARES[:-1]}
    makers |= CHEATERS
    predicted = {name: truth.predicted(maker, seed=seed) for name, maker in makers.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        pf.tl.evaluate(
            truth.observed,
            predicted,
            key=None,
            metrics="all",
            baselines=["control cells"],
            n_cells=None,
            n_permutations=0,
            n_resamples=1,
            seed=seed,
            progress_bar=False,
        )
    scores = truth.observed.uns["evaluation"].drop(columns="split")
    summary = truth.observed.uns["evaluation_summary"].rename(columns={"mean": "value"})
    is_of_screen = summary["metric"].map(lambda name: name in METRICS and METRICS[name].kind == "screen")
    of_screen = summary.loc[is_of_screen, ["model", "metric", "value"]].assign(perturbation="all together")
    counts = [
        {"perturbation": name, "model": model, "metric": N_SIGNIFICANT, "value": truth.n_significant(cells)}
        for model, maker in ({HONEST: honest} | CHEATERS).items()
        for place, name in enumerate(truth.fresh)
        for cells in [maker(truth, name, np.random.default_rng([seed, place]))]
        if len(cells) == n_cells
    ]
    return pd.concat([scores, of_screen, pd.DataFrame(counts)], ignore_index=True).assign(seed=seed, cells=n_cells)


def parsed() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--cells", type=int, nargs="+", help="real cells of a condition")
    parser.add_argument("--genes", type=int)
    parser.add_argument("--perturbations", type=int)
    parser.add_argument("--combinations", type=int)
    parser.add_argument("--quick", action="store_true", help="a tiny screen: only to see that it runs")
    parser.add_argument("--report", action="store_true", help="only print tables and draw figures")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    for name, usual, short in (
        ("seeds", 5, 1),
        ("cells", [100, 25], [30]),
        ("genes", 300, 120),
        ("perturbations", 12, 5),
        ("combinations", 10, 3),
    ):
        if getattr(options, name) is None:
            setattr(options, name, short if options.quick else usual)
    return options


def main() -> None:
    """Score what is missing, then report on the whole table."""
    options = parsed()
    one_thread()
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / f"metric_calibration{'_quick' if options.quick else ''}_scores.csv"
    table = pd.read_csv(path) if path.is_file() else pd.DataFrame({"seed": [], "cells": []})
    if not options.report:
        done = set(zip(table["seed"], table["cells"], strict=True))
        for n_cells in options.cells:
            for seed in range(options.seeds):
                if (seed, n_cells) in done:
                    continue
                table = pd.concat([table, scores_of(seed, n_cells, options)], ignore_index=True)
                beside = path.with_suffix(".tmp")
                table.to_csv(beside, index=False)
                beside.replace(path)
                print(f"  seed {seed}, {n_cells} cells a condition", flush=True)
    if table.empty:
        print(f"nothing measured in {path}")
        return
    report(table, path.with_name(path.name.removesuffix("_scores.csv")))


if __name__ == "__main__":
    main()
