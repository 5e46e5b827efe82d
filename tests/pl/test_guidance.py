from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from anndata import AnnData

from perturbflow.pl import guidance

CURVE = {
    "weight": np.array([1.0, 2.0, 5.0]),
    "energy_distance": np.array([0.2, 0.3, 0.9]),
    "energy_distance_se": np.array([0.01, 0.02, 0.1]),
    "recall": np.array([0.3, 0.4, 0.35]),
    "recall_se": np.array([0.05, 0.04, 0.03]),
}


@pytest.fixture
def with_curve(monkeypatch):
    """Let a flow with some curve be found."""

    def read(curve, *, used=2.0, entry_time=0.7):
        config = SimpleNamespace(guidance=used, entry_time=entry_time)
        flow = SimpleNamespace(guidance_curve=curve, flow=SimpleNamespace(config=config))
        monkeypatch.setattr("perturbflow.pl._fits.read_flow", lambda adata, key: flow)
        return AnnData(np.zeros((1, 1), dtype=np.float32))

    return read


def test_every_weight_is_drawn_and_the_used_one_marked(with_curve):
    ax: Any = guidance(with_curve(CURVE))
    expected = np.column_stack([CURVE["energy_distance"], CURVE["recall"]])
    np.testing.assert_array_equal(ax.lines[0].get_xydata(), expected)
    (mark,) = (line for line in ax.lines if line.get_marker() == "D")
    np.testing.assert_array_equal(mark.get_xydata(), expected[[1]])
    assert [text.get_text() for text in ax.texts] == ["1", "2", "5"]
    assert ax.get_xlabel() == "energy distance (lower is better)"
    assert "recall" in ax.get_ylabel()


def test_a_weight_that_was_not_traced_is_named_but_not_marked(with_curve):
    ax: Any = guidance(with_curve(CURVE, used=4.0))
    assert not [line for line in ax.lines if line.get_marker() == "D"]
    assert ax.get_title(loc="right") == "used: 4"


def test_without_the_network_guidance_changes_nothing(with_curve):
    ax: Any = guidance(with_curve(CURVE, entry_time=1.0))
    assert ax.get_title(loc="right") == "used: 2; predictions are those of the prior"


def test_fit_without_validation_conditions_has_none(with_curve):
    with pytest.raises(ValueError, match=r"guidance curve in `adata.uns\['flow'\]`.*Run `pf.pp.split_perturbations"):
        guidance(with_curve({}))


def test_missing_flow_is_an_error():
    with pytest.raises(KeyError, match=r"pf\.tl\.fit_flow"):
        guidance(AnnData(np.zeros((1, 1), dtype=np.float32)))
