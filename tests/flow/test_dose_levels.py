"""Doses as weights of measured doses."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from perturbflow.flow._dose_levels import DoseLevels

positive = st.floats(2**-10, 2**14, width=32)


def test_levels_are_the_measured_doses():
    levels = DoseLevels.of(np.array([[0.0, 3.0, 0.0], [2.0, 0.0, 0.0], [2.0, 1.0, 0.0]]))
    assert levels.components.tolist() == [0, 1, 1, 2]
    assert levels.doses.tolist() == [2.0, 1.0, 3.0, 1.0]
    assert levels.doses[levels.of_component(1)].tolist() == [1.0, 3.0]


@pytest.mark.parametrize(
    ("measured", "asked", "weights", "position"),
    [
        pytest.param([1, 2, 4], 2, [0, 1, 0], 2 / 3, id="measured"),
        pytest.param([1, 2, 4], 3, [0, 0.5, 0.5], 5 / 6, id="between"),
        pytest.param([1, 2, 4], 0.25, [0.25, 0, 0], 1 / 12, id="below"),
        pytest.param([1, 2, 4], 40, [0, 0, 1], 1, id="beyond"),
        pytest.param([1, 2, 4], 0, [0, 0, 0], 0, id="none"),
        pytest.param([1, 10, 1000], 100, [0, 0.5, 0.5], 5 / 6, id="logarithmic"),
        pytest.param([5], 2, [0.4], 0.4, id="one_dose"),
    ],
)
def test_weights_and_positions(measured, asked, weights, position):
    levels = DoseLevels.of(np.array(measured, dtype=float)[:, None])
    np.testing.assert_allclose(levels.design(np.array([[asked]], dtype=float)).toarray()[0], weights, atol=1e-12)
    assert levels.positions(np.array([[asked]], dtype=float))[0, 0] == pytest.approx(position)


@given(arrays(np.float32, 6, elements=positive), positive, positive)
def test_more_of_a_dose_is_never_a_lower_position(measured, one, other):
    levels = DoseLevels.of(measured.astype(float)[:, None])
    low, high = levels.positions(np.array([[min(one, other)], [max(one, other)]]))[:, 0]
    assert 0 < low <= high + 1e-6 <= 1 + 2e-6
    weights = levels.design(np.array([[one]])).toarray()
    assert (weights >= 0).all()
    assert weights.sum() <= 1 + 1e-9


def test_many_doses_share_levels():
    doses = np.geomspace(1, 100, 50)[:, None]
    levels = DoseLevels.of(doses)
    assert len(levels.doses) == 8
    assert levels.doses[[0, -1]].tolist() == [1.0, 100.0]
    np.testing.assert_allclose(levels.design(doses).toarray().sum(axis=1), 1)


@pytest.mark.parametrize(
    ("before", "after", "factor"),
    [
        pytest.param([1], [1, 4], 2, id="one_more"),
        pytest.param([1], [4], 4, id="higher"),
        pytest.param([1, 4], [1], 0.5, id="one_less"),
        pytest.param([10], [1], 0.1, id="lower"),
        pytest.param([1, 10], [1, 10, 100], 1.5, id="decades"),
    ],
)
def test_factor_keeps_what_known_doses_meant(before, after, factor):
    earlier = DoseLevels.of(np.array(before, dtype=float)[:, None])
    levels = DoseLevels.of(np.array(after, dtype=float)[:, None] * [[0, 1]])
    assert levels.factor_from(earlier, 0, 1) == pytest.approx(factor)
