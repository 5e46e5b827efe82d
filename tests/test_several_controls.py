"""Cells with several control labels give what the same cells give with one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

import perturbflow as pf

FIT: dict[str, Any] = {
    "model_kwargs": {"width": 16, "n_blocks": 1},
    "max_steps": 10,
    "plan_kwargs": {"batch_size": 32, "learning_rate": 0.01},
    "progress_bar": False,
}
FIELDS: dict[str, Any] = {"perturbation_key": "perturbation", "covariate_keys": ["cell_type"]}


@pytest.fixture(scope="module")
def pair(_registered):
    """The same cells with one and with two control labels, the names of the split being the user's own, fitted."""
    one, two = _registered.copy(), _registered.copy()
    labels = two.obs["perturbation"].astype(str).to_numpy(dtype=object)
    labels[np.flatnonzero(labels == "control")[::2]] = "Neg 1"
    labels[np.flatnonzero(labels == "A")[::2]] = "A+Neg 1"
    two.obs["perturbation"] = pd.Categorical(labels)
    pf.pp.setup_perturbation(two, control=["control", "Neg 1"], **FIELDS)
    del two.uns["split"]
    two.obs["split"] = two.obs["split"].cat.rename_categories({"valid": "Val", "test": "ood"})
    for adata in (one, two):
        pf.tl.fit_flow(adata, **FIT)
    return one, two


def test_controls_are_those_of_all_labels(pair):
    one, two = pair
    predicted: list[Any] = [pf.tl.predict_perturbation(adata, "C", copy=True) for adata in pair]
    rows = [adata.obsm["predicted"].getnnz(axis=1) > 0 for adata in predicted]
    np.testing.assert_array_equal(*rows)
    np.testing.assert_array_equal(rows[0], one.obs["perturbation"] == "control")
    without = two[(two.obs["perturbation"] == "A").to_numpy()].copy()
    with pytest.raises(ValueError, match=r"Expected control cells \(any of \['control', 'Neg 1'\] in"):
        pf.tl.predict_perturbation(without, "C")


def test_predictions_are_the_same(pair, tmp_path):
    predicted = [adata.copy() for adata in pair]
    for adata in predicted:
        pf.tl.predict_perturbation(adata, ["A+B", "A+control", "C"])
        pf.tl.rank_perturbations(adata, {"perturbation": "A"}, from_cells={"perturbation": "control"})
    one, two = predicted
    for key in one.uns["predicted"]["obsm"]:
        np.testing.assert_array_equal(one.obsm[key].toarray(), two.obsm[key].toarray())
    pd.testing.assert_frame_equal(one.uns["ranked_perturbations"], two.uns["ranked_perturbations"])
    two.write_h5ad(tmp_path / "cells.h5ad")


def test_scores_are_the_same(pair, caplog):
    one, two = (adata.copy() for adata in pair)
    for adata in (one, two):
        pf.tl.evaluate(adata, splits="test", metrics=["energy_distance"], n_resamples=1, progress_bar=False)
    pd.testing.assert_frame_equal(one.uns["evaluation"], two.uns["evaluation"])
    assert set(two.uns["evaluation"]["split"]) == {"test"}
    assert [text for text in caplog.messages if "'ood': 'test'" in text] == [
        "The names in `adata.obs['split']` are read as {'Val': 'valid', 'ood': 'test'}; the column is unchanged."
    ]


def test_models_know_all_labels(pair):
    _, two = pair
    two = two.copy()
    pf.models.PRiMeFlow.setup_anndata(two, control=["control", "Neg 1"], **FIELDS)
    model = pf.models.PRiMeFlow(two)
    assert model.registry_["setup_args"]["control"] == ["control", "Neg 1"]
