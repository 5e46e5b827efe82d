from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from perturbflow.evaluation import registered_cells
from perturbflow.flow import CellData, FlowConfig, TrainingSettings
from perturbflow.models import FittedFlow, FlowOptions, fit
from perturbflow.train._validation import support_of

SETTINGS = TrainingSettings(max_steps=150, batch_size=64, learning_rate=3e-3)


def fitted(adata, **options) -> FittedFlow:
    options = {"width": 64, "n_blocks": 1, "source": "noise", "parametrisation": "velocity"} | options
    return fit(adata, FlowOptions(options, SETTINGS, guidance=1.0, calibrate=False), progress_bar=False)


def dense(cells: CellData) -> np.ndarray:
    x: Any = cells.x
    return x.toarray()


def predicted(flow: FittedFlow, cells: CellData) -> np.ndarray:
    """As many cells of every training condition as there are."""
    return np.vstack(
        [
            flow.sample(dense(cells)[group.rows], group.perturbation, group.covariates, rng=np.random.default_rng(1))
            for group in cells.groups()
        ]
    )


@pytest.fixture(scope="module")
def training(_registered):
    return registered_cells(_registered).subset(np.flatnonzero(_registered.obs["split"] == "train"))


@pytest.fixture(scope="module")
def flows(_registered):
    return {zeros: fitted(_registered.copy(), zeros=zeros) for zeros in ("learned", "rounded", "none")}


def test_learned_thresholds_give_the_share_of_zeros_of_real_cells(flows, training):
    real = (dense(training) == 0).mean(axis=0)
    errors = {
        zeros: np.abs((predicted(flow, training) == 0).mean(axis=0) - real).mean() for zeros, flow in flows.items()
    }
    assert errors["learned"] < 0.05
    assert errors["learned"] < errors["none"] / 3


def test_expressed_values_are_those_that_real_cells_reach(flows, training, registered):
    x = dense(registered_cells(registered).subset(np.flatnonzero(registered.obs["split"].isin(["train", "valid"]))))
    smallest = np.where(x > 0, x, np.inf).min(axis=0)
    for zeros in ("learned", "rounded"):
        cells = predicted(flows[zeros], training)
        assert (np.where(cells > 0, cells, np.inf) >= smallest - 1e-6).all()
    cells = predicted(flows["none"], training)
    assert (np.where(cells > 0, cells, np.inf).min(axis=0) < smallest).any()  # they stay as the flow has them


def test_stored_thresholds_are_those_that_were_learned(flows):
    flow = flows["learned"]
    again = FittedFlow.from_dict(flow.to_dict())
    assert (flow.flow.support.zero_below > 0).any()
    np.testing.assert_array_equal(again.flow.support.zero_below, flow.flow.support.zero_below)
    assert again.config["zeros"] == "learned"


def test_a_parametrisation_with_zeros_of_its_own_has_no_thresholds(registered):
    flow = fitted(registered, parametrisation="zero_inflated", width=8)
    assert flow.flow.support.zero_below == 0


def test_support_before_thresholds_are_known():
    x = np.array([[0.0, 0.5], [2.0, 0.0]], dtype=np.float32)
    config = FlowConfig(n_genes=2, n_components=1, n_categories=(), parametrisation="velocity", zeros="rounded")
    assert support_of(config, [x], has_zeros=False).zero_below == pytest.approx([1.0, 0.25])
    assert support_of(config, [x], has_zeros=True).zero_below == 0


def test_unknown_zeros_are_an_error():
    with pytest.raises(
        ValueError, match=r"Expected `zeros` to be one of \['learned', 'none', 'rounded'\], found 'few'"
    ):
        FlowConfig(n_genes=2, n_components=1, n_categories=(), zeros="few")  # type: ignore[arg-type]
