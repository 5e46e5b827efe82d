from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from scipy import sparse
from sklearn.decomposition import PCA

from perturbflow.pl import embedding


def clouds(ax):
    """Small points: control cells, and the cells compared with each other."""
    return [np.asarray(each.get_offsets()) for each in ax.collections if len(each.get_offsets()) > 1]


def test_map_is_the_pca_of_the_real_cells(compared, adata):
    ax: Any = embedding(adata, adata.uns["label"], basis="pca")
    sources = compared(adata).sources()
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
    for basis in ("effect", "pca"):
        before = clouds(embedding(adata, adata.uns["label"], basis=basis))[0]
        changed = adata.copy()
        changed.obsm["predicted"] *= 3
        after = clouds(embedding(changed, adata.uns["label"], basis=basis))[0]
        np.testing.assert_array_equal(before, after)


def test_cells_lie_along_and_across_the_effect(compared, adata):
    label = adata.uns["label"]
    comparison = compared(adata, label)
    sources, contexts = comparison.sources(), comparison.contexts()
    effect = comparison.mean_effects()["observed"]
    along = {name: np.full(len(cells), np.nan) for name, cells in sources.items()}
    for _, places in contexts:
        controls = sources["control"][places["control"]].mean(axis=0, dtype=float)
        for name, cells in sources.items():
            along[name][places[name]] = (cells[places[name]] - controls) @ effect / (effect @ effect)
    ax: Any = embedding(adata, label)
    control, compared = clouds(ax)
    np.testing.assert_allclose(np.sort(control[:, 0]), np.sort(along["control"]), atol=1e-5)
    assert len(compared) == 2 * len(sources["observed"])
    assert set(np.round(along["observed"], 4)) <= set(np.round(compared[:, 0], 4))
    # On average over contexts controls are at 0 and observed cells at 1, whatever tells the contexts apart.
    for name, expected in (("control", 0), ("observed", 1)):
        assert np.mean([along[name][places[name]].mean() for _, places in contexts]) == pytest.approx(expected)
    assert list(ax.get_xticks()) == [0, 1]
    assert ax.get_xlabel().startswith("along the observed effect")


def test_without_any_effect_there_is_nothing_to_draw_along(unobserved):
    unobserved.X = np.ones(unobserved.shape, dtype=np.float32)
    rows = unobserved.obsm["predicted"].getnnz(axis=1) > 0
    unobserved.obsm["predicted"] = sparse.csr_matrix(
        np.broadcast_to(rows[:, None], unobserved.shape).astype(np.float32)
    )
    with pytest.raises(ValueError, match=r"Expected predicted cells whose mean differs .* Pass `basis='pca'`"):
        embedding(unobserved, unobserved.uns["label"])


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
    on_pca = clouds(embedding(adata, adata.uns["label"], basis="pca", n_cells=30, seed=3))
    for cloud, expected in zip(clouds(ax), on_pca, strict=True):
        # The first two of 30 components, up to what a randomised solver leaves.
        np.testing.assert_allclose(np.abs(cloud - 100), np.abs(expected), atol=0.05)


def test_unknown_basis(adata):
    with pytest.raises(ValueError, match=r"Expected `basis` to be one of \['effect', 'pca', 'umap'\], found 'tsne'"):
        embedding(adata, adata.uns["label"], basis="tsne")  # type: ignore[arg-type]
