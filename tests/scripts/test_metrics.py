"""The benchmarks of metrics run in short."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

CHECKOUT = Path(__file__).parents[2]


def test_calibration_of_metrics_catches_cheaters(run, tmp_path):
    script = str(CHECKOUT / "benchmarks/metric_calibration.py")
    output = run(script, "--quick", "--output", "out")
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


def test_speed_of_evaluation_is_measured_apart(run, tmp_path):
    script = str(CHECKOUT / "benchmarks/evaluation_speed.py")
    output = run(script, "--quick", "--threads", "1", "--output", "out")
    costs = pd.read_csv(tmp_path / "out/evaluation_speed_quick.csv").set_index("run")
    assert costs.loc["full suite", "models"] > costs.loc["all metrics", "models"].max()
    assert (costs["peak_gb"] > 0.05).all()
    assert "| all metrics | perturbations |" in output
    values = pd.read_csv(tmp_path / "out/evaluation_speed_quick_cell_eval_suite_600x60x6.csv", index_col=0)
    assert len(values) == 6
    assert values["pearson_of_mean_effects"].gt(0.2).all()
