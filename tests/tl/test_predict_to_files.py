"""Predictions that are written to a file as they are made."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from perturbflow.models import FittedFlow
from perturbflow.predict import _predicted_cells, _prediction
from perturbflow.tl import evaluate, predict_perturbation

LABELS = ["A", "D+B"]


@pytest.fixture(params=["cells.h5ad", "cells.zarr"])
def path(request, tmp_path):
    return tmp_path / request.param


def read(path):
    return (anndata.read_h5ad if path.suffix == ".h5ad" else anndata.read_zarr)(path)


@pytest.mark.parametrize("options", [{"n_cells": 30, "seed": 1}, {"output": "counts", "target_total": 2000}])
def test_the_file_is_the_anndata_that_would_be_returned(fitted, unchanged, path, options):
    with unchanged(fitted):
        assert predict_perturbation(fitted, LABELS, path=path, **options) is None
        expected = predict_perturbation(fitted, LABELS, as_anndata=True, **options)
    assert expected is not None
    cells = read(path)
    assert isinstance(cells.X, sparse.csr_matrix)
    np.testing.assert_array_equal(cells.X.toarray(), expected.X)
    pd.testing.assert_frame_equal(cells.obs, expected.obs)
    pd.testing.assert_frame_equal(cells.var, expected.var)
    pd.testing.assert_frame_equal(cells.varm["predicted_sd"], expected.varm["predicted_sd"])
    pd.testing.assert_frame_equal(cells.uns["predicted"]["uncertainty"], expected.uns["predicted"]["uncertainty"])
    assert cells.uns["predicted"]["params"] == expected.uns["predicted"]["params"]
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_no_more_than_a_batch_is_predicted_at_a_time(fitted, path, monkeypatch):
    monkeypatch.setattr(_prediction, "CELLS_AT_ONCE", 16)
    events = []
    sample = FittedFlow.sample

    def sampled(self, controls, *args, **options):
        events.append(("predicted", len(controls)))
        return sample(self, controls, *args, **options)

    def written(block):
        events.append(("written", len(block)))
        return sparse.csr_matrix(block)

    monkeypatch.setattr(FittedFlow, "sample", sampled)
    monkeypatch.setattr(_predicted_cells, "sparse", SimpleNamespace(csr_matrix=written))
    predict_perturbation(fitted, "A", path=path, n_cells=40, covariates={"cell_type": "type_1"})
    assert events == [(what, size) for size in (16, 16, 8) for what in ("predicted", "written")]


def test_an_interrupted_file_leaves_nothing_and_a_killed_one_is_replaced(fitted, path, monkeypatch):
    sample, calls = FittedFlow.sample, []

    def interrupted(self, controls, *args, **options):
        calls.append(len(controls))
        if len(calls) == 3:
            assert [each.name for each in path.parent.iterdir()] == [f"{path.name}.partial"]
            raise KeyboardInterrupt
        return sample(self, controls, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(FittedFlow, "sample", interrupted)
        with pytest.raises(KeyboardInterrupt):
            predict_perturbation(fitted, LABELS, path=path, n_cells=5)
    assert list(path.parent.iterdir()) == []

    partial = path.with_name(f"{path.name}.partial")  # of a process that had no time to remove it
    if path.suffix == ".zarr":
        partial.mkdir()
        (partial / "zarr.json").write_text("{")
    else:
        partial.write_text("half a file")
    predict_perturbation(fitted, LABELS, path=path, n_cells=5)
    assert read(path).n_obs == 20
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_what_is_there_is_not_replaced(fitted, path):
    path.write_text("mine")
    with pytest.raises(
        ValueError, match="Expected `path` to be a new file, found .* Delete it, or choose another file"
    ):
        predict_perturbation(fitted, "A", path=path)
    assert path.read_text() == "mine"


def test_a_folder_that_cannot_be_written_to_is_found_before_any_prediction(fitted, path, monkeypatch):
    def full(*args: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("anndata.io.write_elem", full)
    monkeypatch.setattr(FittedFlow, "sample", lambda *args, **options: pytest.fail("predicted"))
    with pytest.raises(OSError, match="No space left"):
        predict_perturbation(fitted, "A", path=path)
    assert list(path.parent.iterdir()) == []


def test_a_file_is_judged_as_the_cells_in_it_are(fitted, path):
    options: dict[str, Any] = {
        "key": None,
        "metrics": ["energy_distance", "rmse_of_mean_effects", "rank_of_cosine_in_components"],
        "baselines": [],
        "n_permutations": 0,
        "min_cells": 5,
        "progress_bar": False,
    }
    predict_perturbation(fitted, LABELS, path=path)
    cells = predict_perturbation(fitted, LABELS, as_anndata=True)
    with pytest.warns(UserWarning, match="missing"):
        evaluate(fitted, cells, key_added="of_cells", **options)
    with pytest.warns(UserWarning, match="missing"):
        evaluate(fitted, {"predicted": path}, key_added="of_file", **options)
    pd.testing.assert_frame_equal(fitted.uns["of_file"], fitted.uns["of_cells"])
    pd.testing.assert_frame_equal(fitted.uns["of_file_summary"], fitted.uns["of_cells_summary"])
