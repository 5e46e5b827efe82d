from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse


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
