"""The paper's network trained to the end on small panels: its two ablations, guidance, and how near it comes to real cells.

{U-Net, MLP} x {gene space, principal components}, plain velocity from noise, on the 64 most variable genes of McFaline-Figueroa
2024, Kang 2018, Norman 2019 and of simulated cells. The cells of every condition are divided: half for training, a tenth
for choices, the rest for the test. The unbiased energy distance to fresh cells is written at several numbers of cells
seen (batches of 256, counted with repetition), with guidance 1, 2, 3 and 5 at the end; the floor is that of two halves of real cells.

Every row is written when it is known; a run that was cut short continues with the trainings that are missing.

    python benchmarks/primeflow_reproduction.py [--panels mcfaline simulated kang norman] [--seeds 0 1] [--cells 100000] [--quick]
    python benchmarks/primeflow_reproduction.py --gpu [--file screen.h5ad --scenario perturbench_norman19] [--minutes 10]
"""

from __future__ import annotations

import argparse
import csv
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
from _common import one_thread
from _reproduction_gpu import of_gpu
from _reproduction_models import MODELS, Model
from _reproduction_panels import PANELS, Panel
from _reproduction_report import report

SHARES = (0.1, 0.25, 0.5, 1.0)
GUIDANCES = (1.0, 2.0, 3.0, 5.0)
COLUMNS = (
    *("panel", "seed", "space", "network", "cells seen", "seconds", "guidance", "part"),
    *("energy", "energy without zeros", "zeros", "values below 0.1", "real zeros", "floor", "floor se"),
)
QUICK: dict[str, Any] = {"n_genes": 32, "max_conditions": 2, "changes": {"width": 8}, "n_cells": 6000, "batch_size": 64}
FULL: dict[str, Any] = {"n_genes": 64, "max_conditions": 8, "changes": {}, "n_cells": 100_000, "batch_size": 256}


def trained(name: str, seed: int, space: str, network: str, file: Path, options: dict[str, Any]) -> None:
    """Train one model on one panel, and write its rows."""
    panel = Panel.make(name, options["n_genes"], seed=seed, max_conditions=options["max_conditions"])
    floors = {part: panel.floor(part) for part in ("valid", "test")}
    changes = options["changes"] if network == "U-Net" else {}
    model = Model(
        panel,
        space,
        network,
        n_cells=options["n_cells"],
        batch_size=options["batch_size"],
        seed=seed,
        changes=changes,
        learning_rate=options["learning_rate"],
    )
    for seen, seconds in model.train(SHARES):
        is_last = seen == model.training.settings.max_steps * model.training.settings.batch_size
        for guidance in GUIDANCES if is_last else GUIDANCES[:1]:
            found = panel.scores(model.sampler(guidance))
            for part, scores in found.items():
                row = {
                    "panel": name,
                    "seed": seed,
                    "space": space,
                    "network": network,
                    "cells seen": seen,
                    "seconds": round(seconds, 1),
                    "guidance": guidance,
                    "part": part,
                    "floor": floors[part][0],
                    "floor se": floors[part][1],
                } | scores
                write(row, file)
            print(f"{name} {seed} {space} {network}: {seen:,} cells, {seconds:.0f} s, guidance {guidance:g}", end="")
            print(
                f", energy {found['test']['energy']:.4f} (floor {floors['test'][0]:.4f} ± {floors['test'][1]:.4f})",
                flush=True,
            )


def write(row: dict[str, Any], file: Path) -> None:
    """Add a row to the table."""
    is_new = not file.exists()
    with file.open("a", newline="") as opened:
        writer = csv.DictWriter(opened, COLUMNS)
        if is_new:
            writer.writeheader()
        writer.writerow({name: f"{value:.6g}" if isinstance(value, float) else value for name, value in row.items()})


def is_complete(file: Path, name: str, seed: int, space: str, network: str) -> bool:
    """Whether a training has its last row; rows of one that was cut short are dropped."""
    if not file.exists():
        return False
    table = pd.read_csv(file)
    own = (table[["panel", "seed", "space", "network"]] == [name, seed, space, network]).all(axis=1)
    if (table.loc[own, "guidance"] == GUIDANCES[-1]).any() and len(table[own]) % 2 == 0:
        return True
    table[~own].to_csv(file, index=False)
    return False


def main() -> None:
    """Train what is missing, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--panels", nargs="+", default=list(PANELS), choices=list(PANELS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--cells", type=int, help="cells that every network sees, those of all batches")
    parser.add_argument("--batch-size", type=int, help="cells a step")
    parser.add_argument("--learning-rate", type=float, help="peak of the schedule, to choose it on validation cells")
    parser.add_argument("--networks", nargs="+", default=sorted({network for _, network in MODELS}))
    parser.add_argument("--spaces", nargs="+", default=["genes", "components"])
    parser.add_argument("--quick", action="store_true", help="few cells, genes and conditions; simulated, one seed")
    parser.add_argument("--gpu", action="store_true", help="the preset on a split of PerturBench with its metrics")
    parser.add_argument("--file", type=Path, help="with --gpu: the cells; simulated without")
    parser.add_argument("--scenario", default="perturbench_combination", help="with --gpu: the split")
    parser.add_argument("--minutes", type=float, default=10, help="with --gpu: time for everything")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--report-only", action="store_true", help="print the tables of an earlier run")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    if arguments.gpu:
        of_gpu(
            arguments.file,
            arguments.scenario,
            minutes=arguments.minutes,
            quick=arguments.quick,
            output=arguments.output,
        )
        return
    one_thread()
    np.seterr(all="raise", under="ignore")
    file = arguments.output / "primeflow_reproduction.csv"
    options = dict(QUICK if arguments.quick else FULL)
    if arguments.cells is not None:
        options["n_cells"] = arguments.cells
    if arguments.batch_size is not None:
        options["batch_size"] = arguments.batch_size
    options["learning_rate"] = arguments.learning_rate
    panels, seeds = (["simulated"], [0]) if arguments.quick else (arguments.panels, arguments.seeds)
    if not arguments.report_only:
        for seed in seeds:
            for space, network in MODELS:
                for name in panels:
                    wanted = space in arguments.spaces and network in arguments.networks
                    if wanted and not is_complete(file, name, seed, space, network):
                        trained(name, seed, space, network, file, options)
    report(file)


if __name__ == "__main__":
    main()
