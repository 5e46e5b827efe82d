"""The benchmark of both halves together runs in short."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

CHECKOUT = Path(__file__).parents[2]


def test_both_halves_are_judged_on_left_out_perturbations(run, tmp_path):
    run(str(CHECKOUT / "benchmarks/flow_and_graph.py"), "--quick", "--out", "out")
    flow = pd.read_csv(tmp_path / "out/flow_by_features.csv").set_index("features")
    assert flow.index.tolist() == ["none", "dynamics", "true effects, noisy"]
    assert flow["cosine"].between(-1, 1).all()
    assert (flow["RMSE"] < 1.2 * flow["RMSE of no change"]).all()
    graph = pd.read_csv(tmp_path / "out/graph_by_evidence.csv").iloc[0]
    assert graph["and the measured cells"] > graph["training cells"] > 1
