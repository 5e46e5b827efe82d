"""The benchmark of interactions of perturbations and contexts runs in short."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

CHECKOUT = Path(__file__).parents[2]


def test_interactions_are_learned_from_a_few_perturbations(run, tmp_path):
    run(
        str(CHECKOUT / "benchmarks/interactions.py"),
        *("--quick", "--screens", "hidden", "nothing to learn", "--output", "out"),
    )
    table = pd.read_csv(tmp_path / "out/interactions.csv").set_index(["screen", "measured"])
    hidden, nothing = table.loc["hidden"], table.loc["nothing to learn"]
    assert hidden.loc["0%", "recovered"] < 0.1
    assert hidden.loc["30%", "recovered"] > 0.7
    assert hidden.loc["50%", "recovered"] > 0.8
    assert hidden.loc["50%", "error / shift"] < 0.5 * hidden.loc["0%", "error / shift"]
    # Where nothing can be learned, the prior is not worse than the shift for having looked.
    assert (nothing["error / shift"] < 1).all()
