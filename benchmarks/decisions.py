"""Decisions from a fit, where the right one is known: which conditions to measure next, and whether intervals hold.

"next": simulated screens in which conditions have 0, 5 or 40 cells. Some get 40 more: those that the fit chooses, those with
the fewest cells, or random ones. How much of the squared error of all effects is gone after the next fit?
"intervals": how often intervals of coefficients of interactions and of half-maximal doses hold the true ones.
"responses": what the responses of real screens consist of.

    python benchmarks/decisions.py [--parts next intervals responses] [--seeds 6] [--quick] [--output FOLDER]
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from _common import SETS, markdown, registered

import perturbflow as pf
from perturbflow.flow import mean_expression
from perturbflow.predict import HillPosterior, Pair, hill, interaction_fit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData

Condition = tuple[str, str]
N_CONTEXTS, N_CHOSEN, N_MORE, LEVEL = 3, 6, 40, 0.9


def fitted(screen: AnnData, n_cells: Mapping[Condition, int]) -> AnnData:
    """The screen with the prior of so many cells of every condition, and of all controls."""
    adata = screen.copy()
    pf.pp.setup_perturbation(adata, perturbation_key="perturbation", control="control", covariate_keys=["context"])
    rank = adata.obs.groupby(["perturbation", "context"], observed=True).cumcount().to_numpy()
    names = zip(adata.obs["perturbation"].astype(str), adata.obs["context"].astype(str), strict=True)
    adata.obs["split"] = np.where(rank < [n_cells.get(name, np.inf) for name in names], "train", "test")
    pf.tl.fit_flow(adata, preset="prior", plan_kwargs={"calibrate": False}, progress_bar=False)
    return adata


def squared_error(adata: AnnData) -> float:
    """Of the predicted effects on mean expression, summed over all conditions and genes."""
    flow = pf.models.FittedFlow.from_dict(adata.uns["flow"])
    prior, expected, total = flow.flow.prior, adata.uns["expected"]["all"], 0.0
    nothing = np.zeros(len(prior.trained), dtype=np.float32)
    for code, place in enumerate(dict(flow.vocabulary.covariates)["context"]):
        context = prior.context(np.array([code]))
        control, _ = mean_expression(prior, nothing, context)
        for number, name in enumerate(flow.vocabulary.components):
            dose = nothing.copy()
            dose[number] = 1
            true = (expected.loc[f"{place}|{name}"] - expected.loc[f"{place}|control"]).to_numpy()
            total += float(np.square(mean_expression(prior, dose, context)[0] - control - true).sum())
    return total


def next_measurements(seed: int, *, n_perturbations: int, n_random: int) -> dict[str, float]:
    """Shares of the squared error that more cells of some conditions take away, by who chose them."""
    rng = np.random.default_rng(seed)
    screen = pf.datasets.simulated_contexts(
        N_CONTEXTS, n_perturbations, n_genes=30, n_cells=80, conserved=0.5, interaction=0.3, seed=seed
    )
    names = [(f"P{p:03d}", f"context_{c}") for p in range(n_perturbations) for c in range(N_CONTEXTS)]
    n_cells = {name: int(rng.choice([0, 5, 40])) for name in names}
    before = fitted(screen, n_cells)
    start = squared_error(before)

    def gone(some: Sequence[Condition]) -> float:
        more = n_cells | {name: n_cells[name] + N_MORE for name in some}
        return 1 - squared_error(fitted(screen, more)) / start

    pf.tl.next_perturbations(before, n=N_CHOSEN, n_cells=N_MORE)
    table = before.uns["next_perturbations"]
    random = [gone([names[k] for k in rng.choice(len(names), N_CHOSEN, replace=False)]) for _ in range(n_random)]
    fewest = sorted(names, key=lambda name: (n_cells[name], rng.random()))[:N_CHOSEN]
    return {
        "chosen by the fit": gone(list(zip(table["perturbation"], table["context"], strict=True))),
        "fewest cells": gone(fewest),
        "random": float(np.mean(random)),
        "expected of those chosen": float(table["reduction"].sum()) / start,
    }


def intervals_of_interactions(n: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    """How often intervals hold the coefficients of the true effects, and how far estimates are off on average."""
    rows = []
    variances = [rng.uniform(0.02, 0.3, 300) / size for size in (100, 80, 80, 300)]
    for truth in ((1.0, 1.0, 0.0), (1.5, 1.5, 0.0), (0.5, 0.6, 0.0), (1.0, 0.1, 0.0), (0.6, 0.6, 1.0)):
        held, errors, classes = [], [], []
        for _ in range(n):
            first, second, other = rng.normal(0, 0.12, (3, 300)) * (rng.random((3, 300)) < 0.5)
            both = truth[0] * first + truth[1] * second + truth[2] * other
            single = np.stack([first, second])
            expected = np.linalg.solve(single @ single.T, single @ both)
            noise = [rng.normal(0, np.sqrt(each)) for each in variances]
            noisy = [each + own - noise[3] for each, own in zip((first, second, both), noise, strict=False)]
            found: dict[str, Any] = interaction_fit(Pair(*noisy, *variances), level=LEVEL)
            classes.append(found["class"])
            for k in (1, 2):
                low, high = found[f"coefficient_{k}_lower"], found[f"coefficient_{k}_upper"]
                held.append(low <= expected[k - 1] <= high)
                errors.append(found[f"coefficient_{k}"] - expected[k - 1])
        most = pd.Series(classes).value_counts(normalize=True)
        rows.append(
            {"what": f"c1 = {truth[0]}, c2 = {truth[1]}, new {truth[2]}", "held": np.mean(held)}
            | {"mean error": np.mean(errors), "most often": f"{most.index[0]} ({most.iloc[0]:.0%})"}
        )
    return rows


def intervals_of_doses(n: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    """How often intervals hold the half-maximal dose, within five doses from 1 to 10,000 and beyond."""
    rows = []
    doses = np.geomspace(1, 1e4, 5)
    covariance = np.diag(np.full(5, 0.05**2)) + 0.02**2
    for half, steepness, plateau in ((100.0, 1.0, 1.0), (30.0, 2.0, -0.5), (1e5, 1.0, 1.0), (0.1, 1.0, 1.0)):
        held, errors, found = [], [], []
        for _ in range(n):
            responses = hill(doses, half, steepness, plateau) + rng.multivariate_normal(np.zeros(5), covariance)
            fit = HillPosterior.of(doses, responses, covariance)
            middle, low, high = fit.half_maximal_dose(LEVEL)
            held.append(low <= half <= high)
            errors.append(np.log10(middle / half))
            found.append(fit.status(LEVEL))
        most = pd.Series(found).value_counts(normalize=True)
        rows.append(
            {"what": f"half-maximal dose {half:g}, h = {steepness:g}, E = {plateau:g}", "held": np.mean(held)}
            | {"mean error": np.mean(errors), "most often": f"{most.index[0]} ({most.iloc[0]:.0%})"}
        )
    return rows


def responses_of(name: str) -> dict[str, Any]:
    """What the responses of a screen consist of."""
    cells = registered(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        pf.tl.explain_response(cells)
    table, summary = cells.uns["response_parts"], cells.uns["response_parts_summary"].set_index("part")
    row: dict[str, Any] = {"screen": name, "conditions": len(table), "reliability": table["reliability"].median()}
    row |= {"without the template": table["own_reliability"].median()}
    row |= {"noise, of the total": table["noise"].sum() / table["total"].sum()}
    for part in ("template", "conserved", "interaction"):
        share, low, high = summary.loc[part, ["share_of_effect", "lower", "upper"]]
        row[part] = f"{share:.2f}" + (f" ({low:.2f} to {high:.2f})" if np.isfinite(low) else "")
    return row


def main() -> None:
    """Run everything and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", default=["next", "intervals", "responses"])
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--quick", action="store_true", help="small screens and one seed")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    tables: dict[str, pd.DataFrame] = {}
    if "next" in arguments.parts:
        size = {"n_perturbations": 4 if arguments.quick else 10, "n_random": 1 if arguments.quick else 3}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # what was not measured is what this is about
            rows = [next_measurements(seed, **size) for seed in range(1 if arguments.quick else arguments.seeds)]
        shares = pd.DataFrame(rows)
        tables["next"] = pd.DataFrame(
            {"measured next": shares.columns, "mean": shares.mean().to_numpy(), "s.d.": shares.std().to_numpy()}
        )
    if "intervals" in arguments.parts:
        n, rng = 20 if arguments.quick else 200, np.random.default_rng(0)
        tables["intervals"] = pd.DataFrame(intervals_of_interactions(n, rng) + intervals_of_doses(n, rng))
    if "responses" in arguments.parts:
        tables["responses"] = pd.DataFrame([responses_of(name) for name in SETS])
    for name, table in tables.items():
        table.to_csv(arguments.output / f"decisions_{name}.csv", index=False)
        print(f"\n{name}\n")
        print(markdown(table.round(3).set_index(table.columns[0])))


if __name__ == "__main__":
    main()
