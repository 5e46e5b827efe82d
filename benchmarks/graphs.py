"""How well known graphs are found in cells without a time, and left-out perturbations foretold.

`python benchmarks/graphs.py` reads the folder named in PERTURBFLOW_DATA: networks of BEELINE, CARDAMOM and D-SPIN. Simulated
screens are always there; `--quick` takes these alone.
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd
from _common import markdown

import perturbflow as pf

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

BEELINE = {
    "HSC 0": "curated/HSC_2000_0",
    "HSC 1": "curated/HSC_2000_1",
    "dyn-LI": "synthetic/dyn-LI_2000_0",
    "dyn-BF": "synthetic/dyn-BF_2000_0",
}
CARDAMOM = ("FN4", "FN8", "Trees5", "Trees20")
N_TREES = 100


@dataclass
class Network:
    """Cells and their true network (d, d), row regulates column; `group` names what replicates have in common."""

    name: str
    group: str
    cells: ad.AnnData
    truth: NDArray[np.bool_]
    regulators: NDArray[np.bool_]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="simulated screens alone")
    parser.add_argument("--out", type=Path, default=None, help="folder for the tables")
    options = parser.parse_args()
    folder = Path(os.environ["PERTURBFLOW_DATA"]) if "PERTURBFLOW_DATA" in os.environ and not options.quick else None
    rows = []
    for network in networks(folder):
        for name, method in METHODS.items():
            start = time.process_time()
            score = method(network)
            seconds = time.process_time() - start
            rows.append({"network": network.group, "method": name, **judged(score, network), "CPU s": seconds})
        print(pd.DataFrame(rows[-len(METHODS) :]).round(2).to_string(index=False), flush=True)
    table = pd.DataFrame(rows)
    tables = {"graphs": table}
    ratio = table.pivot_table(index="network", columns="method", values="AUPRC ratio", sort=False)[list(METHODS)]
    ratio.loc["mean rank"] = ratio.rank(axis=1, ascending=False).mean()
    print(markdown(ratio.round(2)))
    if folder is not None:
        cells = dspin(folder)
        tables["curve"] = curve(cells)
        tables["left_out"] = left_out(cells)
        print(markdown(tables["curve"].round(3).set_index(tables["curve"].columns[0])))
        print(tables["left_out"].drop(columns="perturbation").mean().round(3).to_string())
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        for name, each in tables.items():
            each.to_csv(options.out / f"{name}.csv", index=False)


def networks(folder: Path | None) -> Iterator[Network]:
    """Yield every network; those of the folder first."""
    if folder is not None:
        for name, path in BEELINE.items():
            yield beeline(folder / "beeline" / path, name)
        for name in CARDAMOM:
            for replicate in (1, 2, 3):
                yield cardamom(folder / "cardamom" / name, name, replicate)
        yield dspin(folder)
    for seed in (0, 1):
        yield simulated(seed)


def beeline(folder: Path, name: str) -> Network:
    """Read cells along pseudotime, which is not used."""
    values = pd.read_csv(folder / "ExpressionData.csv.gz", index_col=0).T
    edges = pd.read_csv(folder / "refNetwork.csv")
    return _network(name, ad.AnnData(values), edges)


def cardamom(folder: Path, name: str, replicate: int) -> Network:
    """Read counts at ten times, which are not used; as log1p."""
    counts = np.loadtxt(folder / f"Data/data_{replicate}.txt")[2:, 1:].T
    truth = np.load(folder / f"True/inter_{replicate}.npy")[1:, 1:] != 0
    return Network(f"{name} {replicate}", name, ad.AnnData(np.log1p(counts)), truth, np.ones(len(truth), dtype=bool))


def dspin(folder: Path) -> Network:
    """Read perturbed cells; knock-downs and over-expressions are kinds of their own."""
    cells = ad.read_h5ad(folder / "dspin_hsc_perturb/hsc_sim_perturb.h5ad")
    parts = cells.obs["perturbation"].astype(str).str.split("_")
    cells.obs["gene"], cells.obs["kind"] = parts.str[0], parts.str[-1]
    edges = pd.read_csv(folder / "dspin_hsc_perturb/refNetwork.csv")[["Gene1", "Gene2"]]
    return _network("D-SPIN", cells, edges)


def simulated(seed: int) -> Network:
    """Simulate a screen of 60 genes under 12 single perturbations."""
    cells = pf.datasets.simulated_perturb_seq(
        3000, 60, n_perturbations=12, n_combinations=0, n_regulators=20, cell_types=1, seed=seed
    )
    cells.obs["gene"], cells.obs["kind"] = cells.obs["perturbation"].astype(str), "knock"
    truth = cells.varp["true_network"].toarray() != 0
    return Network(f"screen {seed}", "simulated screen", cells, truth, cells.var["is_regulator"].to_numpy())


def _network(name: str, cells: ad.AnnData, edges: pd.DataFrame) -> Network:
    truth = np.zeros((cells.n_vars, cells.n_vars), dtype=bool)
    truth[tuple(cells.var_names.get_indexer(edges[end]) for end in ("Gene1", "Gene2"))] = True
    return Network(name, name, cells, truth, np.ones(cells.n_vars, dtype=bool))


def judged(score: NDArray, network: Network) -> dict[str, float]:
    """Average precision and early precision over chance, and AUROC, without self edges; ties share their precision."""
    pairs = network.regulators[:, None] & ~np.eye(len(score), dtype=bool)
    value, is_true = np.abs(score)[pairs], network.truth[pairs]
    levels, place = np.unique(-value, return_inverse=True)
    size, hits = np.bincount(place), np.bincount(place, weights=is_true)
    found, asked = np.cumsum(hits), np.cumsum(size)
    chance, n_true = is_true.mean(), is_true.sum()
    before = np.concatenate([[0.0], found[:-1]])
    early = np.interp(n_true, np.concatenate([[0], asked]), np.concatenate([[0.0], found])) / n_true
    wrong = np.cumsum(size - hits)
    above = (hits * (wrong - (size - hits) / 2)).sum() / (n_true * max(wrong[-1], 1))
    precision = float(((found - before) / n_true * found / asked).sum())
    return {"AUPRC ratio": precision / chance, "early ratio": early / chance, "AUROC": 1 - above, "AUPRC": precision}


def default(network: Network) -> NDArray:
    """Evidence of `tl.fit_dynamics` as it is."""
    return _evidence(network, perturbed=True)


def covariation(network: Network) -> NDArray:
    """The part of the default that reads no perturbation: all cells are one condition."""
    return _evidence(network, perturbed=False)


def _evidence(network: Network, *, perturbed: bool) -> NDArray:
    cells = ad.AnnData(network.cells.X, obs=network.cells.obs, var=network.cells.var[[]]).copy()
    keys = {"perturbation_key": "gene", "perturbation_type_key": "kind"} if perturbed and "gene" in cells.obs else {}
    pf.pp.setup_dynamics(cells, regulators=cells.var_names[network.regulators].tolist(), **keys)
    pf.tl.fit_dynamics(cells)
    fit = cells.uns["dynamics"]
    evidence = np.zeros(network.truth.shape)
    evidence[fit["standing"]["regulators"]] = fit["evidence"]
    return evidence


def mean_difference(network: Network) -> NDArray:
    """Total effects in standard deviations; correlations where nothing was perturbed."""
    values = levels(network)
    if "gene" not in network.cells.obs:
        return pf.baselines.correlation_graph(values)
    labels, kinds = (network.cells.obs[key].astype(str).to_numpy() for key in ("gene", "kind"))
    control, score = labels == "control", np.zeros(network.truth.shape)
    for gene, kind in sorted({*zip(labels[~control], kinds[~control], strict=True)}):
        place = network.cells.var_names.get_loc(gene)
        change = values[(labels == gene) & (kinds == kind)].mean(axis=0) - values[control].mean(axis=0)
        score[place] = np.maximum(score[place], np.abs(change) / values.std(axis=0))
    np.fill_diagonal(score, 0.0)
    return score


def trees(network: Network) -> NDArray:
    """Importances in extremely randomised trees of every gene on the regulators, as in GENIE3."""
    from sklearn.ensemble import ExtraTreesRegressor

    values, score = levels(network), np.zeros(network.truth.shape)
    for target in range(values.shape[1]):
        inputs = np.flatnonzero(network.regulators & (np.arange(values.shape[1]) != target))
        forest = ExtraTreesRegressor(N_TREES, max_features="sqrt", min_samples_leaf=5, random_state=0)
        score[inputs, target] = forest.fit(values[:, inputs], values[:, target]).feature_importances_
    return score


def levels(network: Network) -> NDArray:
    """All cells as an array."""
    x = network.cells.X
    return np.asarray(x if isinstance(x, np.ndarray) else x.toarray(), dtype=float)


METHODS: dict[str, Callable[[Network], NDArray]] = {
    "default": default,
    "covariation only": covariation,
    "correlation": lambda network: pf.baselines.correlation_graph(levels(network)),
    "partial correlation": lambda network: pf.baselines.partial_correlation_graph(levels(network)),
    "mean difference": mean_difference,
    "extra trees": trees,
}


def curve(network: Network) -> pd.DataFrame:
    """AUPRC with ever more perturbations, mean over five orders of them."""
    labels = network.cells.obs["perturbation"].astype(str)
    known = sorted({*labels} - {"control"})
    rows = []
    for number in (0, 4, 8, len(known)):
        scores = []
        for seed in range(5 if 0 < number < len(known) else 1):
            chosen = [*np.random.default_rng(seed).permutation(known)[:number], "control"]
            part = Network("", "", network.cells[labels.isin(chosen)].copy(), network.truth, network.regulators)
            scores.append(judged(default(part), part)["AUPRC"])
        rows.append({"perturbations": number, "AUPRC": np.mean(scores)})
    return pd.DataFrame(rows)


def left_out(network: Network) -> pd.DataFrame:
    """Errors of shifts, in s.d. of controls: gene by gene left out, and all in the fit, over the genes not held."""
    cells, values = network.cells, levels(network)
    labels = cells.obs["perturbation"].astype(str).to_numpy()
    control = values[labels == "control"]
    shifts = {
        name: (values[labels == name].mean(axis=0) - control.mean(axis=0)) / control.std(axis=0)
        for name in sorted({*labels} - {"control"})
    }
    rows = []
    for name, shift in shifts.items():
        gene = name.split("_")[0]
        place = cells.var_names.get_loc(gene)
        free = np.arange(cells.n_vars) != place
        level = {gene: float(values[labels == name, place].mean())}
        others = np.mean([each for other, each in shifts.items() if other.split("_")[0] != gene], axis=0)
        found = {}
        for how, part in (("left out", cells[cells.obs["gene"] != gene].copy()), ("in the fit", cells.copy())):
            pf.pp.setup_dynamics(part, perturbation_key="gene", perturbation_type_key="kind")
            pf.tl.fit_dynamics(part)
            pf.tl.simulate_knockout(part, level)
            response = part.uns["knockout"]
            found[how] = (response["perturbed"] - response["unperturbed"]) / control.std(axis=0)
        errors = {**found, "mean of the others": others, "no change": np.zeros(len(shift))}
        row = {f"RMSE, {how}": np.sqrt(((each - shift)[free] ** 2).mean()) for how, each in errors.items()}
        pearson = np.corrcoef(found["left out"][free], shift[free])[0, 1]
        rows.append({"perturbation": name, **row, "Pearson, left out": pearson})
    return pd.DataFrame(rows)


if __name__ == "__main__":
    main()
