"""The benchmarks of the settings of a flow, its speed and its stated errors run in short."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

CHECKOUT = Path(__file__).parents[2]


def test_ablation_trains_within_its_budget_and_draws_learning_curves(run, tmp_path):
    budget = 0.5
    output = run(
        str(CHECKOUT / "benchmarks/flow_ablation.py"),
        *(
            "--sets",
            "simulated",
            "--seeds",
            "1",
            "--networks",
            "MLP",
            "--parametrisations",
            "velocity",
            "zero_inflated",
        ),
        *("--budget", str(budget), "--conditions", "2", "--cells", "20", "--curve-cells", "10", "--output", "out"),
    )
    costs = pd.read_csv(tmp_path / "out/flow_ablation_costs.csv", index_col="model")
    ablations = costs.drop(index="default")
    assert sorted(ablations.index) == sorted(
        [f"MLP, {p}, {s}" for p in ("velocity", "zero_inflated") for s in ("noise", "control")]
        + ["PCA + MLP, velocity, noise"]
    )
    assert (ablations["steps"] > 2).all()
    assert ablations["seconds"].between(0.5 * budget, 1.5 * budget).all()
    assert costs.loc["default", "steps"] <= costs.loc["MLP, zero_inflated, control", "steps"]

    curves = pd.read_csv(tmp_path / "out/flow_ablation_curves.csv")
    looks = curves[(curves["model"] == "MLP, velocity, noise") & (curves["split"] == "train")]
    assert looks["step"].iloc[0] == 0
    assert looks["seconds"].is_monotonic_increasing
    assert looks["value"].iloc[-1] < looks["value"].iloc[0]

    scores = pd.read_csv(tmp_path / "out/flow_ablation_scores.csv")
    assert {"ceiling", "control cells", "additive effect", "shifted controls", "default"} <= set(scores["model"])
    assert "held-out energy: default" in output
    for split in ("train", "test"):
        assert (tmp_path / f"out/flow_ablation_{split}.png").stat().st_size > 10_000


def test_speed_counts_evaluations_and_finds_how_time_grows(run, tmp_path):
    output = run(
        str(CHECKOUT / "benchmarks/flow_speed.py"),
        *("--networks", "MLP", "--genes", "50", "800", "--cells", "200", "400", "--conditions", "5", "50"),
        *("--set", "simulated", "--steps", "10", "--solver-steps", "1", "2", "20", "--output", "out"),
    )
    genes = pd.read_csv(tmp_path / "out/flow_speed_genes.csv", index_col="genes")
    assert genes.loc[800, "training cells/s"] < genes.loc[50, "training cells/s"]
    assert genes["outside matrix work"].between(0.05, 0.95).all()
    assert (genes["memory MB"] > 1).all()
    evaluations = pd.read_csv(tmp_path / "out/flow_speed_evaluations.csv")
    assert evaluations.groupby("source")["evaluations"].is_monotonic_increasing.all()
    assert (evaluations["evaluations"] >= evaluations["steps"]).all()
    for of in ("genes", "cells", "conditions"):
        assert f"| MLP | {of} |" in output


def test_uncertainty_benchmark_prints_coverage(run, tmp_path):
    script = str(CHECKOUT / "benchmarks/flow_uncertainty.py")
    output = run(script, "--seeds", "1", "--cells", "2500", "--genes", "60")
    assert "informative features" in output
    assert "mean effect baseline" in output
