"""The demonstration and the benchmarks run from their command lines, in short."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

CHECKOUT = Path(__file__).parents[1]


def run(*arguments: str, cwd: Path, **environment: str) -> str:
    command = [sys.executable, "-W", "error::FutureWarning", *arguments]
    done = subprocess.run(
        command, cwd=cwd, env=os.environ | environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_demo_prints_its_table_and_saves_figures(tmp_path):
    demo = str(CHECKOUT / "examples/demo.py")
    output = run(demo, *("--output", "out", "--max-steps", "20", "--effort", "0.2"), cwd=tmp_path)
    table = pd.read_csv(tmp_path / "out/evaluation.csv", index_col=["split", "model"])
    assert {"flow", "control cells", "additive effect", "ceiling"} <= set(table.loc["test"].index)
    energy = table["energy_distance"]
    assert energy["test", "flow"] < energy["test", "additive effect"] < energy["test", "control cells"]
    assert f"{energy['test', 'flow']:.3f}" in output
    graphs = pd.read_csv(tmp_path / "out/graph.csv", index_col=0)
    assert list(graphs.index) == ["sparse neural ODE", "partial correlation", "correlation", "random"]
    assert graphs.loc["random", "AUROC"] == 0.5
    assert graphs["AUPRC"].between(0, 1).all()
    figures = sorted(path.name for path in (tmp_path / "out").glob("*.png"))
    assert {"dynamics_graph.png", "knockout_response.png", "evaluation.png"} <= set(figures)
    assert all((tmp_path / "out" / name).stat().st_size > 10_000 for name in figures)


@pytest.mark.parametrize(("part", "n_conditions"), [("norman", 6), ("mcfaline", 11)])
def test_benchmark_on_real_cells(part, n_conditions, tmp_path, data_folder):
    output = run(
        str(CHECKOUT / "benchmarks/real_cells.py"),
        *("--seeds", "1", "--max-steps", "20", "--sets", part, "--output", "out"),
        cwd=tmp_path,
        PERTURBFLOW_DATA=str(data_folder),
    )
    scores = pd.read_csv(tmp_path / "out/real_cells_scores.csv")
    held_out = scores[(scores["conditions"] == "held-out conditions") & (scores["metric"] == "energy_distance")]
    assert held_out.groupby("model").size().unique().tolist() == [n_conditions]
    runs = pd.read_csv(tmp_path / "out/real_cells_runs.csv")
    assert (runs["steps"] == 20).all()
    assert f"{part}: dynamic-range fraction on training conditions" in output


def test_leaderboard_ranks_models_and_baselines(tmp_path):
    options = (
        "--sets",
        "simulated",
        "--seeds",
        "1",
        "--max-steps",
        "20",
        "--preset-steps",
        "2",
        "--permutations",
        "19",
    )
    script = str(CHECKOUT / "benchmarks/leaderboard.py")
    first = run(script, *options, "--models", "flow", "--output", "out", cwd=tmp_path)
    output = run(script, *options, "--output", "out", cwd=tmp_path)
    # What is there is not made again, and a model can be added to it.
    assert [line for line in first.splitlines() if "seed 0" in line] == ["simulated, seed 0, flow"]
    assert [line for line in output.splitlines() if "seed 0" in line] == ["simulated, seed 0, primeflow"]
    table = pd.read_csv(tmp_path / "out/leaderboard.csv").pivot(index="model", columns="metric", values="mean")
    assert {"flow", "primeflow", "additive effect", "feature ridge", "ceiling"} <= set(table.index)
    assert table["dynamic_range_fraction"]["control cells"] == 0
    assert table["dynamic_range_fraction"]["flow"] > table["dynamic_range_fraction"]["mean effect"]
    assert f"{table['energy_distance']['flow']:.3f}" in output
    assert (tmp_path / "out/leaderboard.png").stat().st_size > 10_000


def test_ablation_trains_within_its_budget_and_draws_learning_curves(tmp_path):
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
        cwd=tmp_path,
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
    assert {"ceiling", "control cells", "additive effect", "moved controls", "default"} <= set(scores["model"])
    assert "held-out energy: default" in output
    for split in ("train", "test"):
        assert (tmp_path / f"out/flow_ablation_{split}.png").stat().st_size > 10_000


def test_speed_counts_evaluations_and_finds_how_time_grows(tmp_path):
    output = run(
        str(CHECKOUT / "benchmarks/flow_speed.py"),
        *("--networks", "MLP", "--genes", "50", "800", "--cells", "200", "400", "--conditions", "5", "50"),
        *("--set", "simulated", "--steps", "10", "--solver-steps", "1", "2", "20", "--output", "out"),
        cwd=tmp_path,
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


def test_scale_of_the_prior_is_measured_apart(tmp_path):
    output = run(str(CHECKOUT / "benchmarks/prior_scale.py"), "--quick", "--output", "out", cwd=tmp_path)
    rows = pd.read_csv(tmp_path / "out/prior_scale.csv")
    assert rows["groups"].tolist() == [5, 5, 10, 60]
    assert (rows["calibration"] > rows["prior"]).all()
    assert rows["memory_gb"].between(0.05, 2).all()
    for of in ("cells", "contexts"):
        assert f"| {of} |" in output


def test_uncertainty_benchmark_prints_coverage(tmp_path):
    script = str(CHECKOUT / "benchmarks/flow_uncertainty.py")
    output = run(script, "--seeds", "1", "--cells", "2500", "--genes", "60", cwd=tmp_path)
    assert "informative features" in output
    assert "mean effect baseline" in output


def test_fine_tuning_benchmark_prints_its_tables(tmp_path, data_folder):
    output = run(
        str(CHECKOUT / "benchmarks/flow_finetuning.py"),
        *("--sets", "norman", "--seeds", "1", "--steps", "6", "--pretraining-steps", "4"),
        cwd=tmp_path,
        PERTURBFLOW_DATA=str(data_folder),
    )
    assert "fine-tuned, half of the cells, N/3 steps" in output
    assert "334 of 417 genes shared" in output


def test_benchmark_of_dynamics_judges_graphs_and_interventions(tmp_path):
    output = run(
        str(CHECKOUT / "benchmarks/dynamics_synthetic.py"),
        *("--quick", "--systems", "second_order", "hill_20_knockout_1", "--seeds", "1", "--output", "out"),
        *("--methods", "default", "l1, penalty only", "partial correlation", "hold start"),
        cwd=tmp_path,
    )
    rows = pd.read_csv(tmp_path / "out/dynamics_synthetic_quick.csv").set_index(["system", "method"])
    assert rows.loc[("hill_20_knockout_1", "default"), "auprc"] > 0
    assert rows.loc[("hill_20_knockout_1", "hold start"), "error_intervention_within"] > 0
    assert rows["auroc"].dropna().between(0, 1).all()
    assert "knock-outs left out: correlation of responses" in output


def test_benchmark_of_hematopoiesis_has_null_baselines(tmp_path, data_folder):
    output = run(
        str(CHECKOUT / "benchmarks/hematopoiesis.py"),
        *("--quick", "--parts", "paper", "--output", "out"),
        cwd=tmp_path,
        PERTURBFLOW_DATA=str(data_folder),
    )
    assert "training mean" in output
    assert "PathReg" in output


def test_speed_of_dynamics_is_measured_against_adaptive_solves(tmp_path, data_folder):
    output = run(
        str(CHECKOUT / "benchmarks/dynamics_speed.py"),
        *("--quick", "--parts", "loss", "--output", "out"),
        cwd=tmp_path,
        PERTURBFLOW_DATA=str(data_folder),
    )
    assert "released" in output


def test_calibration_of_metrics_catches_cheaters(tmp_path):
    script = str(CHECKOUT / "benchmarks/metric_calibration.py")
    output = run(script, "--quick", "--output", "out", cwd=tmp_path)
    ends = pd.read_csv(tmp_path / "out/metric_calibration_quick_ends.csv").set_index(["metric", "negative"])
    assert ends.loc["energy_distance", "wrong steps"].eq(0).all()
    assert ends.loc["energy_distance", "dynamic range"].between(0.8, 1.1).all()
    faults = pd.read_csv(tmp_path / "out/metric_calibration_quick_cheaters.csv")
    verdicts = faults.set_index(["cheater", "metric"])["verdict"]
    assert verdicts["mean collapse", "rmse_of_mean_effects"] == "same"
    assert (verdicts.xs("energy_distance", level="metric") == "caught").all()
    assert "NONE" not in output
    for figure in ("interpolation", "cheaters"):
        assert (tmp_path / f"out/metric_calibration_quick_{figure}_30.png").stat().st_size > 10_000


def test_speed_of_evaluation_is_measured_apart(tmp_path):
    script = str(CHECKOUT / "benchmarks/evaluation_speed.py")
    output = run(script, "--quick", "--threads", "1", "--output", "out", cwd=tmp_path)
    costs = pd.read_csv(tmp_path / "out/evaluation_speed_quick.csv").set_index("run")
    assert costs.loc["full suite", "models"] > costs.loc["all metrics", "models"].max()
    assert (costs["peak_gb"] > 0.05).all()
    assert "| all metrics | perturbations |" in output
    values = pd.read_csv(tmp_path / "out/evaluation_speed_quick_cell_eval_suite_600x60x6.csv", index_col=0)
    assert len(values) == 6
    assert values["pearson_of_mean_effects"].gt(0.2).all()
