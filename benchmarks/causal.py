"""CausalBench's two questions in simulated screens: do predicted edges move their targets, and do left-out pairs not.

`python benchmarks/causal.py` shows methods the perturbations of half of the perturbed regulators; the others are held out, and
judge the edges from their genes.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from _common import markdown
from _graph_methods import METHODS
from _graph_networks import Network, levels, simulated
from scipy.stats import mannwhitneyu, wasserstein_distance

if TYPE_CHECKING:
    from numpy.typing import NDArray

SLOW = "boosting"
SIGNIFICANT = 0.05
N_SCREENS = 10


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one screen")
    parser.add_argument("--edges", type=int, default=60, help="edges that are predicted from held-out parents")
    parser.add_argument("--out", type=Path, default=None, help="folder for the table")
    options = parser.parse_args()
    rows = []
    for seed in range(1 if options.quick else N_SCREENS):
        screen = simulated(seed)
        hidden = held_out_parents(screen, np.random.default_rng(seed))
        shown = visible(screen, hidden)
        distance, chance = effects(screen, hidden)
        scores = {name: method(shown) for name, method in METHODS.items() if name != SLOW}
        scores["random"] = np.random.default_rng(seed).random(screen.truth.shape)
        for name, score in scores.items():
            rows.append({"method": name} | judged(score, screen, hidden, distance, chance, n_edges=options.edges))
    table = pd.DataFrame(rows)
    by_method = table.groupby("method", sort=False)
    means = by_method.mean().assign(**{"standard error": by_method["true edges"].sem()})
    print(markdown(means.round(3)))
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        table.to_csv(options.out / "causal.csv", index=False)


def held_out_parents(screen: Network, rng: np.random.Generator) -> list[str]:
    """Return half of the perturbed genes."""
    genes = sorted({*screen.cells.obs["gene"]} - {"control"})
    return sorted(rng.choice(genes, len(genes) // 2, replace=False).tolist())


def visible(screen: Network, hidden: list[str]) -> Network:
    """Return the screen without the cells in which hidden genes were perturbed."""
    return replace(screen, cells=screen.cells[~screen.cells.obs["gene"].isin(hidden)].copy())


def effects(screen: Network, hidden: list[str]) -> tuple[NDArray, NDArray]:
    """Wasserstein distance of every gene to control cells under every hidden perturbation, and the p-value of a rank test."""
    values, labels = levels(screen), screen.cells.obs["gene"].to_numpy()
    control = values[labels == "control"]
    distance, chance = np.zeros((len(hidden), values.shape[1])), np.ones((len(hidden), values.shape[1]))
    for row, gene in enumerate(hidden):
        cells = values[labels == gene]
        chance[row] = mannwhitneyu(cells, control, axis=0).pvalue
        for child in range(values.shape[1]):
            distance[row, child] = wasserstein_distance(cells[:, child], control[:, child])
    return distance, chance


def judged(
    score: NDArray, screen: Network, hidden: list[str], distance: NDArray, chance: NDArray, *, n_edges: int
) -> dict[str, float]:
    """Mean distance over predicted edges, share of significant pairs among those left out, and share of true edges."""
    places = screen.cells.var_names.get_indexer(hidden)
    other = places[:, None] != np.arange(score.shape[1])
    value = np.where(other, np.abs(score[places]), -1.0)
    chosen = np.zeros(value.size, dtype=bool)
    chosen[np.argsort(-value, axis=None, kind="stable")[:n_edges]] = True
    chosen = chosen.reshape(value.shape)
    return {
        "mean Wasserstein": distance[chosen].mean(),
        "false omission rate": (chance[other & ~chosen] < SIGNIFICANT).mean(),
        "true edges": (screen.truth[places] != 0)[chosen].mean(),
    }


if __name__ == "__main__":
    main()
