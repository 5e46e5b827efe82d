from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import CubicSpline, make_smoothing_spline
from scipy.optimize import brentq

from perturbflow.dynamics import Trajectory, smooth


def observed(time, values, weight=None) -> Trajectory:
    time, values = np.asarray(time, dtype=float), np.asarray(values, dtype=float)
    weight = np.ones(len(time)) if weight is None else np.asarray(weight, dtype=float)
    return Trajectory("run", time, values, weight, np.zeros(values.shape[1], dtype=bool))


def irregular(n, seed=0):
    return np.sort(np.random.default_rng(seed).uniform(0, 3, n))


def noisy(time, d=5, seed=1):
    return np.sin(2 * time[:, None] + np.arange(d)) + np.random.default_rng(seed).normal(scale=0.3, size=(len(time), d))


def linear_smoother(time, weight, penalty):
    """Matrix that maps observations to the curve at their times, column by column from scipy."""
    columns = [make_smoothing_spline(time, column, w=weight, lam=penalty)(time) for column in np.eye(len(time))]
    return np.stack(columns, axis=1)


@pytest.mark.parametrize("weighted", [False, True])
def test_curves_are_those_of_scipy_at_the_same_penalty(weighted):
    time = irregular(25)
    y = noisy(time, d=2)
    weight = np.random.default_rng(2).integers(1, 6, 25) if weighted else np.ones(25)
    weight = weight.astype(float)
    found = smooth(observed(time, y, weight))
    relative, fine = weight / weight.mean(), np.linspace(time[0], time[-1], 200)
    for gene in range(y.shape[1]):

        def excess(log_penalty, freedom=found.freedom[gene]):
            return np.trace(linear_smoother(time, relative, 10**log_penalty)) - freedom

        penalty = 10 ** brentq(excess, -9, 4, xtol=1e-8)
        reference = make_smoothing_spline(time, y[:, gene], w=relative, lam=penalty)
        np.testing.assert_allclose(found(fine)[:, gene], reference(fine), atol=1e-6)
        np.testing.assert_allclose(found.derivative(fine)[:, gene], reference.derivative()(fine), atol=1e-4)
        residual = y[:, gene] - reference(time)
        noise = np.sqrt((weight * residual**2).sum() / (25 - found.freedom[gene]))
        assert found.noise[gene] == pytest.approx(noise, rel=1e-5)


def test_a_row_of_several_cells_counts_as_that_many():
    time = irregular(15)
    n_cells = np.random.default_rng(3).integers(1, 5, 15)
    cells = np.repeat(np.arange(15), n_cells)
    y = noisy(time[cells], d=1)
    means = np.stack([y[cells == k].mean(axis=0) for k in range(15)])
    found = smooth(observed(time, means, n_cells))
    # Penalised least squares over single cells, in the basis of natural splines.
    basis = CubicSpline(time, np.eye(15), bc_type="natural")
    nodes, areas = np.polynomial.legendre.leggauss(2)  # exact: the square of a piecewise linear function
    half = np.diff(time)[:, None] / 2
    points, areas = (time[:-1, None] + half * (1 + nodes)).ravel(), (half * areas).ravel()
    bend = basis(points, 2)
    roughness, rows = (bend.T * areas) @ bend, np.eye(15)[cells]

    def hat(log_penalty):
        return np.linalg.solve(rows.T @ rows + 10**log_penalty * roughness, rows.T)

    # The trace over rows of one cell is that over means: both count parameters of the curve.
    penalty = brentq(lambda p: np.trace(hat(p) @ rows) - found.freedom[0], -9, 4, xtol=1e-10)
    np.testing.assert_allclose(found(time), hat(penalty) @ y, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 40), st.floats(-5, 5), st.floats(-5, 5), st.integers(0, 100))
def test_a_straight_line_stays_one_also_beyond_its_end(n, intercept, slope, seed):
    time = irregular(n, seed)
    found = smooth(observed(time, (intercept + slope * time)[:, None]))
    beyond = np.linspace(time[0] - 2, time[-1] + 2, 50)
    np.testing.assert_allclose(found(beyond)[:, 0], intercept + slope * beyond, atol=1e-7)
    np.testing.assert_allclose(found.derivative(beyond), slope, atol=1e-6)


def test_the_derivative_is_constant_beyond_the_observed_times():
    time = irregular(30)
    found = smooth(observed(time, noisy(time)))
    for end, outside in ((time[0], np.array([-1.0, -0.3])), (time[-1], np.array([3.3, 4.5]))):
        slope = found.derivative(end)
        np.testing.assert_array_equal(found.derivative(outside), [slope, slope])
        np.testing.assert_allclose(found(outside), found(end) + (outside - end)[:, None] * slope, rtol=1e-12)


def test_the_derivative_is_that_of_the_curve():
    time = irregular(30)
    found, between = smooth(observed(time, noisy(time))), np.linspace(0.2, 2.7, 9)
    slope = (found(between + 1e-6) - found(between - 1e-6)) / 2e-6
    np.testing.assert_allclose(found.derivative(between), slope, atol=1e-6)


@pytest.mark.parametrize("n", [20, 100, 400])
def test_noise_about_a_line_leaves_a_line(n):
    time = np.linspace(0, 1, n)
    noise = np.random.default_rng(0).normal(scale=0.3, size=(n, 20))
    found = smooth(observed(time, time[:, None] + noise))
    # However many times there are, cross-validation may choose no bend at all.
    assert np.median(found.freedom) < 2.01
    line = np.stack([np.polyval(np.polyfit(time, y, 1), time) for y in (time[:, None] + noise).T], axis=1)
    straight = found.freedom < 2.01
    np.testing.assert_allclose(found(time)[:, straight], line[:, straight], atol=0.01)


def test_cross_validation_finds_the_noise():
    time = np.linspace(0, 1, 100)
    noise = np.array([0.03, 0.1, 0.3])
    y = np.sin(2 * np.pi * time)[:, None] + noise * np.random.default_rng(0).normal(size=(100, 3))
    found = smooth(observed(time, y))
    np.testing.assert_allclose(found.noise, noise, rtol=0.15)
    error = np.sqrt(((found(time) - np.sin(2 * np.pi * time)[:, None]) ** 2).mean(axis=0))
    assert (error < 0.4 * noise).all()
    assert (np.diff(found.freedom) < 0).all()  # the more noise, the smoother


def test_weights_are_relative_and_noise_is_of_one_cell():
    time = irregular(40)
    one, nine = smooth(observed(time, noisy(time))), smooth(observed(time, noisy(time), np.full(40, 9.0)))
    np.testing.assert_allclose(nine(time), one(time), rtol=1e-12)
    np.testing.assert_allclose(nine.noise, 3 * one.noise, rtol=1e-12)


def test_a_shift_of_time_a_unit_and_the_order_of_genes_do_not_matter():
    time = irregular(30)
    y = noisy(time)
    one, order = smooth(observed(time, y)), np.array([3, 0, 4, 1, 2])
    other = smooth(observed(7 + 10 * time, -2 * y[:, order]))
    np.testing.assert_allclose(other(7 + 10 * time), -2 * one(time)[:, order], atol=1e-7)
    np.testing.assert_allclose(other.derivative(7 + 10 * time), -0.2 * one.derivative(time)[:, order], atol=1e-6)
    np.testing.assert_allclose(other.noise, 2 * one.noise[order], rtol=1e-7)
    np.testing.assert_allclose(other.freedom, one.freedom[order], rtol=1e-7)


@pytest.mark.parametrize("gap", [1e-5, 1e-9, 1e-13])
def test_times_that_almost_coincide_are_one(gap):
    time = np.linspace(0, 1, 41)
    y = noisy(time)
    doubled, twice = np.insert(time, 21, time[20] + gap), np.insert(y, 21, y[20] + [0.1, 0, 0, 0, 0], axis=0)
    merged, weight = y.copy(), np.ones(41)
    merged[20, 0] += 0.05
    weight[20] = 2
    found, expected = smooth(observed(doubled, twice)), smooth(observed(time, merged, weight))
    np.testing.assert_allclose(found(time), expected(time), atol=1e-3)
    np.testing.assert_allclose(found.freedom, expected.freedom, rtol=1e-3)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_few_times_are_interpolated(n):
    time = irregular(n)
    y = noisy(time)
    found = smooth(observed(time, y))
    np.testing.assert_allclose(found(time), y, atol=1e-12)
    assert (found.noise == 0).all()
    assert (found.freedom == n).all()
    np.testing.assert_allclose(found.curve([time[0], time[-1]], 2), 0, atol=1e-9)


def test_a_dear_degree_of_freedom_makes_smoother_curves():
    time = irregular(60)
    trajectory = observed(time, noisy(time, d=30))
    plain, dear = (smooth(trajectory, cost_of_freedom=c).freedom for c in (1.0, 2.0))
    assert (dear <= plain).all()
    assert dear.mean() < plain.mean()
