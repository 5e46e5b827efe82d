"""Screens in files, lazy or as arrays of dask give what the same screen gives in memory."""

from __future__ import annotations

from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata.abc import CSRDataset

import perturbflow as pf
from perturbflow.models import FittedFlow
from perturbflow.predict._predicted_cells import read_prediction
from perturbflow.screen import _expression, read_fields

JUDGED: dict[str, Any] = {
    "metrics": ["energy_distance", "rmse_of_mean_effects", "rank_of_cosine_in_components"],
    "baselines": ["mean effect"],
    "n_permutations": 5,
    "n_resamples": 20,
    "n_cells": 30,
    "min_cells": 5,
    "n_steps": 2,
    "progress_bar": False,
}
DECIDED = ("response_parts", "response_parts_summary", "interaction_scores")


def predicted_ranked_and_judged(adata):
    """Everything that is asked of a fit, under its usual keys."""
    pf.tl.predict_perturbation(adata, ["A", "B+D"], seed=1)
    pf.tl.rank_perturbations(adata, {"perturbation": "A"}, from_cells={"cell_type": "type_1"})
    pf.tl.evaluate(adata, **JUDGED)
    pf.tl.explain_response(adata, min_cells=4, n_resamples=5)
    pf.tl.interaction_scores(adata)
    return adata


@pytest.fixture(scope="module")
def in_memory(_fitted):
    """The cells in memory with predictions, a ranking and an evaluation; only to be read."""
    return predicted_ranked_and_judged(_fitted.copy())


# That all forms give the same rows and annotations is asserted where these are read; here is one of each kind.
@pytest.mark.parametrize("stored_elsewhere", ["backed", "lazy files", "dask"], indirect=True)
def test_splits_are_the_same(registered, stored_elsewhere):
    elsewhere = stored_elsewhere(registered)
    for adata in (registered, elsewhere):
        pf.pp.split_perturbations(adata, task="covariate_transfer", seed=3)
        pf.pp.split_perturbations(adata, task="cells", seed=3, key_added="folds")
    assert elsewhere.uns["split"]["hash"] == registered.uns["split"]["hash"]
    assert elsewhere.uns["folds"]["cell_hash"] == registered.uns["folds"]["cell_hash"]
    assert elsewhere.obs["split"].tolist() == registered.obs["split"].tolist()
    pd.testing.assert_frame_equal(elsewhere.uns["split"]["held_out"], registered.uns["split"]["held_out"])


@pytest.mark.parametrize("stored_elsewhere", ["CSC", "backed", "lazy files", "dask"], indirect=True)
def test_predictions_rankings_and_evaluations_are_the_same(fitted, in_memory, stored_elsewhere, tmp_path):
    elsewhere = predicted_ranked_and_judged(stored_elsewhere(fitted))
    for name in ("predicted_A", "predicted_B+D"):
        found, expected = (read_prediction(adata, "predicted", name) for adata in (elsewhere, in_memory))
        assert (found.values != expected.values).nnz == 0
        np.testing.assert_array_equal(found.has_cell, fitted.obs["perturbation"] == "control")
        assert found.has_gene.all()
    pd.testing.assert_frame_equal(elsewhere.varm["predicted_sd"], in_memory.varm["predicted_sd"])
    close = {"rtol": 1e-5, "atol": 1e-7}
    for key in ("ranked_perturbations", "evaluation", "evaluation_summary", "evaluation_verdicts", *DECIDED):
        pd.testing.assert_frame_equal(elsewhere.uns[key], in_memory.uns[key], **close)
    counts: list[Any] = [
        pf.tl.predict_perturbation(adata, "A", output="counts", as_anndata=True, n_cells=9)
        for adata in (fitted, elsewhere)
    ]
    np.testing.assert_array_equal(counts[0].X, counts[1].X)
    ax: Any = pf.pl.expression(elsewhere, "B+D", n_genes=2)
    assert ax.get_legend() is not None
    pf.tl.write_cell_eval(elsewhere, tmp_path / "cell_eval.h5ad")


def test_a_screen_is_encoded_once_a_call(fitted, monkeypatch):
    calls = []
    vocabulary = type(read_fields(fitted).vocabulary)
    encode = vocabulary.encode_distinct

    def counted(self, labels, *args):
        labels = list(labels)
        calls.append(len(labels))
        return encode(self, labels, *args)

    monkeypatch.setattr(vocabulary, "encode_distinct", counted)
    pf.tl.evaluate(fitted, **JUDGED)
    assert calls == [fitted.n_obs]
    calls.clear()
    pf.pp.setup_perturbation(fitted, perturbation_key="perturbation", control="control", covariate_keys=["cell_type"])
    assert calls == [fitted.n_obs]


@pytest.mark.parametrize("stored_elsewhere", ["backed", "backed dense"], indirect=True)  # others are read by chunks
def test_only_rows_that_are_needed_are_read(fitted, stored_elsewhere, monkeypatch):
    elsewhere = stored_elsewhere(fitted)
    read = []
    source = _expression.CsrInFile if isinstance(elsewhere.X, CSRDataset) else _expression._InFile
    read_rows = source.read

    def recorded(self, rows):
        read.extend(rows.tolist())
        return read_rows(self, rows)

    monkeypatch.setattr(source, "read", recorded)
    monkeypatch.setattr("perturbflow.tl._predict_perturbation.check_expression", lambda *args: None)
    monkeypatch.setattr("perturbflow.tl._predict_perturbation.warn_of_scale", lambda *args: None)
    cells: Any = pf.tl.predict_perturbation(
        elsewhere, "A", n_cells=10, covariates={"cell_type": "type_2"}, as_anndata=True
    )
    assert sorted(read) == sorted(fitted.obs_names.get_indexer(cells.obs["source_cell"]))


def test_a_backed_screen_is_not_copied_and_says_so_before_any_work(fitted, tmp_path, monkeypatch):
    monkeypatch.setattr(FittedFlow, "sample", lambda *args, **options: pytest.fail("predicted"))
    fitted.write_h5ad(tmp_path / "cells.h5ad")
    backed = anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    with pytest.raises(ValueError, match=r"in memory for `copy=True`, found one that is backed by a file"):
        pf.tl.predict_perturbation(backed, "A", copy=True)
    with pytest.raises(ValueError, match=r"in memory for `copy=True`, found one that is backed by a file"):
        pf.tl.evaluate(backed, copy=True)
    with pytest.raises(ValueError, match=r"or a whole one, found a view of one that is backed by a file"):
        pf.tl.rank_perturbations(backed[:100], {"perturbation": "A"})
    backed.file.close()
