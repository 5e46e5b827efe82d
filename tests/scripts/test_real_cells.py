"""The benchmark on real cells runs in short."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

CHECKOUT = Path(__file__).parents[2]


@pytest.mark.parametrize(("part", "n_conditions"), [("norman", 6), ("mcfaline", 11)])
def test_benchmark_on_real_cells(run, part, n_conditions, tmp_path, data_folder):
    output = run(
        str(CHECKOUT / "benchmarks/real_cells.py"),
        *("--seeds", "1", "--max-steps", "20", "--sets", part, "--output", "out"),
        PERTURBFLOW_DATA=str(data_folder),
    )
    scores = pd.read_csv(tmp_path / "out/real_cells_scores.csv")
    held_out = scores[(scores["conditions"] == "held-out conditions") & (scores["metric"] == "energy_distance")]
    assert held_out.groupby("model").size().unique().tolist() == [n_conditions]
    runs = pd.read_csv(tmp_path / "out/real_cells_runs.csv")
    assert (runs["steps"] == 20).all()
    assert f"{part}: dynamic-range fraction on training conditions" in output
