"""The benchmark of graphs runs in short."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

CHECKOUT = Path(__file__).parents[2]


def test_benchmark_of_graphs_judges_simulated_screens(run, tmp_path):
    output = run(str(CHECKOUT / "benchmarks/graphs.py"), "--quick", "--out", "out")
    rows = pd.read_csv(tmp_path / "out/graphs.csv").groupby("method")["AUPRC ratio"].mean()
    assert rows["default"] > 2
    assert rows["default"] > rows["correlation"]
    assert "mean rank" in output


def test_benchmark_of_causes_judges_edges_of_held_out_parents(run, tmp_path):
    run(str(CHECKOUT / "benchmarks/causal.py"), "--quick", "--out", "out")
    rows = pd.read_csv(tmp_path / "out/causal.csv").set_index("method")
    assert rows.loc["default", "true edges"] > 1.3 * rows.loc["random", "true edges"]
    assert rows["false omission rate"].between(0, 1).all()
