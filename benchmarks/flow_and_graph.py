"""Whether dynamics help the flow, and the flow the graph, where perturbations of a simulated screen are left out.

Features of perturbations from dynamics at rest (`pf.pp.perturbation_features(source="dynamics")`): error of the flow's mean
changes of left-out perturbations without features, with these, and with noisy projections of the true effects, which say
what features could do at best. Then the graph: how well true edges are ranked from the training cells alone, with cells that
the flow predicts for the left-out perturbations, as many as its stated uncertainty allows, and with the measured ones.

    python benchmarks/flow_and_graph.py [--seeds 3] [--quick] [--out FOLDER]
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import anndata
import numpy as np
import pandas as pd
from _common import markdown, one_thread

import perturbflow as pf

if TYPE_CHECKING:
    from anndata import AnnData
CONTROL = "control"
FEWEST_CELLS = 10  # that make a condition of a graph
NETWORKS = {"regulators of their own": None, "four pathways": 4}
FEATURES = ("none", "dynamics", "true effects, noisy")


def screen(n_pathways: int | None, seed: int, *, quick: bool) -> tuple[AnnData, list[str]]:
    """Return a registered screen of knock-outs, and the perturbations that are left out, which its split calls test."""
    size = (500, 30) if quick else (3000, 100)
    n_perturbations, n_left_out = (6, 2) if quick else (24, 6)
    cells = pf.datasets.simulated_perturb_seq(
        *size,
        n_perturbations=n_perturbations,
        n_combinations=0,
        n_pathways=n_pathways,
        cell_types=1,
        modes=["knockout"],
        effect_strength=3.0,
        control_fraction=0.15,
        seed=seed,
    )
    names = sorted(cells.uns["simulation"]["perturbation_modes"])
    left_out = sorted(map(str, np.random.default_rng(seed).choice(names, n_left_out, replace=False)))
    cells.obs["split"] = np.where(cells.obs["perturbation"].isin(left_out), "test", "train")
    pf.pp.setup_perturbation(cells, perturbation_key="perturbation", control=CONTROL)
    pf.pp.setup_dynamics(cells, regulators="is_regulator")
    return cells, left_out


def fitted(cells: AnnData, features: str) -> AnnData:
    """Return a copy with a flow from features of some kind; the prior alone, as the network only learns what it lacks."""
    cells = cells.copy()
    if features == "dynamics":
        pf.pp.perturbation_features(cells, source="dynamics")
    elif features != "none":
        pf.pp.perturbation_features(cells, cells.uns["perturbation_embedding"], components=[])
    pf.tl.fit_flow(cells, preset="prior", plan_kwargs={"calibrate": False}, progress_bar=False)
    return cells


def predicted_cells(cells: AnnData, left_out: list[str]) -> AnnData:
    """Return cells of the left-out perturbations."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="No training cells of")  # it says when features explain nothing
        return pf.tl.predict_perturbation(cells, left_out, as_anndata=True)


def means(cells: AnnData) -> pd.DataFrame:
    """Mean of every gene in every condition."""
    return cells.to_df().groupby(cells.obs["perturbation"].astype(str).to_numpy()).mean()


def errors(measured: AnnData, predicted: AnnData, left_out: list[str]) -> dict[str, float]:
    """Root mean squared error of changes over genes that were not held, their cosine, and the error of no change."""
    found, truth = means(predicted), means(measured)
    scores = []
    for name in left_out:
        free = truth.columns != name
        change = (truth.loc[name] - truth.loc[CONTROL]).to_numpy()[free]
        guess = (found.loc[name] - truth.loc[CONTROL]).to_numpy()[free]
        cosine = guess @ change / max(float(np.linalg.norm(guess) * np.linalg.norm(change)), 1e-12)
        scores.append((np.sqrt(((guess - change) ** 2).mean()), cosine, np.sqrt((change**2).mean())))
    error, cosine, none = np.mean(scores, axis=0)
    return {"RMSE": float(error), "cosine": float(cosine), "RMSE of no change": float(none)}


def as_evidence(predicted: AnnData, left_out: list[str]) -> AnnData:
    """Return so many predicted cells of each perturbation that sampling is as uncertain as the flow says its means are."""
    rng, parts = np.random.default_rng(0), []
    for name in left_out:
        mine = predicted[(predicted.obs["perturbation"] == name).to_numpy()]
        levels, stated = mine.to_df(), predicted.varm["predicted_sd"][name].to_numpy()
        levels[name] = 0.0  # the flow does not know which gene a perturbation without cells holds
        wanted = levels.var().mean() / max(float((stated**2).mean()), 1e-12)
        n_cells = int(np.clip(round(wanted), FEWEST_CELLS, mine.n_obs))
        rows = np.sort(rng.choice(mine.n_obs, n_cells, replace=False))
        obs = pd.DataFrame({"perturbation": name}, index=[f"{name}_{row}" for row in rows])
        parts.append(
            anndata.AnnData(levels.to_numpy(np.float32)[rows], obs=obs, var=pd.DataFrame(index=levels.columns))
        )
    return anndata.concat(parts)


def with_cells(training: AnnData, further: AnnData) -> AnnData:
    """Return both together, with the truth."""
    both = anndata.concat([training, further], join="inner")
    both.var, both.varp["true_network"] = training.var.copy(), training.varp["true_network"]
    return both


def graph_ratio(cells: AnnData) -> float:
    """AUPRC over chance of the edges of all regulators."""
    cells = anndata.AnnData(cells.X, obs=cells.obs[["perturbation"]], var=cells.var, varp=dict(cells.varp))
    pf.pp.setup_dynamics(cells, perturbation_key="perturbation", control=CONTROL, regulators="is_regulator")
    pf.tl.fit_dynamics(cells, progress_bar=False)
    pf.tl.infer_graph(cells, n_bootstraps=0, progress_bar=False)
    truth, score = cells.varp["true_network"], abs(cells.varp["dynamics_graph_evidence"])
    candidates = np.repeat(cells.var["is_regulator"].to_numpy()[:, None], cells.n_vars, axis=1)
    precision = pf.metrics.network_scores(score, truth, candidates=candidates)["average_precision"]
    return precision / pf.metrics.edge_density(truth, candidates=candidates)


def judged(cells: AnnData, left_out: list[str]) -> tuple[list[dict], dict[str, float]]:
    """Errors of the flow by features, and scores of the graph by evidence."""
    is_test = cells.obs["split"].to_numpy() == "test"
    training, rows, ratios = cells[~is_test], [], {"training cells": graph_ratio(cells[~is_test])}
    for features in FEATURES:
        predicted = predicted_cells(fitted(cells, features), left_out)
        rows.append({"features": features} | errors(cells, predicted, left_out))
        if features != FEATURES[-1]:
            together = with_cells(training, as_evidence(predicted, left_out))
            ratios[f"and predicted cells, features: {features}"] = graph_ratio(together)
    return rows, ratios | {"and the measured cells": graph_ratio(cells)}


def main() -> None:
    """Measure, save and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="screens of each kind")
    parser.add_argument("--quick", action="store_true", help="one small screen")
    parser.add_argument("--out", type=Path, default=None, help="folder for the tables")
    options = parser.parse_args()
    one_thread()
    of_flow, of_graph = [], []
    for network, n_pathways in [*NETWORKS.items()][: 1 if options.quick else None]:
        for seed in range(1 if options.quick else options.seeds):
            rows, ratios = judged(*screen(n_pathways, seed, quick=options.quick))
            about = {"network": network, "seed": seed}
            of_flow += [about | row for row in rows]
            of_graph.append(about | ratios)
            print(about, rows, ratios, flush=True)
    tables = {"flow_by_features": pd.DataFrame(of_flow), "graph_by_evidence": pd.DataFrame(of_graph)}
    print("\nLeft-out perturbations: error of the flow's mean changes\n")
    by = ["network", "features"]
    print(markdown(tables["flow_by_features"].drop(columns="seed").groupby(by, sort=False).mean().round(4)))
    print("\nThe graph: AUPRC over chance\n")
    print(markdown(tables["graph_by_evidence"].drop(columns="seed").groupby("network", sort=False).mean().round(2).T))
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        for name, table in tables.items():
            table.to_csv(options.out / f"{name}.csv", index=False)


if __name__ == "__main__":
    main()
