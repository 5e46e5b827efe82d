from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perturbflow.baselines import FLOORS, TRAJECTORY_BASELINES
from perturbflow.dynamics import Trajectory

ALL = {**TRAJECTORY_BASELINES, **FLOORS}
predict_zero, hold_start, training_mean, training_curve = TRAJECTORY_BASELINES.values()
own_mean, leave_one_out_smoother = FLOORS.values()
few = settings(max_examples=20, deadline=None)


def trajectory(seed: int = 0, *, n: int = 30, d: int = 4, course=np.sin, noise: float = 0.1, cells: int = 5):
    """Noisy courses of d genes at irregular times from 0 to 6."""
    rng = np.random.default_rng(seed)
    time = np.sort(rng.uniform(0, 6, n))
    values = 2 + course(time[:, None] + np.arange(d)) + noise * rng.normal(size=(n, d))
    weight = rng.integers(1, cells + 1, n).astype(np.float64)
    return Trajectory(f"trajectory{seed}", time, values, weight, np.zeros(d, dtype=bool))


def error(predicted, test):
    return ((predicted - test.values) ** 2).mean()


@pytest.mark.parametrize("name", ALL)
def test_one_form(name):
    test = trajectory(1, n=12)
    predicted = ALL[name]([trajectory(2), trajectory(3, n=9)], test)
    assert predicted.shape == (12, 4)
    assert np.isfinite(predicted).all()


@pytest.mark.parametrize("name", TRAJECTORY_BASELINES)
def test_baselines_see_only_the_start_of_the_test_trajectory(name):
    test = trajectory(1)
    values = test.values.copy()
    values[5:] += 100
    other = Trajectory("other", test.time, values, test.weight, test.clamped)
    baseline = TRAJECTORY_BASELINES[name]
    assert (baseline([trajectory(2)], other) == baseline([trajectory(2)], test)).all()


@pytest.mark.parametrize("name", FLOORS)
def test_floors_see_the_test_values_and_nothing_else(name):
    test, floor = trajectory(1), FLOORS[name]
    shifted = Trajectory("shifted", test.time, test.values + 3, test.weight, test.clamped)
    np.testing.assert_allclose(floor([trajectory(2)], shifted), floor([trajectory(3)], test) + 3)


@pytest.mark.parametrize("name", ALL)
@given(seed=st.integers(0, 1000))
@few
def test_order_of_genes_does_not_matter(name, seed):
    train, test = trajectory(seed, n=11), trajectory(seed + 1, n=8)
    order = np.random.default_rng(seed).permutation(4)
    permuted = [Trajectory(x.name, x.time, x.values[:, order], x.weight, x.clamped) for x in (train, test)]
    np.testing.assert_allclose(ALL[name](permuted[:1], permuted[1]), ALL[name]([train], test)[:, order])


def test_closed_forms():
    train = [
        Trajectory("a", np.array([0.0, 1.0]), np.array([[1.0], [4.0]]), np.array([1.0, 3.0]), np.zeros(1, bool)),
        Trajectory("b", np.array([0.0, 2.0]), np.array([[2.0], [0.0]]), np.array([2.0, 4.0]), np.zeros(1, bool)),
    ]
    test = train[0]
    assert predict_zero(train, test).tolist() == [[0], [0]]
    assert hold_start(train, test, n_rows=1).tolist() == [[1], [1]]
    assert hold_start(train, test).tolist() == [[13 / 4], [13 / 4]]
    assert training_mean(train, test).tolist() == [[1.7], [1.7]]
    assert own_mean(train, test).tolist() == [[13 / 4], [13 / 4]]
    near, far = np.exp(-0.5), np.exp(-2)
    curve = [(1 * 1 + 2 * 2 + 3 * 4 * near) / (3 + 3 * near + 4 * far), (12 + 5 * near) / (3 + 7 * near)]
    assert training_curve(train, test, bandwidth=1.0).ravel() == pytest.approx(curve)
    assert leave_one_out_smoother(train, test, bandwidth=1.0).tolist() == [[4], [1]]


@pytest.mark.parametrize("bandwidth", [np.inf, 1e6])
def test_wide_kernels_give_the_mean(bandwidth):
    train, test = [trajectory(1), trajectory(2)], trajectory(3)
    expected = training_mean(train, test)
    np.testing.assert_allclose(training_curve(train, test, bandwidth=bandwidth), expected, atol=1e-9)


def test_narrow_kernels_give_the_nearest_row():
    train, test = trajectory(1), trajectory(2)
    nearest = np.abs(test.time[:, None] - train.time).argmin(axis=1)
    np.testing.assert_allclose(training_curve([train], test, bandwidth=1e-9), train.values[nearest])
    np.testing.assert_allclose(training_curve([train], train, bandwidth=1e-9), train.values)
    others = leave_one_out_smoother([train], train, bandwidth=1e-9)
    assert (np.abs(others - train.values) > 0).all()


def test_many_rows_are_smoothed_in_parts():
    train = trajectory(1, n=2500, d=2)
    middle = Trajectory("", train.time[1000:1050], train.values[1000:1050], train.weight[1000:1050], train.clamped)
    for function, of in ((training_curve, train), (leave_one_out_smoother, train)):
        whole = function([train], of, bandwidth=0.001)
        assert whole.shape == (2500, 2)
        if function is training_curve:
            np.testing.assert_allclose(whole[1000:1050], function([train], middle, bandwidth=0.001))
    k = 2000
    kernel = train.weight * np.exp(-((train.time - train.time[k]) ** 2) / 2 / 0.1**2)
    kernel[k] = 0
    smooth = leave_one_out_smoother([train], train, bandwidth=0.1)
    np.testing.assert_allclose(smooth[k], kernel @ train.values / kernel.sum())


def test_bandwidth_is_that_of_least_error_on_training_rows():
    train = trajectory(1, noise=0.3)
    smooth = leave_one_out_smoother([train], train)
    others = [error(leave_one_out_smoother([train], train, bandwidth=h), train) for h in np.geomspace(0.05, 6, 12)]
    # Rows count by their cells when the bandwidth is chosen; with one cell each the error itself is least.
    single = Trajectory("single", train.time, train.values, np.ones(30), train.clamped)
    chosen = error(leave_one_out_smoother([single], single), single)
    for h in 6 * np.geomspace(0.01, 1, 9):
        assert chosen <= error(leave_one_out_smoother([single], single, bandwidth=h), single) * 1.02
    assert error(smooth, train) < 1.1 * min(others)


def test_without_a_course_the_mean_is_chosen():
    rng = np.random.default_rng(0)
    noise = Trajectory("noise", np.arange(40.0), rng.normal(size=(40, 200)), np.ones(40), np.zeros(200, dtype=bool))
    np.testing.assert_allclose(training_curve([noise], noise), training_mean([noise], noise), atol=0.1)


def test_a_shared_course_is_found():
    train, test = [trajectory(seed, n=60) for seed in (1, 2, 3)], trajectory(4, n=60)
    curve, floor = error(training_curve(train, test), test), error(leave_one_out_smoother(train, test), test)
    assert 0.01 < curve < 0.02  # the variance of the noise is 0.01
    assert curve < 0.1 * error(training_mean(train, test), test)
    assert 0.01 < floor < 0.03


@pytest.mark.parametrize("name", ALL)
def test_bad_trajectories_are_refused(name):
    test = trajectory(1)
    with pytest.raises(ValueError, match="Expected at least one training trajectory, found none"):
        ALL[name]([], test)
    with pytest.raises(ValueError, match="Expected the 4 genes of the test trajectory, found 3 in 'trajectory2'"):
        ALL[name]([trajectory(2, d=3)], test)
    unknown = trajectory(2)
    unknown.values[3, 1] = np.nan
    with pytest.raises(ValueError, match="found NaN or infinity in trajectory 'trajectory2'"):
        ALL[name]([unknown], test)


@pytest.mark.parametrize("function", [training_curve, leave_one_out_smoother])
@pytest.mark.parametrize("bandwidth", [0.0, -1.0, np.nan])
def test_bandwidth_is_positive(function, bandwidth):
    with pytest.raises(ValueError, match="Expected `bandwidth` to be above 0"):
        function([trajectory(1)], trajectory(2), bandwidth=bandwidth)


def test_the_start_has_rows():
    with pytest.raises(ValueError, match="Expected `n_rows` to be at least 1, found 0"):
        hold_start([trajectory(1)], trajectory(2), n_rows=0)


def test_registries_are_read_only_and_disjoint():
    assert not set(TRAJECTORY_BASELINES) & set(FLOORS)
    with pytest.raises(TypeError, match="does not support item assignment"):
        FLOORS["x"] = own_mean  # type: ignore[index]
