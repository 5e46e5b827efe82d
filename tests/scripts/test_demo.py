"""The demonstration runs from its command line, in short."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

CHECKOUT = Path(__file__).parents[2]


def test_demo_prints_its_table_and_saves_figures(run, tmp_path):
    demo = str(CHECKOUT / "examples/demo.py")
    output = run(demo, *("--output", "out", "--max-steps", "20", "--effort", "0.2"))
    table = pd.read_csv(tmp_path / "out/evaluation.csv", index_col=["split", "model"])
    assert {"flow", "control cells", "additive effect", "ceiling"} <= set(table.loc["test"].index)
    energy = table["energy_distance"]
    assert energy["test", "flow"] < energy["test", "additive effect"] < energy["test", "control cells"]
    assert f"{energy['test', 'flow']:.3f}" in output
    graphs = pd.read_csv(tmp_path / "out/graph.csv", index_col=0)
    assert list(graphs.index) == ["sparse neural ODE", "partial correlation", "correlation", "random"]
    assert graphs.loc["random", "AUROC"] == 0.5
    assert graphs["AUPRC"].between(0, 1).all()
    screen = pd.read_csv(tmp_path / "out/screen_graph.csv", index_col=0)["AUPRC"]
    assert screen["sparse dynamics"] > screen["partial correlation"] > screen["random"]
    figures = sorted(path.name for path in (tmp_path / "out").glob("*.png"))
    assert {"dynamics_graph.png", "knockout_response.png", "evaluation.png"} <= set(figures)
    assert all((tmp_path / "out" / name).stat().st_size > 10_000 for name in figures)
    assert "<h2>Dynamics</h2>" in (tmp_path / "out/report.html").read_text(encoding="utf-8")
    last = output[output.index("Perturbed cells\n===") :]
    assert "held-out conditions of the split 'test', flow is" in " ".join(last.split())
    assert last.rstrip().splitlines()[-1].strip().startswith("pf.")  # a call to go on with
