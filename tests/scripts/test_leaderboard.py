"""The leaderboard and the fine-tuning benchmark run in short."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

CHECKOUT = Path(__file__).parents[2]


def test_leaderboard_ranks_models_and_baselines(run, tmp_path):
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
    first = run(script, *options, "--models", "flow", "--output", "out")
    output = run(script, *options, "--output", "out")
    # What is there is not made again, and a model can be added to it.
    assert [line for line in first.splitlines() if "seed 0" in line] == ["simulated, seed 0, flow"]
    assert [line for line in output.splitlines() if "seed 0" in line] == ["simulated, seed 0, primeflow"]
    table = pd.read_csv(tmp_path / "out/leaderboard.csv").pivot(index="model", columns="metric", values="mean")
    assert {"flow", "primeflow", "additive effect", "feature ridge", "ceiling"} <= set(table.index)
    assert table["dynamic_range_fraction"]["control cells"] == 0
    assert table["dynamic_range_fraction"]["flow"] > table["dynamic_range_fraction"]["mean effect"]
    assert f"{table['energy_distance']['flow']:.3f}" in output
    assert (tmp_path / "out/leaderboard.png").stat().st_size > 10_000


def test_fine_tuning_benchmark_prints_its_tables(run, tmp_path, data_folder):
    output = run(
        str(CHECKOUT / "benchmarks/flow_finetuning.py"),
        *("--sets", "norman", "--seeds", "1", "--steps", "6", "--pretraining-steps", "4"),
        PERTURBFLOW_DATA=str(data_folder),
    )
    assert "fine-tuned, half of the cells, N/3 steps" in output
    assert "334 of 417 genes shared" in output
