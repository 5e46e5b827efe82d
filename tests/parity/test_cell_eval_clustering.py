"""Clusters of conditions, beside cell-eval 0.8. Takes long: scanpy's neighbours are compiled in every new process."""

from __future__ import annotations

import numpy as np
import pytest

from perturbflow.metrics._clustering_agreement import clustering_agreement

ad = pytest.importorskip("anndata", reason="the reference implementation reads AnnData")
cell_eval = pytest.importorskip("cell_eval", reason="the reference implementation of the metric")
pytest.importorskip("igraph", reason="clusters conditions")


def as_adata(cells):
    """Three cells of every condition, and of the control."""
    adata = ad.AnnData(cells.reshape(-1, cells.shape[-1]))
    adata.obs["target"] = np.repeat(["control", *(f"p{i:02d}" for i in range(len(cells) - 1))], 3)
    return adata


@pytest.mark.parametrize("noise", [0.8, 5.0, 20.0])
def test_is_that_of_cell_eval(noise):
    rng = np.random.default_rng(0)
    centres = np.vstack([np.zeros(30), rng.gamma(1.0, size=(4, 30))[np.arange(40) % 4]])
    real, predicted = (np.maximum(centres[:, None] + rng.normal(0, s, size=(41, 3, 30)), 0) for s in (0.3, noise))
    pair = cell_eval.PerturbationAnndataPair(
        real=as_adata(real), pred=as_adata(predicted), pert_col="target", control_pert="control"
    )
    theirs = cell_eval.metrics_registry.compute("clustering_agreement", pair, kwargs={})
    ours = clustering_agreement(predicted.mean(axis=1)[1:], real.mean(axis=1)[1:])
    assert ours == pytest.approx(theirs, rel=1e-6, abs=1e-6)
    assert (ours == 1) == (noise == 0.8)
