"""Whether the confidence of edges in time courses can be believed: how many are true, and what is left of it without time.

Small random Hill networks, seen in a few noisy wild-type runs: what is hardest to be sure about. In others the times of every run
are shuffled: then nothing drives anything. The rule of confidence was chosen on the seeds 1 to 4.

    python benchmarks/dynamics_confidence.py [--seeds 7 8 9 10] [--shuffled 1 2 3] [--quick] [--out FOLDER]
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from _common import markdown, one_thread

import perturbflow as pf

if TYPE_CHECKING:
    from anndata import AnnData

EFFORT, QUICK_EFFORT = 0.1, 0.01
LEVELS = (0.9, 0.7, 0.5)
N_TIMES, DURATION = 25, 6.0  # in mean lifetimes


def courses(seed: int) -> AnnData:
    """Return eight runs of a network of eight genes."""
    return pf.datasets.hill_network(
        n_genes=8, n_trajectories=8, n_times=N_TIMES, step=DURATION / N_TIMES, noise=0.05, seed=seed
    )


def without_time(adata: AnnData, seed: int) -> AnnData:
    """Return the cells of every run in a random order."""
    rng, shuffled = np.random.default_rng(seed), adata.copy()
    for rows in adata.obs.groupby("trajectory", observed=True).indices.values():
        shuffled.X[rows] = adata.X[rng.permutation(rows)]
    return shuffled


def confident(adata: AnnData, seed: int, *, effort: float) -> dict[str, Any]:
    """Fit the default, and count confident edges and true ones among them; none where no gene is seen to change."""
    started = time.process_time()
    edges = pd.DataFrame({"confidence": [], "is_true": []})
    pf.pp.setup_dynamics(adata, time_key="time", trajectory_key="trajectory")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of genes at rest and graphs without edges, which shuffled runs have
        try:
            pf.tl.fit_dynamics(adata, effort=effort, progress_bar=False)
        except ValueError as error:
            if "change" not in str(error):
                raise
        else:
            pf.tl.infer_graph(adata, seed=seed, progress_bar=False)
            table = adata.uns["dynamics_graph"]["edges"]
            places = [adata.var_names.get_indexer(table[end]) for end in ("source", "target")]
            edges = table.assign(is_true=adata.varp["true_graph"].toarray()[tuple(places)] != 0)
    row: dict[str, Any] = {"seed": seed}
    for least in LEVELS:
        sure = edges[edges["confidence"] >= least - 1e-9]
        row |= {f"edges at {least}": len(sure), f"true at {least}": int(sure["is_true"].sum())}
    return row | {"true edges": int((adata.varp["true_graph"] != 0).sum()), "seconds": time.process_time() - started}


def main() -> None:
    """Measure, save and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="*", default=[7, 8, 9, 10], help="networks")
    parser.add_argument(
        "--shuffled", type=int, nargs="*", default=[1, 2, 3], help="networks that are seen without time"
    )
    parser.add_argument("--quick", action="store_true", help="one network and few steps")
    parser.add_argument("--out", type=Path, default=None, help="folder for the table")
    options = parser.parse_args()
    one_thread()
    effort, rows = QUICK_EFFORT if options.quick else EFFORT, []
    for kind, seeds in {"as they are": options.seeds, "times shuffled": options.shuffled}.items():
        for seed in seeds[:1] if options.quick else seeds:
            adata = courses(seed) if kind == "as they are" else without_time(courses(seed), seed)
            rows.append({"runs": kind} | confident(adata, seed, effort=effort))
            print(rows[-1], flush=True)
    table = pd.DataFrame(rows)
    total = table.drop(columns="seed").groupby("runs", sort=False).sum()
    print("\nConfident edges, and how many are true, of all networks\n")
    print(markdown(total.round(0).astype(int).assign(networks=table["runs"].value_counts())))
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        table.to_csv(options.out / "dynamics_confidence.csv", index=False)


if __name__ == "__main__":
    main()
