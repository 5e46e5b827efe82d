from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from anndata import AnnData

from perturbflow.pl import training

STEPS, VALID_STEPS = np.arange(0, 300, 10), np.arange(0, 300, 50)
LOSS = 1 / (1 + STEPS / 100)
ENERGY = np.array([1.0, 0.5, np.nan, 0.2, 0.3, 0.4])


@pytest.fixture
def with_history(monkeypatch):
    """Let a flow with some history be found."""

    def read(history, *, entry_time=0.7):
        flow = SimpleNamespace(history=history, flow=SimpleNamespace(config=SimpleNamespace(entry_time=entry_time)))
        monkeypatch.setattr("perturbflow.pl._fits.read_flow", lambda adata, key: flow)
        return AnnData(np.zeros((1, 1), dtype=np.float32))

    return read


def test_loss_energy_and_best_step(with_history):
    adata = with_history({"step": STEPS, "loss": LOSS, "valid_step": VALID_STEPS, "valid_energy": ENERGY})
    ax: Any = training(adata)
    np.testing.assert_array_equal(ax.lines[0].get_xydata(), np.column_stack([STEPS, LOSS]))
    (other,) = (each for each in ax.figure.axes if each is not ax)
    curve, mark, line = other.lines
    np.testing.assert_array_equal(curve.get_xydata(), np.column_stack([VALID_STEPS, ENERGY]))
    assert mark.get_xydata().tolist() == [[150, 0.2]]
    assert line.get_xdata() == [150, 150]
    assert ax.get_title(loc="right") == "best: step 150"
    assert ax.get_xlabel() == "training step"
    assert "loss" in ax.get_ylabel()
    assert "energy distance" in other.get_ylabel()


def test_axes_have_zero_on_them(with_history):
    history = {"step": STEPS, "loss": 1.3 + LOSS / 100, "valid_step": VALID_STEPS, "valid_energy": ENERGY + 5}
    for ax in training(with_history(history)).figure.axes:
        assert ax.get_ylim()[0] == 0
    (_, other) = training(with_history(history | {"valid_energy": ENERGY - 0.3})).figure.axes
    assert other.get_ylim()[0] < -0.1


def test_it_is_said_if_the_network_is_not_used(with_history):
    history = {"step": STEPS, "loss": LOSS, "valid_step": VALID_STEPS, "valid_energy": ENERGY}
    title = training(with_history(history, entry_time=1.0)).get_title(loc="right")
    assert title == "best: step 150; not used: predictions are those of the prior"


def test_without_held_out_conditions(with_history):
    _, given = plt.subplots()
    adata = with_history({"step": STEPS, "loss": LOSS, "valid_step": [], "valid_energy": []})
    ax: Any = training(adata, ax=given)
    assert ax is given
    assert ax.figure.axes == [ax]
    assert [text.get_text() for text in ax.texts] == ["no held-out conditions"]


def test_missing_flow_names_the_call():
    with pytest.raises(KeyError, match=r"Run `pf.tl.fit_flow\(adata, key_added='mine'\)` first"):
        training(AnnData(np.zeros((1, 1), dtype=np.float32)), key="mine")
