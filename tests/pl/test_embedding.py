from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from sklearn.decomposition import PCA

from perturbflow.pl import embedding
from perturbflow.pl._predictions import read_comparison


def clouds(ax):
    """Small points: control cells, and the cells compared with each other."""
    return [np.asarray(each.get_offsets()) for each in ax.collections if len(each.get_offsets()) > 1]


def test_map_is_the_pca_of_the_real_cells(adata):
    ax: Any = embedding(adata, adata.uns["label"])
    sources = read_comparison(adata, adata.uns["label"], covariates=None, key="predicted").sources()
    real = np.concatenate([sources["control"], sources["observed"]])
    pca = PCA(n_components=2, random_state=0).fit(real)
    control, compared = clouds(ax)
    key = lambda xy: xy[np.lexsort(xy.T)]  # noqa: E731
    np.testing.assert_allclose(key(control), key(pca.transform(sources["control"])), atol=1e-4)
    assert len(compared) == 2 * len(sources["observed"])
    share = pca.explained_variance_ratio_
    assert ax.get_xlabel() == f"PC1 ({share[0]:.1%} of variance)"
    assert ax.get_ylabel() == f"PC2 ({share[1]:.1%} of variance)"


def test_prediction_does_not_shape_the_map(adata):
    before = clouds(embedding(adata, adata.uns["label"]))[0]
    adata.obsm["predicted"] *= 3
    after = clouds(embedding(adata, adata.uns["label"]))[0]
    np.testing.assert_array_equal(before, after)


def test_number_of_cells_and_contexts(adata):
    ax: Any = embedding(adata, adata.uns["label"], n_cells=25)
    control, compared = clouds(ax)
    assert (len(control), len(compared)) == (25, 50)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        f"{name} (25 cells)" for name in ("control", "observed", "predicted")
    ]
    # For both contexts: three centres, and two shifts with a white border.
    assert sum(len(each.get_offsets()) == 1 for each in ax.collections) == 6
    assert len(ax.lines) == 8
    one = embedding(adata, adata.uns["label"], covariates={"cell_type": "type_1"})
    assert len(one.lines) == 4


def test_several_contexts_are_named_and_many_are_not(adata, monkeypatch):
    ax: Any = embedding(adata, adata.uns["label"])
    assert [text.get_text() for text in ax.texts] == ["type_1", "type_2"]
    assert list(embedding(adata, adata.uns["label"], covariates={"cell_type": "type_1"}).texts) == []
    size = max(each.get_sizes()[0] for each in ax.collections if len(each.get_offsets()) == 1)
    monkeypatch.setattr("perturbflow.pl._embedding._FEW_CONTEXTS", 1)
    ax = embedding(adata, adata.uns["label"])
    assert list(ax.texts) == []
    assert max(each.get_sizes()[0] for each in ax.collections if len(each.get_offsets()) == 1) < size / 2


def test_same_seed_same_plot(adata):
    first, second, other = (clouds(embedding(adata, adata.uns["label"], n_cells=20, seed=seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first[1], second[1])
    assert not np.array_equal(first[1], other[1])


def test_unobserved_has_controls_and_prediction(unobserved):
    ax: Any = embedding(unobserved, unobserved.uns["label"], n_cells=30)
    assert [len(cloud) for cloud in clouds(ax)] == [30, 30]


def test_umap_is_fitted_on_the_real_cells(adata, monkeypatch):
    """With a map in place of UMAP's, which takes long to load."""

    class Map:
        def __init__(self, **options):
            assert options == {"n_neighbors": 15, "random_state": 3, "n_jobs": 1}

        def fit(self, x):
            self.n_fitted = len(x)
            self.embedding_ = x[:, :2] + 100

        def transform(self, x):
            assert self.n_fitted == 60
            return x[:, :2] + 100

    umap: Any = ModuleType("umap")
    umap.UMAP = Map
    monkeypatch.setitem(sys.modules, "umap", umap)
    ax: Any = embedding(adata, adata.uns["label"], basis="umap", n_cells=30, seed=3)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("UMAP 1", "UMAP 2")
    on_pca = clouds(embedding(adata, adata.uns["label"], n_cells=30, seed=3))
    for cloud, expected in zip(clouds(ax), on_pca, strict=True):
        # The first two of 30 components, up to what a randomised solver leaves.
        np.testing.assert_allclose(np.abs(cloud - 100), np.abs(expected), atol=0.05)


def test_unknown_basis(adata):
    with pytest.raises(ValueError, match=r"Expected `basis` to be one of \['pca', 'umap'\], found 'tsne'"):
        embedding(adata, adata.uns["label"], basis="tsne")  # type: ignore[arg-type]
