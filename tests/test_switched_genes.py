"""Genes that a perturbation switches on in cells that never express them, or off in cells that all do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import perturbflow as pf

SWITCHES = {"On": (0, 0.9), "On too": (1, 1.0), "Off": (2, 0.1), "Off too": (3, 0.0)}
"""Gene of every perturbation, and the share of cells that express it then."""
CONTEXTS = ("x", "y")


@pytest.fixture(scope="module")
def screen() -> AnnData:
    """Two contexts; in the second one a gene that "On" switches on is expressed by all, and nothing changes it."""
    rng = np.random.default_rng(0)
    labels = np.repeat(["control", *SWITCHES, "On+Off"], [100, 40, 40, 40, 40, 40])
    parts = []
    for context in CONTEXTS:
        x = np.where(rng.random((len(labels), 16)) < 0.6, rng.normal(2, 0.3, (len(labels), 16)).clip(0.5), 0)
        x[:, :2], x[:, 2:4] = 0, 3
        for name, (gene, share) in SWITCHES.items():
            for label in {name, "On+Off"} if name in {"On", "Off"} else {name}:
                rows = np.flatnonzero(labels == label)
                x[rows, gene] = np.where(np.arange(len(rows)) < share * len(rows), 3, 0)
        if context == "y":
            x[:, 0] = 3
        parts.append(x)
    obs = pd.DataFrame({"p": np.tile(labels, 2), "context": np.repeat(CONTEXTS, len(labels))})
    adata = AnnData(np.vstack(parts).astype(np.float32), obs=obs.set_index(obs.index.astype(str)))
    pf.pp.setup_perturbation(adata, perturbation_key="p", control="control", covariate_keys="context")
    options: Any = {
        "model_kwargs": {"width": 8, "n_blocks": 1},
        "max_steps": 5,
        "plan_kwargs": {"calibrate": False},
        "progress_bar": False,
    }
    pf.tl.fit_flow(adata, **options)
    return adata


@pytest.mark.parametrize("context", CONTEXTS)
def test_as_many_cells_express_the_gene_as_in_training(screen, context):
    for label in [*SWITCHES, "On+Off"]:
        cells = pf.tl.predict_perturbation(screen, label, covariates={"context": context}, as_anndata=True)
        assert cells is not None
        real = screen.X[((screen.obs["p"] == label) & (screen.obs["context"] == context)).to_numpy()]
        np.testing.assert_allclose((cells.X[:, :4] > 0).mean(axis=0), (real[:, :4] > 0).mean(axis=0), atol=0.1)
        difference = np.abs(cells.X.mean(axis=0) - real.mean(axis=0))[:4]
        assert (difference < 3 * cells.varm["predicted_sd"].iloc[:4, 0] + 0.02).all()


@pytest.mark.parametrize("label", ["On too", "Off", "Off too"])
def test_the_perturbation_is_ranked_first(screen, label):
    adata = screen.copy()
    pf.tl.rank_perturbations(adata, {"p": label, "context": "x"})
    assert adata.uns["ranked_perturbations"]["perturbation"].iloc[0] == label
