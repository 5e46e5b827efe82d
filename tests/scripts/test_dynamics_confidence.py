"""The benchmark of confidence in time courses runs in short."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

CHECKOUT = Path(__file__).parents[2]


def test_confident_edges_are_counted_with_and_without_time(run, tmp_path):
    run(str(CHECKOUT / "benchmarks/dynamics_confidence.py"), "--quick", "--out", "out")
    table = pd.read_csv(tmp_path / "out/dynamics_confidence.csv").set_index("runs")
    assert table.index.tolist() == ["as they are", "times shuffled"]
    for least in (0.9, 0.7, 0.5):
        assert (table[f"true at {least}"] <= table[f"edges at {least}"]).all()
    assert (table["edges at 0.9"] <= table["edges at 0.5"]).all()
    assert (table["true edges"] > 0).all()
