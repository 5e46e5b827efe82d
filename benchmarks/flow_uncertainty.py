"""Unseen perturbations from features, and how often the stated intervals hold, on simulated screens.

Of every screen some perturbations (with all their combinations) and some combinations of the others are left out. What
a fit to the rest says of them is compared with the means of many more cells of the same screen:

- how often the true mean of a gene is within the stated interval, by what the prediction rests on;
- the stated standard deviation beside the error that there is;
- the error of unseen perturbations beside that of the mean-effect baseline, with the features of the simulation, with
  the same vectors shuffled among the perturbations, and with none.

    python benchmarks/flow_uncertainty.py [--seeds 4] [--cells 5000] [--genes 150] [--output FOLDER]
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import perturbflow as pf
from perturbflow.baselines import BASELINES
from perturbflow.flow import AdditiveHurdlePrior, Calibration, condition_kind, mean_expression
from perturbflow.metrics import cosine_of_mean_effects, energy_distance, rmse_of_mean_effects
from perturbflow.screen import read_fields

LEVELS = (0.5, 0.8, 0.9, 0.95)
N_PERTURBATIONS, N_PATHWAYS, N_COMBINATIONS = 32, 8, 32
UNSEEN, PAIRS = 6, 8
CELLS_OF_TRUTH = 12  # times as many as in the screen


def screen(seed: int, *, n_cells: int, n_genes: int) -> Any:
    """Cells of one simulated screen; more cells are of the same network and conditions."""
    adata = pf.datasets.simulated_perturb_seq(
        n_cells=n_cells,
        n_genes=n_genes,
        n_perturbations=N_PERTURBATIONS,
        n_combinations=N_COMBINATIONS,
        n_pathways=N_PATHWAYS,
        n_regulators=N_PERTURBATIONS,
        cell_types=1,
        control_fraction=0.1,
        seed=seed,
    )
    pf.pp.setup_perturbation(adata, perturbation_key="perturbation", control="control")
    return adata


def feature_sets(adata: Any, *, rng: np.random.Generator) -> dict[str, np.ndarray | None]:
    """Features of the components: as they are, shuffled, none."""
    components = list(read_fields(adata).vocabulary.components)
    table = adata.uns["perturbation_embedding"].loc[components].to_numpy(dtype=np.float64)
    table = (table - table.mean(axis=0)) / table.std(axis=0)
    return {"informative features": table, "shuffled features": table[rng.permutation(len(table))], "no features": None}


def one_seed(seed: int, *, n_cells: int, n_genes: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Coverage and errors of every left-out condition."""
    rng = np.random.default_rng(seed)
    adata = screen(seed, n_cells=n_cells, n_genes=n_genes)
    cells: Any = pf.evaluation.registered_cells(adata)
    many: Any = pf.evaluation.registered_cells(screen(seed, n_cells=CELLS_OF_TRUTH * n_cells, n_genes=n_genes))
    truth = {group.perturbation.tobytes(): many.x[group.rows] for group in many.groups()}
    perturbed = [group for group in cells.groups() if group.perturbation.any()]
    unseen = rng.permutation(N_PERTURBATIONS)[:UNSEEN]
    pairs = [i for i, g in enumerate(perturbed) if (g.perturbation > 0).sum() == 2 and not g.perturbation[unseen].any()]
    left_out = set(rng.permutation(pairs)[:PAIRS].tolist())
    keep = np.ones(len(cells), dtype=bool)
    for i, group in enumerate(perturbed):
        if i in left_out or group.perturbation[unseen].any():
            keep[group.rows] = False
    training = cells.subset(keep)
    controls = training.subset(np.asarray(training.perturbations.sum(axis=1)).ravel() == 0).x.toarray()
    # Effects are judged against the true mean of the controls: errors of it would make predictions look alike.
    control_truth = truth[np.zeros(N_PERTURBATIONS, dtype=np.float32).tobytes()].toarray()
    baseline = BASELINES["mean effect"]().fit(training)

    coverage, errors = [], []
    for name, features in feature_sets(adata, rng=rng).items():
        prior = AdditiveHurdlePrior.fit(training, features=features)
        calibration = Calibration.fit(training, features=features, seed=seed)
        for group in perturbed:
            context = prior.context(group.covariates)
            kind = condition_kind(prior, group.perturbation, context)
            mean, sd = mean_expression(prior, group.perturbation, context)
            real = truth[group.perturbation.tobytes()].toarray()
            true = real.mean(axis=0)
            row = {"seed": seed, "features": name, "kind": kind}
            bounds = {level: calibration.interval(mean, sd, kind=kind, level=level) for level in LEVELS}
            held = {f"{level:.0%}": ((low <= true) & (true <= high)).mean() for level, (low, high) in bounds.items()}
            stated = np.sqrt(np.mean((calibration.factor(kind, sd) * sd) ** 2))
            coverage.append(row | held | {"stated sd": stated, "RMSE": np.sqrt(np.mean((mean - true) ** 2))})
            if kind == "unseen" and (group.perturbation > 0).sum() == 1:
                distribution = prior.distribution(group.perturbation, context)
                generator = np.random.default_rng(seed)
                models = {name: prior.move(controls, distribution, context, rng=generator)}
                if name == "no features":
                    models["mean effect baseline"] = baseline.sample(
                        controls, group.perturbation, group.covariates, rng=generator
                    )
                for model, predicted in models.items():
                    errors.append(
                        {
                            "seed": seed,
                            "model": model,
                            "energy distance": energy_distance(predicted, real[: 4 * len(controls)]),
                            "cosine of effects": cosine_of_mean_effects(predicted, real, control_truth),
                            "RMSE of effects": rmse_of_mean_effects(predicted, real, control_truth),
                        }
                    )
    return pd.DataFrame(coverage), pd.DataFrame(errors)


def main() -> None:
    """Run everything and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--cells", type=int, default=5000)
    parser.add_argument("--genes", type=int, default=150)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    parts = [one_seed(seed, n_cells=arguments.cells, n_genes=arguments.genes) for seed in range(arguments.seeds)]
    coverage, errors = (pd.concat(tables, ignore_index=True) for tables in zip(*parts, strict=True))
    arguments.output.mkdir(parents=True, exist_ok=True)
    coverage.to_csv(arguments.output / "flow_uncertainty_coverage.csv", index=False)
    errors.to_csv(arguments.output / "flow_uncertainty_errors.csv", index=False)

    by = ["features", "kind"]
    table = coverage.groupby(by, sort=False).mean(numeric_only=True).drop(columns="seed")
    table.insert(0, "conditions", coverage.groupby(by, sort=False).size())
    print(f"\nShare of true means within the stated interval, stated s.d. and error; {arguments.seeds} screens\n")
    print(table.round(3).to_string())
    print("\nUnseen perturbations, mean and s.d. over screens\n")
    means = errors.groupby(["model", "seed"], sort=False).mean().groupby("model", sort=False).agg(["mean", "std"])
    print(means.round(4).to_string())


if __name__ == "__main__":
    main()
