"""What is left of a fit when its process is killed, and what loaders make of damaged files.

Kills: a fit with a checkpoint is killed with SIGKILL at a random moment and run again; the file with the cells has to be
what it was, the result that of a fit without a break, and no temporary file may be left. Writers: two processes write
flows to one store while a third reads; every read has to be one of the two, whole. Fuzz: files and entries are damaged at
random, and every loader has to refuse them with a clear error, or to read what was written.

    python benchmarks/faults.py [--half dynamics flow] [--kills 20] [--writer-seconds 10] [--fuzz-minutes 5] [--seed 0]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import anndata
import numpy as np
import pandas as pd
from _common import markdown, one_thread
from _fuzz import LOADERS, cells_with_a_flow, fuzz

import perturbflow as pf
from perturbflow.predict import read_flow, write_flow
from perturbflow.store import checksum

if TYPE_CHECKING:
    from anndata import AnnData

HALVES = ("dynamics", "flow")


# Kills


def cells_of(half: str) -> AnnData:
    """Registered cells, few enough for a fit of seconds."""
    if half == "dynamics":
        adata = pf.datasets.hill_network(n_genes=6, n_trajectories=6, n_times=20, seed=1)
        pf.pp.setup_dynamics(adata, time_key="time", trajectory_key="trajectory")
        return adata
    adata = pf.datasets.simulated_perturb_seq(n_cells=600, n_genes=50, n_perturbations=4, n_combinations=3)
    pf.pp.setup_perturbation(adata, perturbation_key="perturbation", control="control")
    pf.pp.split_perturbations(adata, task="combination", test_fraction=0.3, valid_fraction=0.3)
    return adata


def fit(half: str, cells: Path, checkpoint: Path, result: Path) -> None:
    """Fit with a checkpoint, and write what tells the result from others."""
    adata = anndata.read_h5ad(cells)
    if half == "dynamics":
        pf.tl.fit_dynamics(adata, effort=0.1, checkpoint=checkpoint, progress_bar=False)
        found = checksum(adata.uns["dynamics"])
    else:
        pf.tl.fit_flow(
            adata,
            model_kwargs={"width": 32},
            max_steps=600,
            plan_kwargs={"calibrate": False},
            checkpoint=checkpoint,
            progress_bar=False,
        )
        found = checksum(adata.uns["flow"], without=("history",))  # which has seconds
    result.write_text(json.dumps({"checksum": found}))


def measure_kills(half: str, folder: Path, *, n_kills: int, seed: int) -> pd.DataFrame:
    """Kill a fit at random moments, each time run it again, and look at what there is."""
    folder.mkdir()
    cells, checkpoint, result = folder / "cells.h5ad", folder / "checkpoint", folder / "result.json"
    cells_of(half).write_h5ad(cells)
    before = hashlib.sha256(cells.read_bytes()).hexdigest()
    context, rng = multiprocessing.get_context("fork"), np.random.default_rng(seed)

    def run(seconds: float | None) -> float:
        result.unlink(missing_ok=True)
        began = time.monotonic()
        process = context.Process(target=fit, args=(half, cells, checkpoint, result))
        process.start()
        process.join(seconds)
        process.kill()
        process.join()
        return time.monotonic() - began

    _ = pf.models.fit, pf.models.fit_dynamics  # loaded once, for all processes
    whole = run(None)
    expected = result.read_text()
    rows = []
    for _ in range(n_kills):
        moment = float(rng.uniform(0, whole))
        run(moment)
        while result.exists():  # it was faster than the first one
            moment = float(rng.uniform(0, moment))
            run(moment)
        had = sorted(path.name for path in checkpoint.glob("*"))
        again = run(None)
        rows.append(
            {
                "killed after": moment / whole,
                "checkpoint": bool(had),
                "left by the kill": sum(name.startswith(".") for name in had),
                "time of the rest": again / whole,
                "same result": result.exists() and result.read_text() == expected,
                "cells intact": hashlib.sha256(cells.read_bytes()).hexdigest() == before,
                "left in the end": len([path for path in folder.rglob("*") if path not in (cells, result)]),
            }
        )
        print(rows[-1], flush=True)
    return pd.DataFrame(rows)


# Writers


def write(folder: Path, entry: dict, seconds: float) -> None:
    """Write a flow again and again."""
    adata, end = anndata.AnnData(np.zeros((1, 1)), uns={"flow": entry}), time.monotonic() + seconds
    flow = read_flow(adata)
    while time.monotonic() < end:
        write_flow(adata, flow, store=folder)


def measure_writers(folder: Path, *, seconds: float) -> pd.Series:
    """Read a store that two processes write to."""
    adata = cells_with_a_flow()
    entries = []
    for guidance in (1.0, 2.0):
        adata.uns["flow"]["config"]["guidance"] = guidance
        flow = read_flow(adata)
        flow.history["step"] = flow.history["step"] + guidance  # other arrays and other values
        entries.append(flow.to_dict())
    pf.models.FittedFlow.from_dict(entries[0]).save(folder)
    known = {checksum(entry) for entry in entries}
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=write, args=(folder, entry, seconds)) for entry in entries]
    for writer in writers:
        writer.start()
    counts: dict[str, int] = dict.fromkeys(("reads", "errors", "mixed", "changes"), 0)
    last = None
    while any(writer.is_alive() for writer in writers):
        counts["reads"] += 1
        try:
            found = checksum(pf.models.FittedFlow.load(folder).to_dict())
        except (OSError, ValueError) as error:
            counts["errors"] += 1
            print(error)
            continue
        counts["changes"] += found != last
        counts["mixed"] += found not in known
        last = found
    counts["left in the end"] = len(list(folder.iterdir())) - 1
    counts["writers that failed"] = sum(writer.exitcode != 0 for writer in writers)
    return pd.Series(counts)


def measure_fuzz(folder: Path, *, minutes: float, seed: int) -> pd.DataFrame:
    """Damage what every loader reads, each for its share of the time."""
    found = {}
    for name in LOADERS:
        place = folder / name.replace(" ", "_")
        found[name] = fuzz(name, place, seconds=60 * minutes / len(LOADERS), seed=seed)
        print(name, dict(found[name]), flush=True)
    return pd.DataFrame(found).T.fillna(0).astype(int)


def measure(options: argparse.Namespace, folder: Path) -> bool:
    """Print the tables; whether all is as it should be."""
    good = True
    for half in options.half if options.kills else ():
        kills = measure_kills(half, folder / half, n_kills=options.kills, seed=options.seed)
        print(f"\nKills of a fit of {'a flow' if half == 'flow' else half}\n\n{markdown(kills.round(2))}\n")
        good &= bool(kills[["same result", "cells intact"]].all(axis=None)) and not kills["left in the end"].any()
    if options.writer_seconds:
        writers = measure_writers(folder / "store", seconds=options.writer_seconds)
        print(f"\nTwo writers and a reader of one store\n\n{markdown(writers.to_frame('number'))}\n")
        good &= not writers[["errors", "mixed", "left in the end", "writers that failed"]].any()
    if options.fuzz_minutes:
        table = measure_fuzz(folder, minutes=options.fuzz_minutes, seed=options.seed)
        print(f"\nDamaged files and entries\n\n{markdown(table)}\n")
        good &= not any(str(column).startswith("unclear") for column in table)
    return good


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--half", nargs="+", choices=HALVES, default=list(HALVES))
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--writer-seconds", type=float, default=10)
    parser.add_argument("--fuzz-minutes", type=float, default=5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    one_thread()
    with TemporaryDirectory() as folder:
        good = measure(options, Path(folder))
    print("All as it should be." if good else "NOT as it should be.")
    if not good:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
