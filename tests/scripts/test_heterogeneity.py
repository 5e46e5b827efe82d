"""The benchmark of heterogeneous responses runs in short."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

CHECKOUT = Path(__file__).parents[2]


def test_latents_bring_back_what_moving_gene_by_gene_loses(run, tmp_path):
    run(
        str(CHECKOUT / "benchmarks/heterogeneity.py"),
        *("--quick", "--kinds", "mixture", "--conditions", "seen", "combination", "--output", "out"),
    )
    table = pd.read_csv(tmp_path / "out/heterogeneity.csv").set_index(["conditions", "model"])
    for conditions in ("seen", "combination"):
        alone, joint = table.loc[(conditions, "shifted controls")], table.loc[(conditions, "with latents")]
        assert abs(alone["correlation mean"]) < 0.1
        assert joint["correlation mean"] > 0.5
        assert joint["energy_in_programs"] < alone["energy_in_programs"] / 2
        assert joint["fraction error mean"] < alone["fraction error mean"]
