"""The benchmarks of large screens and of GPUs run in short."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def measured(run, tmp_path):
    """Rows of a part of the benchmark of large screens."""

    def measure(part):
        output = run(str(BENCHMARKS / "scale.py"), part, "--quick", "--output", "out")
        assert f"\n{part}: " in output
        assert [path.name for path in tmp_path.iterdir()] == ["out"]
        return pd.read_csv(tmp_path / "out" / f"{part}.csv")

    return measure


def test_a_whole_fit_from_a_file(measured):
    (row,) = measured("fit").to_dict("records")
    assert (row["cells"], row["genes"], row["perturbations"]) == (1500, 40, 6)
    parts = [row[f"{name}, s"] for name in ("sums", "priors", "training", "choices", "calibration")]
    assert 0 < sum(parts) <= row["whole fit, s"] + 0.5
    assert 0.1 < row["peak, GB"] < 3


def test_the_first_step(measured):
    (row,) = measured("first_step").to_dict("records")
    assert row["perturbations"] == 30
    assert row["first step, s"] > row["register, s"] + row["split, s"]
    assert 0.1 < row["peak, GB"] < 3
    assert 0 < row["prior, MB"] < 1


def test_contexts(measured):
    (row,) = measured("contexts").to_dict("records")
    assert row["groups"] == 40
    assert row["calibration, s"] > row["prior, s"]


def test_growth(measured):
    rows = measured("growth")
    assert rows["with"].dropna().tolist() == ["cells", "contexts"]
    sizes, exponents = rows[rows["with"].isna()], rows[~rows["with"].isna()]
    assert (sizes[["setup", "sums", "prior", "step"]] > 0).all(axis=None)
    expected = np.log(sizes["setup"].iloc[1] / sizes["setup"].iloc[0]) / np.log(4)
    assert exponents["setup"].iloc[0] == pytest.approx(expected, abs=0.01)


def test_loaders(measured):
    rows = measured("loader")
    assert (rows["cells/s"] > 100).all()
    loaders = {"perturbflow"} | ({"annbatch"} if find_spec("annbatch") else set())
    assert set(rows["loader"]) == loaders


def test_predictions_into_a_file(measured):
    (row,) = measured("predict").to_dict("records")
    assert (row["perturbations"], row["cells"]) == (2, 60)
    assert row["memory, MB"] > 0


def test_choices(measured):
    (row,) = measured("choices").to_dict("records")
    assert row["steps"] == 20
    assert row["choices / training"] == pytest.approx(row["choices, s"] / row["training, s"], abs=0.01)


def test_unknown_parts_are_named(run):
    with pytest.raises(AssertionError, match="Expected parts among fit, first_step"):
        run(str(BENCHMARKS / "scale.py"), "everything")


def test_the_benchmark_of_a_gpu_needs_torch_numpy_and_scipy_alone(run, tmp_path):
    absent = tmp_path / "absent"
    for name in ("anndata", "h5py", "lightning", "matplotlib", "pandas", "scanpy", "scvi", "sklearn"):
        (absent / name).mkdir(parents=True)
        (absent / name / "__init__.py").write_text("raise ImportError\n")
    paths = [str(absent), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    output = run(
        str(BENCHMARKS / "gpu.py"), "--device", "cpu", "--quick", PYTHONPATH=os.pathsep.join(filter(None, paths))
    )
    assert "matrix product in single: 0." in output
    speeds = [line.strip("| ").split(" | ") for line in output.splitlines() if " | single | " in line]
    assert [row[:2] for row in speeds] == [["MLP", "60"], ["U-Net", "60"], ["MLP", "80"], ["U-Net", "80"]]
    seen = [line.strip("| ").split(" | ") for line in output.splitlines() if line.startswith(("| 240 ", "| 480 "))]
    assert len(seen) == 2
    assert all(np.isfinite(float(row[3])) for row in seen)
    assert output.endswith("stopped after 20 steps\n")


def test_real_cells_are_handed_to_the_gpu_in_a_file(run, data_folder, tmp_path):
    script, data = str(BENCHMARKS / "gpu.py"), {"PERTURBFLOW_DATA": str(data_folder)}
    run(script, "--prepare", "norman.npz", **data)
    output = run(script, "--cells", "norman.npz", "--device", "cpu", "--quick")
    (counts,) = [line.split() for line in output.splitlines() if line.endswith("held-out conditions")]
    assert int(counts[0].replace(",", "")) > 1000
    assert int(counts[3]) > 1
    assert output.endswith("stopped after 20 steps\n")
