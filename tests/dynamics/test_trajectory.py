from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perturbflow.dynamics import Trajectory


def trajectory(time=(0.0, 1.0, 3.0), *, d=2, **changes) -> Trajectory:
    n = len(time)
    parts = {
        "time": np.array(time),
        "values": np.arange(float(n * d)).reshape(n, d),
        "weight": np.arange(1.0, n + 1),
        "clamped": np.arange(d) == 1,
    }
    return Trajectory("run", **(parts | changes))


def test_rows_keep_what_belongs_to_genes():
    whole = trajectory()
    for chosen in (np.array([True, False, True]), slice(0, 3, 2)):
        some = whole.rows(chosen)
        assert some.name == "run"
        assert some.n_genes == 2
        assert some.time.tolist() == [0, 3]
        assert some.values.tolist() == [[0, 1], [4, 5]]
        assert some.weight.tolist() == [1, 3]
        assert some.clamped.tolist() == [False, True]


@pytest.mark.parametrize("time", [(0.0, 1.0, 1.0), (1.0, 0.0, 2.0), (0.0,), (0.0, np.nan, 1.0)])
def test_times_that_do_not_increase_are_an_error(time):
    with pytest.raises(ValueError, match="strictly increasing times in trajectory 'run'"):
        trajectory(time)


@pytest.mark.parametrize("chosen", [slice(0, 1), np.array([False, False, True])])
def test_one_row_is_no_trajectory(chosen):
    with pytest.raises(ValueError, match="at least two strictly increasing times"):
        trajectory().rows(chosen)


@pytest.mark.parametrize(
    "changes",
    [
        {"values": np.zeros((3, 2)), "time": np.arange(4.0)},
        {"weight": np.ones(2)},
        {"clamped": np.zeros(3, dtype=bool)},
    ],
)
def test_shapes_that_do_not_fit_are_an_error(changes):
    with pytest.raises(ValueError, match=r"Expected time and weight of shape \(3,\) and clamped of shape \(2,\)"):
        trajectory(**changes)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 8), st.integers(9, 40), st.integers(0, 100))
def test_bins_hold_nearly_equal_numbers_of_cells_and_keep_their_mean(n_bins, n, seed):
    rng = np.random.default_rng(seed)
    weight = rng.integers(1, 4, n).astype(float)
    whole = trajectory(np.cumsum(rng.uniform(0.1, 1, n)), weight=weight)
    bins = whole.binned(n_bins)
    assert 2 <= len(bins.time) <= n_bins
    assert bins.weight.sum() == weight.sum()
    assert (abs(bins.weight - weight.sum() / n_bins) <= 2 * weight.max()).all()
    np.testing.assert_allclose(
        np.average(bins.values, axis=0, weights=bins.weight), np.average(whole.values, axis=0, weights=weight)
    )
    np.testing.assert_allclose(np.average(bins.time, weights=bins.weight), np.average(whole.time, weights=weight))


def test_bins_of_equal_cells():
    bins = trajectory(np.arange(6.0), weight=np.ones(6)).binned(3)
    assert bins.time.tolist() == [0.5, 2.5, 4.5]
    assert bins.values.tolist() == [[1, 2], [5, 6], [9, 10]]
    assert bins.weight.tolist() == [2, 2, 2]
    assert bins.clamped.tolist() == [False, True]


def test_few_times_are_left_as_they_are():
    whole = trajectory()
    assert whole.binned(3) is whole
