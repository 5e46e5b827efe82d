"""Sparse matrices in zarr stores, which annbatch reads where it is installed."""

from __future__ import annotations

import warnings
from importlib.util import find_spec

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import perturbflow as pf
from perturbflow.screen import Expression

zarr = pytest.importorskip("zarr")
N_CELLS, N_GENES = 500, 7
X = sparse.random(N_CELLS, N_GENES, density=0.4, format="csr", dtype=np.float32, random_state=0)


def in_zarr(adata, path):
    """The same cells, with X a matrix in a zarr store, as annbatch opens it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of AnnData, about what zarr is going to do
        adata.write_zarr(path)
    group = zarr.open_group(path, mode="r")
    stored = anndata.AnnData(obs=adata.obs.copy(), var=adata.var.copy(), uns=adata.uns)
    stored.X = anndata.io.sparse_dataset(group["X"])
    return stored


@pytest.mark.parametrize(
    "rows",
    [np.array([5, 499, 0, 5, 17, 300]), np.arange(N_CELLS)[::-1], np.zeros(0, dtype=int), np.array([3])],
    ids=["some twice", "backwards", "none", "one"],
)
@pytest.mark.parametrize("gap", [1, 64])
def test_rows_are_those_of_the_matrix_in_their_order(tmp_path, monkeypatch, rows, gap):
    if find_spec("annbatch") is not None:
        monkeypatch.setattr("perturbflow.screen._annbatch_rows.GAP", gap)
    expression = Expression(in_zarr(anndata.AnnData(X), tmp_path / "cells.zarr").X, where="adata.X")
    assert not expression.is_in_memory
    assert type(expression._source).__name__ == ("CsrInFile" if find_spec("annbatch") is None else "AnnbatchRows")
    for _ in range(2):
        np.testing.assert_array_equal(expression[rows].toarray(), X.toarray()[rows])


@pytest.fixture(scope="module")
def stored(_registered, tmp_path_factory):
    """The registered cells."""
    return in_zarr(_registered, tmp_path_factory.mktemp("zarr") / "cells.zarr")


@pytest.mark.parametrize("window", [None, 8])
def test_fits_are_those_of_cells_in_memory(registered, stored, window):
    settings = pf.flow.TrainingSettings(max_steps=6, batch_size=32, window=window)
    options = pf.models.FlowOptions({"width": 16, "n_blocks": 1}, settings, calibrate=False)
    found, expected = (pf.models.fit(adata, options, progress_bar=False) for adata in (stored, registered))
    for name, tensor in expected.flow.network.state_dict().items():
        np.testing.assert_allclose(found.flow.network.state_dict()[name], tensor, rtol=1e-5, atol=1e-6)
    pd.testing.assert_frame_equal(stored.obs, registered.obs)
