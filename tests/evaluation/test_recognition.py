from __future__ import annotations

import numpy as np
import pytest

from perturbflow.evaluation._recognition import Recognition
from perturbflow.metrics._samples import Sample, Space


@pytest.fixture
def controls():
    return Sample(np.random.default_rng(0).random((6, 3)), Space(np.zeros(3)))


def test_equal_predictions_are_one_sample(controls):
    cells = controls.cells + 1.0
    found = Recognition(controls).samples(
        {"floor": (controls.cells.copy(), None), "one": (cells, cells.copy()), "two": (cells.copy(), None)}
    )
    assert found["floor"][0] is controls
    assert found["one"][0] is found["one"][1] is found["two"][0]
    assert found["two"][1] is None


@pytest.mark.parametrize("change", ["value", "shape", "type"])
def test_other_predictions_are_not(controls, change):
    other = controls.cells.copy()
    if change == "value":
        other[-1, -1] += 1.0
    other = {"value": other, "shape": other[:4], "type": other.astype(np.float32)}[change]
    assert Recognition(controls).samples({"model": (other, None)})["model"][0] is not controls


def test_what_a_model_predicts_for_all_conditions_is_kept_until_it_changes(controls):
    recognition = Recognition(controls)
    constant, changing = controls.cells + 1.0, [controls.cells + k for k in (2.0, 3.0, 2.0)]
    found = [recognition.samples({"constant": (constant.copy(), None), "changing": (one, None)}) for one in changing]
    assert found[0]["constant"][0] is found[2]["constant"][0]
    assert found[0]["changing"][0] is not found[2]["changing"][0]
