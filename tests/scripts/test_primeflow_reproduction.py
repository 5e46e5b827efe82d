"""The paper's network is trained in short, on a CPU, and so is the script for a GPU."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

SCRIPT = str(Path(__file__).parents[2] / "benchmarks/primeflow_reproduction.py")


def test_energy_falls_with_cells_seen_and_a_run_goes_on_where_it_was_cut(run, tmp_path):
    output = run(SCRIPT, "--quick", "--output", "out")
    for title in (
        "Where validation cells are nearest",
        "Energy distance against cells seen",
        "Guidance",
        "Exact zeros",
    ):
        assert title in output
    file = tmp_path / "out/primeflow_reproduction.csv"
    table = pd.read_csv(file)
    models = table.groupby(["space", "network"])
    assert set(models.groups) == {
        ("genes", "U-Net"),
        ("genes", "MLP"),
        ("genes", "narrow MLP"),
        ("components", "U-Net"),
        ("components", "MLP"),
    }
    assert (models.size() == 2 * (4 + 3)).all()  # two parts, four looks, three more weights of guidance

    test = table[(table["part"] == "test") & (table["guidance"] == 1)]
    energies = test.loc[(test["space"] == "genes") & (test["network"] == "MLP"), "energy"].to_numpy()
    assert energies[-1] < 0.5 * energies[0]
    assert (test["floor"].abs() < test["floor se"]).all()  # unbiased: 0 but for chance
    at_end = test.groupby(["space", "network"]).tail(1)
    assert (at_end["zeros"] - at_end["real zeros"]).abs().max() < 0.05
    assert (test["energy"] > test["floor"]).all()

    cut = table[(table["network"] != "narrow MLP") | (table["guidance"] != 5)]
    cut.to_csv(file, index=False)
    output = run(SCRIPT, "--quick", "--output", "out")
    trained = [line for line in output.splitlines() if "guidance" in line and line.startswith("simulated 0")]
    assert {line.split(":")[0] for line in trained} == {"simulated 0 genes narrow MLP"}
    keys = ["space", "network", "cells seen", "guidance", "part"]
    whole, continued = (
        each.drop(columns="seconds").sort_values(keys, ignore_index=True) for each in (table, pd.read_csv(file))
    )
    pd.testing.assert_frame_equal(whole, continued)


def test_script_for_a_gpu_takes_the_same_path_on_a_cpu(run, tmp_path):
    output = run(SCRIPT, "--gpu", "--quick", "--scenario", "perturbench_norman19", "--output", "out")
    table = pd.read_csv(tmp_path / "out/primeflow_reproduction_gpu.csv", index_col="model")
    assert list(table.loc["U-Net", "guidance"]) == list(table.loc["MLP", "guidance"]) == [1, 3]
    assert {"control cells", "additive effect", "ceiling"} <= set(table.index)
    # Untrained networks are further away than controls are.
    assert (table.loc[["U-Net", "MLP"], "energy_distance"] > table.loc["control cells", "energy_distance"]).all()
    assert "1,280 cells seen" in output
