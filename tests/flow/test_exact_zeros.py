from __future__ import annotations

import numpy as np
import pytest

from perturbflow.flow import zero_thresholds


def test_as_many_are_expressed_as_asked_for():
    rng = np.random.default_rng(0)
    predicted = rng.normal(size=(400, 5)).astype(np.float32)
    shares = np.array([0.0, 0.1, 0.25, 0.4025, 0.45])
    found = (predicted >= zero_thresholds(predicted, shares)).mean(axis=0)
    np.testing.assert_allclose(found, shares, atol=0.5 / 400)


def test_zeros_and_values_are_told_apart_where_they_are_apart():
    rng = np.random.default_rng(1)
    is_on = np.arange(200) < 60
    predicted = np.where(is_on, np.float32(2), np.float32(0))[:, None] + rng.uniform(-0.3, 0.3, (200, 3)).astype(
        np.float32
    )
    thresholds = zero_thresholds(predicted, np.full(3, 0.3))
    np.testing.assert_array_equal(predicted >= thresholds, np.repeat(is_on[:, None], 3, axis=1))


def test_values_below_zero_are_never_expressed():
    predicted = np.array([[-2.0], [-1.0], [-0.5], [1.0]])
    threshold = zero_thresholds(predicted, np.array([0.75]))
    assert threshold.tolist() == [0.0]  # more than are above 0 cannot be
    assert threshold.dtype == np.float32


def test_order_of_cells_does_not_matter():
    predicted = np.random.default_rng(2).normal(size=(30, 4))
    shares = np.linspace(0.1, 0.9, 4)
    np.testing.assert_array_equal(zero_thresholds(predicted, shares), zero_thresholds(predicted[::-1], shares))


@pytest.mark.parametrize(
    ("shape", "shares", "found"),
    [
        ((3, 2), [0.5], r"shape \(1,\)"),
        ((3, 2), [0.5, 1.5], r"from 0\.5 to 1\.5"),
        ((3, 1), [np.nan], "from nan to nan"),
    ],
)
def test_shares_are_checked(shape, shares, found):
    with pytest.raises(ValueError, match=rf"Expected `expressed` to be {shape[1]} shares between 0 and 1.*{found}"):
        zero_thresholds(np.zeros(shape), np.array(shares))


def test_no_cells_are_an_error():
    with pytest.raises(ValueError, match="Expected predicted cells, found none"):
        zero_thresholds(np.zeros((0, 2)), np.zeros(2))
