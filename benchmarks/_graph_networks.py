"""Cells of known networks, read or simulated, and what ranks of edges are judged by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd

import perturbflow as pf

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

BEELINE = {
    "HSC 0": "curated/HSC_2000_0",
    "HSC 1": "curated/HSC_2000_1",
    "dyn-LI": "synthetic/dyn-LI_2000_0",
    "dyn-BF": "synthetic/dyn-BF_2000_0",
}
CARDAMOM = ("FN4", "FN8", "Trees5", "Trees20")


@dataclass
class Network:
    """Cells and their true network (d, d), row regulates column: signs, or 1 where they are not known.

    `group` names what replicates have in common.
    """

    name: str
    group: str
    cells: ad.AnnData
    truth: NDArray
    regulators: NDArray[np.bool_]


def networks(folder: Path | None, *, large: bool) -> Iterator[Network]:
    """Yield every network; those of the folder first, hundreds of genes only if asked."""
    if folder is not None:
        for name, path in BEELINE.items():
            yield beeline(folder / "beeline" / path, name)
        for name in CARDAMOM:
            for replicate in (1, 2, 3):
                yield cardamom(folder / "cardamom" / name, name, replicate)
        yield dspin(folder)
        if large:
            yield sim350(folder / "phoenix")
            yield yeast(folder / "phoenix")
    for seed in (0, 1):
        yield simulated(seed)


def beeline(folder: Path, name: str) -> Network:
    """Read cells along pseudotime, which is not used."""
    values = pd.read_csv(folder / "ExpressionData.csv.gz", index_col=0).T
    edges = pd.read_csv(folder / "refNetwork.csv")
    return _network(name, ad.AnnData(values), edges)


def cardamom(folder: Path, name: str, replicate: int) -> Network:
    """Read counts, as log1p, at ten times, which only `time_stamped` uses. The truth has no signs."""
    table = np.loadtxt(folder / f"Data/data_{replicate}.txt")
    cells = ad.AnnData(np.log1p(table[2:, 1:].T))
    cells.obs["time"] = table[0, 1:]
    truth = (np.load(folder / f"True/inter_{replicate}.npy")[1:, 1:] != 0).astype(float)
    return Network(f"{name} {replicate}", name, cells, truth, np.ones(len(truth), dtype=bool))


def dspin(folder: Path) -> Network:
    """Read perturbed cells; knock-downs and over-expressions are kinds of their own."""
    cells = ad.read_h5ad(folder / "dspin_hsc_perturb/hsc_sim_perturb.h5ad")
    parts = cells.obs["perturbation"].astype(str).str.split("_")
    cells.obs["gene"], cells.obs["kind"] = parts.str[0], parts.str[-1]
    edges = pd.read_csv(folder / "dspin_hsc_perturb/refNetwork.csv")[["Gene1", "Gene2", "Type"]]
    return _network("D-SPIN", cells, edges)


def sim350(folder: Path) -> Network:
    """Read all points of trajectories of 350 genes, without their times."""
    stored = np.load(folder / "sim350_trajectories.npz")
    source, target, sign = stored["edges_from_to_sign"][stored["edge_in_equations"]].T
    values = stored["trajectories"].reshape(-1, stored["trajectories"].shape[-1])
    truth = np.zeros((values.shape[1], values.shape[1]))
    truth[source, target] = np.sign(sign)
    return Network("SIM350", "SIM350", ad.AnnData(values), truth, (truth != 0).any(axis=1))


def yeast(folder: Path) -> Network:
    """Read two courses of 500 genes, without their times; the network is of binding motifs and no truth."""
    names = ("pramila_500genes_1sample_24T", "pramila_500genes_1VALsample_24T")
    tables = [pd.read_csv(folder / f"{name}.csv.gz", header=None, skiprows=1).to_numpy() for name in names]
    values = np.vstack([table[:-1].T for table in tables])
    prior = pd.read_csv(folder / "edge_prior_matrix_pramila_500.csv.gz", header=None).to_numpy()
    return Network("yeast", "yeast (motifs)", ad.AnnData(values), np.sign(prior), (prior != 0).any(axis=1))


def simulated(seed: int) -> Network:
    """Simulate a screen of 60 genes under 12 single perturbations."""
    cells = pf.datasets.simulated_perturb_seq(
        3000, 60, n_perturbations=12, n_combinations=0, n_regulators=20, cell_types=1, seed=seed
    )
    cells.obs["gene"], cells.obs["kind"] = cells.obs["perturbation"].astype(str), "knock"
    truth = np.sign(cells.varp["true_network"].toarray())
    return Network(f"screen {seed}", "simulated screen", cells, truth, cells.var["is_regulator"].to_numpy())


def _network(name: str, cells: ad.AnnData, edges: pd.DataFrame) -> Network:
    truth = np.zeros((cells.n_vars, cells.n_vars))
    places = tuple(cells.var_names.get_indexer(edges[end]) for end in ("Gene1", "Gene2"))
    truth[places] = np.where(edges["Type"].astype(str).str.strip() == "-", -1.0, 1.0)
    return Network(name, name, cells, truth, np.ones(cells.n_vars, dtype=bool))


def judged(score: NDArray, network: Network) -> dict[str, float]:
    """Average precision, the same of signed edges, and early precision over chance, and AUROC, without self edges.

    Pairs of the same score share their precision. A signed edge is found if its sign is right, too.
    """
    pairs = network.regulators[:, None] & ~np.eye(len(score), dtype=bool)
    value, truth = score[pairs], network.truth[pairs]
    is_true = truth != 0
    found, asked = _counts(np.abs(value), is_true)
    chance, n_true = is_true.mean(), is_true.sum()
    early = np.interp(n_true, np.concatenate([[0], asked]), np.concatenate([[0.0], found])) / n_true
    hits, size = np.diff(found, prepend=0), np.diff(asked, prepend=0)
    wrong = np.cumsum(size - hits)
    above = (hits * (wrong - (size - hits) / 2)).sum() / (n_true * max(wrong[-1], 1))
    precision = float((hits / n_true * found / asked).sum())
    scores = {"AUPRC ratio": precision / chance, "early ratio": early / chance, "AUROC": 1 - above, "AUPRC": precision}
    if (truth < 0).any() and (value < 0).any():
        right, asked = _counts(np.abs(value), is_true & (np.sign(value) == truth))
        gained = np.diff(right, prepend=0) / n_true
        scores["signed AUPRC ratio"] = float((gained * right / asked).sum()) / (chance / 2)
    return scores


def _counts(value: NDArray, is_true: NDArray) -> tuple[NDArray, NDArray]:
    """True and all pairs up to every level of the score, from the highest."""
    _, place = np.unique(-value, return_inverse=True)
    return np.cumsum(np.bincount(place, weights=is_true)), np.cumsum(np.bincount(place))


def levels(network: Network) -> NDArray:
    """All cells as an array."""
    x = network.cells.X
    return np.asarray(x if isinstance(x, np.ndarray) else x.toarray(), dtype=float)
