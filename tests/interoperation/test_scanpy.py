"""Predicted cells beside observed ones in scanpy; warnings are errors, as everywhere."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from anndata import AnnData
from scipy import sparse

from perturbflow.tl import predict_perturbation

LABELS = ["A", "B+D"]


@pytest.fixture
def cells(fitted) -> AnnData:
    """Observed and predicted cells of two conditions, and control cells."""
    fitted.var["highly_variable"] = np.arange(fitted.n_vars) % 2 == 0
    predicted = predict_perturbation(fitted, LABELS, n_cells=60, as_anndata=True)
    assert predicted is not None
    observed = fitted[fitted.obs["perturbation"].isin(["control", *LABELS])]
    cells = anndata.concat({"observed": observed, "predicted": predicted}, label="origin", merge="same")
    group = cells.obs["origin"].astype(str) + " " + cells.obs["perturbation"].astype(str)
    cells.obs["group"] = group.astype("category")
    return cells


def test_what_describes_cells_and_genes_survives(cells, fitted, tmp_path):
    assert cells.obs_names.is_unique
    for name in ("perturbation", "cell_type", "origin"):
        assert isinstance(cells.obs[name].dtype, pd.CategoricalDtype)
    assert set(cells.obs["perturbation"].cat.categories) == {"control", *LABELS}
    assert set(cells.obs["cell_type"].cat.categories) == set(fitted.obs["cell_type"].cat.categories)
    assert isinstance(cells.X, sparse.csr_matrix)
    assert cells.X.dtype == np.float32
    pd.testing.assert_frame_equal(cells.var, fitted.var)
    cells.write_h5ad(tmp_path / "cells.h5ad")
    again = anndata.read_h5ad(tmp_path / "cells.h5ad")
    pd.testing.assert_frame_equal(again.obs, cells.obs)


def test_an_embedding_and_differential_expression(cells):
    sc.pp.pca(cells, n_comps=5)
    assert np.isfinite(cells.obsm["X_pca"]).all()
    # The methods that Numba does not compile, which would take minutes: what they are given is the same.
    sc.pp.neighbors(cells, method="gauss")
    sc.tl.diffmap(cells, n_comps=3)
    assert np.isfinite(cells.obsm["X_diffmap"]).all()

    sc.tl.rank_genes_groups(cells, "group", reference="observed control", method="t-test")
    effects = {
        name: sc.get.rank_genes_groups_df(cells, f"{name} A").set_index("names")["logfoldchanges"]
        for name in ("observed", "predicted")
    }
    table = pd.DataFrame(effects)
    assert np.isfinite(table.to_numpy()).all()
    strong = table[table["observed"].abs() > 1]
    assert len(strong) > 3
    assert np.sign(strong).nunique(axis=1).eq(1).mean() > 0.8


def test_predictions_of_control_cells_are_cells_of_scanpy(fitted):
    """Those in `obsm` belong to the rows of control cells."""
    predict_perturbation(fitted, "A")
    controls = fitted[fitted.obs["perturbation"] == "control"].copy()
    controls.X = controls.obsm["predicted"]
    sc.pp.pca(controls, n_comps=5)
    assert np.isfinite(controls.obsm["X_pca"]).all()
