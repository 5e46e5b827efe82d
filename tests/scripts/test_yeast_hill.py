from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
yeast_hill = import_module("_yeast_hill").yeast_hill
RateEquations = import_module("_rate_equations").RateEquations


@pytest.fixture
def data(data_folder, monkeypatch):
    monkeypatch.setenv("PERTURBFLOW_DATA", str(data_folder))
    if not (data_folder / "phoenix").is_dir():
        pytest.skip("no folder phoenix among the data sets")
    return data_folder / "phoenix"


def test_absent_file_says_where_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PERTURBFLOW_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="ode_system_functions_350.csv.gz, found none.*QuackenbushLab/phoenix"):
        yeast_hill()


def test_trajectories_that_others_integrated_are_reproduced(data):
    stored = np.load(data / "sim350_trajectories.npz")
    adata = yeast_hill(start=stored["trajectories"][:, 0])
    assert adata.var_names.tolist() == stored["nodes"].tolist()
    np.testing.assert_array_equal(adata.obs["time"].to_numpy().reshape(20, 10)[7], stored["times"])
    # Theirs has a relative tolerance of 1e-6.
    np.testing.assert_allclose(adata.layers["noise_free"].reshape(20, 10, 350), stored["trajectories"], atol=1e-5)
    np.testing.assert_array_equal(adata.var["is_input"], stored["input_gene"])
    edges = stored["edges_from_to_sign"][stored["edge_in_equations"]]
    expected = np.zeros((350, 350))
    expected[edges[:, 0], edges[:, 1]] = edges[:, 2]
    np.testing.assert_array_equal(adata.varp["true_graph"].toarray(), expected)


def test_signs_are_those_of_the_jacobian(data):
    table = pd.read_csv(data / "ode_system_functions_350.csv.gz")
    equations = table[table["eqn"] != "input gene"].set_index("node")["eqn"].to_dict()
    system = RateEquations(table["node"].tolist(), equations)
    x, h = np.random.default_rng(0).uniform(0.3, 0.7, (1, 350)), 1e-6
    steps = h * np.eye(350)
    jacobian = (system(x + steps) - system(x - steps)) / (2 * h)
    decay = np.where(np.isin(table["node"], list(equations)), 1.0, 0.0)
    jacobian += np.diag(decay)
    found = np.where(np.abs(jacobian) > 1e-8, np.sign(jacobian), 0)
    np.testing.assert_array_equal(found, yeast_hill(n_trajectories=1).varp["true_graph"].toarray())


@pytest.mark.usefixtures("data")
def test_format_noise_and_knockouts(tmp_path):
    options: dict[str, Any] = {"n_trajectories": 4, "noise": 0.05, "seed": 2}
    adata = yeast_hill(knockouts=["RAP1", "ABF1+MCM1"], n_knockout_trajectories=2, **options)
    assert adata.shape == ((4 + 2 * 2) * 10, 350)
    assert len(adata.uns["true_edges"]) == 547
    assert adata.var["is_input"].sum() == 74
    np.testing.assert_array_equal(adata.var["is_regulator"], adata.var_names.isin(adata.uns["true_edges"]["source"]))
    labels = adata.obs["perturbation"]
    assert (adata[labels == "RAP1", "RAP1"].X == 0).all()
    assert (adata[labels == "ABF1+MCM1", ["ABF1", "MCM1"]].X == 0).all()
    control = (labels == "control").to_numpy()
    exact = adata.layers["noise_free"].reshape(8, 10, 350)
    free_input = adata.var["is_input"].to_numpy()
    np.testing.assert_array_equal(exact[:4, :, free_input], exact[:4, :1, free_input].repeat(10, axis=1))
    assert exact.min() >= 0
    assert exact.max() <= 1
    # 14,000 draws: the standard error of the standard deviation is 0.6 %.
    deviation = (adata.X - adata.layers["noise_free"])[control]
    assert deviation.std() == pytest.approx(0.05 * adata.layers["noise_free"][control].std(), rel=0.03)

    alone = yeast_hill(**options)
    np.testing.assert_allclose(alone.X, adata.X[control], atol=1e-6)
    adata.write_h5ad(tmp_path / "runs.h5ad")
    assert (ad.read_h5ad(tmp_path / "runs.h5ad").varp["true_graph"] != adata.varp["true_graph"]).nnz == 0


@pytest.mark.usefixtures("data")
def test_starts_are_uniform_and_seeded():
    options: dict[str, Any] = {"n_trajectories": 10, "times": [0.0, 0.1]}
    first, again, other = (yeast_hill(**options, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.X, again.X)
    assert not np.array_equal(first.X, other.X)
    start = first.X[::2]
    assert start.min() >= 0.05
    assert start.max() <= 0.95
    assert start.mean() == pytest.approx(0.5, abs=0.02)
