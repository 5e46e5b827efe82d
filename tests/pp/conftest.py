from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from copy import deepcopy

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse


def _dense(x):
    return x.toarray() if sparse.issparse(x) else np.array(x)


def _contents(adata: AnnData) -> dict:
    """Everything in ``adata``, copied."""
    return {
        "is_view": adata.is_view,
        "type": type(adata.X),
        "obs": adata.obs.copy(),
        "var": adata.var.copy(),
        "uns": deepcopy(dict(adata.uns)),
        "X": _dense(adata.X),
        "layers": {key: _dense(adata.layers[key]) for key in adata.layers if key is not None},
        "obsm": {key: _dense(adata.obsm[key]) for key in adata.obsm},
    }


def _assert_same(found, expected) -> None:
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key in expected:
            _assert_same(found[key], expected[key])
    elif isinstance(expected, pd.DataFrame):
        pd.testing.assert_frame_equal(found, expected)
    elif isinstance(expected, np.ndarray):
        np.testing.assert_array_equal(found, expected)
    else:
        assert found == expected


@pytest.fixture
def unchanged() -> Callable[[AnnData], AbstractContextManager[None]]:
    """Context in which an AnnData must stay what it is, down to its last entry."""

    @contextmanager
    def guard(adata: AnnData) -> Iterator[None]:
        before = _contents(adata)
        yield
        _assert_same(_contents(adata), before)

    return guard


@pytest.fixture
def make_adata() -> Callable[..., AnnData]:
    """Build 3 cells of each of the given conditions, pairs of a perturbation and a cell type."""

    def make(conditions=None, *, n_cells: int = 3, n_genes: int = 4, seed: int = 0) -> AnnData:
        if conditions is None:
            labels = ["control", "A", "B", "C", "A+B", "C+A", "B+D", "E+F"]
            conditions = [(label, kind) for label in labels for kind in ("T", "NK")]
        rng = np.random.default_rng(seed)
        obs = pd.DataFrame(conditions, columns=["perturbation", "cell_type"])
        obs = obs.loc[np.repeat(np.arange(len(obs)), n_cells)].reset_index(drop=True)
        obs.index = obs.index.map("cell_{}".format)
        x = np.log1p(rng.gamma(1.0, size=(len(obs), n_genes))).astype(np.float32)
        x[rng.random(x.shape) < 0.5] = 0
        return AnnData(
            sparse.csr_matrix(x),
            obs=obs.astype("category"),
            var=pd.DataFrame(index=[f"gene_{gene}" for gene in range(n_genes)]),
        )

    return make
