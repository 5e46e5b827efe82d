"""The benchmarks of dynamics run in short."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

CHECKOUT = Path(__file__).parents[2]


def test_benchmark_of_dynamics_judges_graphs_and_interventions(run, tmp_path):
    output = run(
        str(CHECKOUT / "benchmarks/dynamics_synthetic.py"),
        *("--quick", "--systems", "second_order", "hill_20_knockout_1", "--seeds", "1", "--output", "out"),
        *("--methods", "default", "l1, penalty only", "partial correlation", "hold start"),
    )
    rows = pd.read_csv(tmp_path / "out/dynamics_synthetic_quick.csv").set_index(["system", "method"])
    assert rows.loc[("hill_20_knockout_1", "default"), "auprc"] > 0
    assert rows.loc[("hill_20_knockout_1", "hold start"), "error_intervention_within"] > 0
    assert rows["auroc"].dropna().between(0, 1).all()
    assert "knock-outs left out: correlation of responses" in output


def test_benchmark_of_hematopoiesis_has_null_baselines(run, tmp_path, data_folder):
    output = run(
        str(CHECKOUT / "benchmarks/hematopoiesis.py"),
        *("--quick", "--parts", "paper", "--output", "out"),
        PERTURBFLOW_DATA=str(data_folder),
    )
    assert "training mean" in output
    assert "PathReg" in output


def test_speed_of_dynamics_is_measured_against_adaptive_solves(run, tmp_path, data_folder):
    output = run(
        str(CHECKOUT / "benchmarks/dynamics_speed.py"),
        *("--quick", "--parts", "loss", "--output", "out"),
        PERTURBFLOW_DATA=str(data_folder),
    )
    assert "released" in output
