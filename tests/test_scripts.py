"""The demonstration and the benchmark run from their command lines, in short."""

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
    output = run(str(CHECKOUT / "examples/demo.py"), "--output", "out", "--max-steps", "20", cwd=tmp_path)
    table = pd.read_csv(tmp_path / "out/evaluation.csv", index_col=["split", "model"])
    assert {"flow", "control cells", "additive effect", "ceiling"} <= set(table.loc["test"].index)
    energy = table["energy_distance"]
    assert energy["test", "flow"] < energy["test", "additive effect"] < energy["test", "control cells"]
    assert f"{energy['test', 'flow']:.3f}" in output
    figures = sorted(path.name for path in (tmp_path / "out").glob("*.png"))
    assert len(figures) >= 4
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
