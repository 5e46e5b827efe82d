"""Whether responders and genes that rise together are predicted, where they are, and only there.

Simulated screens (:func:`perturbflow.datasets.simulated_responders`): mixtures with 10 to 90 % responders, responders of
one state, correlations that change without the means, and homogeneous responses as the control. Half of the cells of a
condition is for the fit, the other half judges. "Seen" conditions are in the fit; of "new context" all perturbations of
the last of three cell types are held out; of "combination" all pairs are.

Models: control cells shifted gene by gene (the prior alone), and with the latents of the response (what predictions start
from); with ``--flow`` also the default fit. "real cells" are the other half of the real cells, which no model can beat.

Columns, means over conditions and seeds: correlation within the program of a perturbation over the real one (and the
least of any condition with a real correlation of 0.05 or more); error of the fraction of responders, cells beyond the middle
between controls and true responders (and the largest); energy distances in the space of the response and of all genes; error
of the means of the program; AUROC of a classifier. CPU seconds are those of finding the latents.

    python benchmarks/heterogeneity.py [--seeds 3] [--flow] [--quick] [--output FOLDER]
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from _common import markdown

import perturbflow as pf
from perturbflow.flow import AdditiveHurdlePrior, Responses

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anndata import AnnData
    from numpy.typing import NDArray

KINDS = ("mixture", "state", "correlation", "homogeneous")
SCENARIOS = {
    "seen": {"n_controls": 800, "n_cells": 600},
    "new context": {"n_controls": 600, "n_cells": 500, "cell_types": 3},
    "combination": {"n_controls": 800, "n_cells": 600, "n_combinations": 4},
}
QUICK = {name: options | {"n_controls": 200, "n_cells": 160} for name, options in SCENARIOS.items()}
ALONE, JOINT, REAL, FLOW = "shifted controls", "with latents", "real cells", "default fit"
LEAST_CORRELATION = 0.05


def conditions(adata: AnnData, scenario: str) -> pd.DataFrame:
    """Perturbed conditions, with whether they are judged and whether they are held out."""
    found = adata.obs[["perturbation", "cell_type"]].drop_duplicates()
    found = found[found["perturbation"] != "control"].astype(str).reset_index(drop=True)
    is_held_out = {
        "seen": np.zeros(len(found), dtype=bool),
        "new context": (found["cell_type"] == found["cell_type"].max()).to_numpy(),
        "combination": found["perturbation"].str.contains("+", regex=False).to_numpy(),
    }[scenario]
    return found.assign(held_out=is_held_out, judged=is_held_out | (scenario == "seen"))


def split(adata: AnnData, table: pd.DataFrame, *, seed: int) -> NDArray[np.bool_]:
    """Which cells are for the fit: controls, and half of the cells of every condition that is not held out."""
    rng = np.random.default_rng(seed)
    for_fit = (adata.obs["perturbation"] == "control").to_numpy()
    for condition in table[~table["held_out"]].itertuples():
        rows = rows_of(adata, condition.perturbation, condition.cell_type)
        for_fit[rng.permutation(rows)[: len(rows) // 2]] = True
    return for_fit


def rows_of(adata: AnnData, perturbation: str, cell_type: str) -> NDArray[np.intp]:
    """Cells of a condition."""
    obs = adata.obs
    return np.flatnonzero(((obs["perturbation"] == perturbation) & (obs["cell_type"] == cell_type)).to_numpy())


def predictions(
    adata: AnnData, for_fit: NDArray[np.bool_], *, seed: int, with_flow: bool
) -> tuple[dict[str, object], float]:
    """Functions from controls, dose, codes and generator to cells, by model; and the seconds of finding latents."""
    cells = pf.evaluation.registered_cells(adata)
    training = cells.subset(for_fit)
    prior = AdditiveHurdlePrior.fit(training)
    started = time.process_time()
    responses = Responses.fit(prior, training, seed=seed)
    seconds = time.process_time() - started

    def move(controls, dose, codes, rng, *, jointly: bool):
        context = prior.context(codes)
        factors = responses.of(prior, dose, context) if jointly else []
        return responses.move(prior, controls, prior.distribution(dose, context), context, factors, rng=rng)

    models: dict[str, object] = {
        ALONE: lambda *given: move(*given, jointly=False),
        JOINT: lambda *given: move(*given, jointly=True),
    }
    if with_flow:
        fitted = adata[for_fit].copy()
        pf.tl.fit_flow(fitted, plan_kwargs={"calibrate": False}, progress_bar=False, seed=seed)
        flow = pf.models.FittedFlow.from_dict(fitted.uns["flow"])
        models[FLOW] = lambda controls, dose, codes, rng: flow.sample(controls, dose, codes, rng=rng)
    return models, seconds


def judged(kind: str, scenario: str, options: dict, *, seed: int, with_flow: bool) -> Iterator[dict]:
    """Scores of every condition, program and model."""
    adata = pf.datasets.simulated_responders(kind, seed=seed, **options)
    pf.pp.setup_perturbation(adata, perturbation_key="perturbation", control="control", covariate_keys=["cell_type"])
    table = conditions(adata, scenario)
    for_fit = split(adata, table, seed=seed)
    models, seconds = predictions(adata, for_fit, seed=seed, with_flow=with_flow)
    x = adata.X
    cells = pf.evaluation.registered_cells(adata)
    for condition in table[table["judged"]].itertuples():
        rows = rows_of(adata, condition.perturbation, condition.cell_type)
        controls = x[rows_of(adata, "control", condition.cell_type)].toarray()
        order = np.random.default_rng(seed).permutation(rows)
        fresh = rows[~for_fit[rows]] if scenario == "seen" else order[: len(rows) // 2]
        other = np.setdiff1d(rows, fresh)
        dose, codes = cells.perturbations[[rows[0]]].toarray()[0], cells.covariates[rows[0]]
        real = x[fresh].toarray()
        found = {name: model(controls, dose, codes, np.random.default_rng(seed)) for name, model in models.items()}
        for component in condition.perturbation.split("+"):
            genes = adata.varm["programs"][component].to_numpy()
            responds = adata.obsm["responds"][component].to_numpy()[fresh]
            for name, predicted in (found | {REAL: x[other].toarray()}).items():
                scores = of_program(predicted, real, controls, genes, responds)
                yield {
                    "heterogeneity": kind,
                    "conditions": scenario,
                    "seed": seed,
                    "condition": f"{condition.perturbation}|{condition.cell_type}|{component}",
                    "model": name,
                    "seconds": seconds,
                    **scores,
                }


def of_program(
    predicted: NDArray, real: NDArray, controls: NDArray, genes: NDArray[np.bool_], responds: NDArray[np.bool_]
) -> dict[str, float]:
    """Scores of predicted cells in the program of a perturbation."""
    found, truth = correlation(predicted[:, genes]), correlation(real[:, genes])
    error = np.nan
    if responds.any() and not responds.all():
        middle = (controls[:, genes].mean() + real[responds][:, genes].mean()) / 2
        error = abs((predicted[:, genes].mean(axis=1) > middle).mean() - (real[:, genes].mean(axis=1) > middle).mean())
    return {
        "correlation": found / truth if truth >= LEAST_CORRELATION else np.nan,
        "fraction": error,
        "energy_in_programs": pf.metrics.energy_in_programs(predicted, real, controls),
        "energy_distance": pf.metrics.energy_distance(predicted, real),
        "mean": float(np.abs(predicted[:, genes].mean(axis=0) - real[:, genes].mean(axis=0)).mean()),
        "auroc": pf.metrics.classifier_auroc(predicted, real),
    }


def correlation(values: NDArray) -> float:
    """Mean correlation between genes."""
    deviation = values.std(axis=0)
    scaled = (values - values.mean(axis=0)) / np.where(deviation > 0, deviation, 1)
    n_genes = values.shape[1]
    return float((np.square(scaled.sum(axis=1)).mean() - (deviation > 0).sum()) / (n_genes * (n_genes - 1)))


def summarise(scores: pd.DataFrame) -> pd.DataFrame:
    """Means over conditions and seeds, with the worst of what has a target."""
    groups = scores.groupby(["heterogeneity", "conditions", "model"], sort=False)
    means = groups[["energy_in_programs", "energy_distance", "mean", "auroc", "seconds"]].mean()
    return pd.concat(
        [
            groups["correlation"].agg(["mean", "min"]).rename(columns=lambda name: f"correlation {name}"),
            groups["fraction"].agg(["mean", "max"]).rename(columns=lambda name: f"fraction error {name}"),
            means,
        ],
        axis=1,
    ).reset_index()


def main() -> None:
    """Run everything and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--kinds", nargs="+", default=list(KINDS))
    parser.add_argument("--conditions", nargs="+", default=list(SCENARIOS))
    parser.add_argument("--flow", action="store_true", help="judge the default fit as well, a minute each")
    parser.add_argument("--quick", action="store_true", help="few cells and one seed")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)
    scenarios = QUICK if arguments.quick else SCENARIOS
    rows = [
        row
        for kind in arguments.kinds
        for scenario in arguments.conditions
        for seed in range(1 if arguments.quick else arguments.seeds)
        for row in judged(kind, scenario, scenarios[scenario], seed=seed, with_flow=arguments.flow)
    ]
    scores = pd.DataFrame(rows)
    table = summarise(scores)
    arguments.output.mkdir(parents=True, exist_ok=True)
    scores.to_csv(arguments.output / "heterogeneity_conditions.csv", index=False)
    table.to_csv(arguments.output / "heterogeneity.csv", index=False)
    print(markdown(table.round(3).set_index(table.columns[0])))


if __name__ == "__main__":
    main()
