"""The benchmarks of large screens run in short."""

from __future__ import annotations

from pathlib import Path

CHECKOUT = Path(__file__).parents[2]


def test_scale_of_predictions_is_measured_by_the_number_of_perturbations(run, tmp_path):
    script = str(CHECKOUT / "benchmarks/predict_scale.py")
    sizes = ("--perturbations", "2", "--cells", "30", "--genes", "60", "--max-steps", "2")
    output = run(script, *sizes, "--form", "h5ad")
    row = output.splitlines()[-1].strip("| ").split(" | ")
    assert row[:2] == ["2", "60"]
    assert float(row[2]) > 0  # memory
    assert list(tmp_path.iterdir()) == []
