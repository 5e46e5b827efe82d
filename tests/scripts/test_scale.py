"""The benchmarks of large screens run in short."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

CHECKOUT = Path(__file__).parents[2]


def test_scale_of_predictions_is_measured_by_the_number_of_perturbations(run, tmp_path):
    script = str(CHECKOUT / "benchmarks/predict_scale.py")
    sizes = ("--perturbations", "2", "--cells", "30", "--genes", "60", "--max-steps", "2")
    output = run(script, *sizes, "--form", "h5ad")
    row = output.splitlines()[-1].strip("| ").split(" | ")
    assert row[:2] == ["2", "60"]
    assert float(row[2]) > 0  # memory
    assert list(tmp_path.iterdir()) == []


def test_scale_of_the_prior_is_measured_apart(run, tmp_path):
    output = run(str(CHECKOUT / "benchmarks/prior_scale.py"), "--quick", "--output", "out")
    rows = pd.read_csv(tmp_path / "out/prior_scale.csv")
    assert rows["groups"].tolist() == [5, 5, 10, 60]
    assert (rows["calibration"] > rows["prior"]).all()
    assert rows["memory_gb"].between(0.05, 2).all()
    for of in ("cells", "contexts"):
        assert f"| {of} |" in output


def test_scale_of_fits_from_files_is_measured_by_cells_and_perturbations(run, tmp_path):
    sizes = ("--cells", "1500", "--perturbations", "6", "--genes", "40", "--max-steps", "4")
    output = run(str(CHECKOUT / "benchmarks/fit_scale.py"), *sizes)
    (row,) = [line.strip("| ").split(" | ") for line in output.splitlines() if line.startswith("| 1500")]
    assert row[:2] == ["1500", "6"]
    assert all(float(value) >= 0 for value in row[2:])
    assert float(row[-1]) > 100  # cells a second
