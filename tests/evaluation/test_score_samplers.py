from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from perturbflow import datasets, pp, tl
from perturbflow.evaluation import fitted_baselines, judged_conditions, registered_cells, score_samplers

NAMES = ["energy_distance", "rmse_of_mean_effects", "normalised_rank"]
BASELINES = ["control cells", "mean effect", "additive effect"]


@pytest.fixture(scope="module")
def adata():
    adata = datasets.simulated_perturb_seq(n_cells=500, n_genes=20, n_perturbations=4, n_combinations=4)
    pp.setup_perturbation(adata, perturbation_key="perturbation", control="control")
    pp.split_perturbations(adata, task="combination", test_fraction=0.5, valid_fraction=0.0)
    return adata


def test_scores_are_those_of_the_evaluation_of_an_anndata(adata):
    cells = registered_cells(adata)
    samplers = fitted_baselines(BASELINES, cells.subset(adata.obs["split"].to_numpy() == "train"))
    conditions = judged_conditions(adata, splits=("train", "test"))
    found = score_samplers(cells, conditions, samplers, metrics=NAMES, seed=3)
    settings: dict[str, Any] = {
        "metrics": NAMES,
        "baselines": BASELINES,
        "seed": 3,
        "n_permutations": 0,
        "progress_bar": False,
    }
    judged: Any = tl.evaluate(adata, key=None, splits=("train", "test"), copy=True, **settings)
    pd.testing.assert_frame_equal(found, judged.uns["evaluation"])


def test_torch_and_numpy_compute_the_same_distances(adata, monkeypatch):
    cells = registered_cells(adata)
    samplers = fitted_baselines(
        ["mean effect", "shifted controls"], cells.subset(adata.obs["split"].to_numpy() == "train")
    )
    conditions = judged_conditions(adata, splits="test")
    names = ["energy_distance", "mmd", "energy_loss"]
    expected = score_samplers(cells, conditions, samplers, metrics=names, device="cpu")
    monkeypatch.setattr("perturbflow.evaluation._scores.gpu_of", torch.device)
    for device in ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]:
        found = score_samplers(cells, conditions, samplers, metrics=names, device=device)
        np.testing.assert_allclose(found["value"], expected["value"], rtol=0, atol=1e-6)
    with pytest.raises((NotImplementedError, RuntimeError), match="meta"):  # a device without values is asked for them
        score_samplers(cells, conditions, samplers, metrics=names, device="meta")


def test_a_device_that_is_not_there_is_refused(adata):
    cells = registered_cells(adata)
    with pytest.raises(ValueError, match="available torch device, found 'nowhere'"):
        score_samplers(cells, judged_conditions(adata, splits="test"), {}, device="nowhere")


def test_cells_are_the_registered_ones(adata):
    cells: Any = registered_cells(adata)
    np.testing.assert_array_equal(cells.x.toarray(), adata.X.toarray())
    is_control = np.asarray(cells.perturbations.sum(axis=1)).ravel() == 0
    np.testing.assert_array_equal(is_control, adata.obs["perturbation"] == "control")


def test_conditions_are_those_of_the_split(adata):
    for one in judged_conditions(adata, splits="test"):
        assert set(adata.obs["perturbation"].iloc[one.rows]) == {one.labels["perturbation"]}
        assert set(adata.obs["perturbation"].iloc[one.control_rows]) == {"control"}
        assert set(adata.obs["split"].iloc[one.rows]) == {"test"}
    assert judged_conditions(adata, min_cells=10_000) == []


def test_bad_input(adata):
    cells = registered_cells(adata)
    with pytest.raises(ValueError, match="at least one condition to evaluate, found none"):
        score_samplers(cells, [], {})
    with pytest.raises(ValueError, match="different names from"):
        fitted_baselines(["no effect"], cells)
    with pytest.raises(KeyError, match="split"):
        judged_conditions(adata, split_key="nothing")
    with pytest.raises(KeyError, match="setup_perturbation"):
        registered_cells(datasets.simulated_perturb_seq(n_cells=50, n_genes=5, n_perturbations=2, n_combinations=0))
