"""The benchmark of decisions runs in short."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

CHECKOUT = Path(__file__).parents[2]


def test_what_is_chosen_helps_and_intervals_hold(run, tmp_path):
    run(str(CHECKOUT / "benchmarks/decisions.py"), "--quick", "--parts", "next", "intervals", "--output", "out")
    chosen = pd.read_csv(tmp_path / "out/decisions_next.csv").set_index("measured next")["mean"]
    assert chosen["chosen by the fit"] > chosen["random"]
    intervals = pd.read_csv(tmp_path / "out/decisions_intervals.csv")
    assert (intervals["held"] >= 0.7).all()
    assert intervals["most often"].str.startswith(("additive", "synergistic", "suppressive", "epistatic")).sum() >= 4
