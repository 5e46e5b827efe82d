"""The main job on the embedded data set: simulate, fit, predict held-out combinations, judge, plot."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt

import perturbflow as pf

METRICS = ["energy_distance", "mmd", "rmse_of_mean_effects", "cosine_of_mean_effects", "normalised_rank"]


def main() -> None:
    """Run the demonstration and save its table and figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("demo_output"))
    parser.add_argument("--max-steps", type=int, default=1500)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)

    adata = pf.datasets.simulated_perturb_seq(seed=0)
    print(
        f"Simulated {adata.n_obs} cells x {adata.n_vars} genes, {adata.obs['perturbation'].nunique() - 1} perturbations"
    )
    pf.pp.setup_perturbation(adata, perturbation_key="perturbation", control="control", covariate_keys=["cell_type"])
    pf.pp.split_perturbations(adata, task="combination", test_fraction=0.4, valid_fraction=0.2, seed=0)

    started = time.monotonic()
    pf.tl.fit_flow(adata, max_steps=arguments.max_steps, seed=0)
    held_out = adata.uns["split"]["held_out"]
    combination = held_out.loc[held_out["split"] == "test", "perturbation"].iloc[0]
    pf.tl.predict_perturbation(adata, combination, seed=0)
    print(f"Trained and predicted in {time.monotonic() - started:.0f} s")

    pf.tl.evaluate(adata, seed=0)
    summary = adata.uns["evaluation_summary"]
    table = summary.pivot_table(index=["split", "model"], columns="metric", values="mean", sort=False)
    table = table[[*METRICS, "dynamic_range_fraction"]].round(3)
    print("\nMean over conditions ('test': combinations never seen; 'ceiling': real cells against real cells)\n")
    print(table.to_string())
    table.to_csv(arguments.output / "evaluation.csv")

    pf.tl.rank_perturbations(adata, {"perturbation": combination}, combinations=True)
    ranked = adata.uns["ranked_perturbations"]
    print(f"\nWhich perturbation makes cells like those of {combination}? The first five of {len(ranked)}\n")
    columns = ["perturbation", "score", "lower", "upper", "probability_best", "kind"]
    print(ranked[columns].head().round(2).to_string(index=False))

    context = {"cell_type": adata.obs["cell_type"].cat.categories[0]}
    figures = {
        "perturbation_effect": lambda ax: pf.pl.perturbation_effect(adata, combination, ax=ax),
        "expression": lambda ax: pf.pl.expression(adata, combination, covariates=context, ax=ax),
        "embedding": lambda ax: pf.pl.embedding(adata, combination, covariates=context, ax=ax),
        "evaluation": lambda ax: pf.pl.evaluation(adata, split="test", ax=ax),
        "training": lambda ax: pf.pl.training(adata, ax=ax),
        "guidance": lambda ax: pf.pl.guidance(adata, ax=ax),
        "ranked_perturbations": lambda ax: pf.pl.ranked_perturbations(adata, ax=ax),
    }
    for name, draw in figures.items():
        figure, ax = plt.subplots(figsize=(7, 5), layout="constrained")
        draw(ax)
        figure.savefig(arguments.output / f"{name}.png", dpi=150)
        plt.close(figure)
    print(f"\nSaved the table and {len(figures)} figures in {arguments.output}/")


if __name__ == "__main__":
    main()
