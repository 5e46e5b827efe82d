from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm, spearmanr

from perturbflow.metrics._uncertainty import (
    LEVELS,
    calibration_curve,
    expected_calibration_error,
    interval_coverage,
    rank_correlation_of_error_and_uncertainty,
)


def predictions(*, factor=1.0, noise=0.0, seed=0, shape=(5, 20_000)):
    """Means, standard deviations and observations, whose errors are ``factor`` times what is stated."""
    rng = np.random.default_rng(seed)
    mean, sd = rng.normal(size=shape), rng.gamma(2.0, size=shape)
    standard_error = noise * rng.gamma(2.0, size=shape)
    observed = mean + factor * sd * rng.normal(size=shape) + standard_error * rng.normal(size=shape)
    return mean, sd, observed, standard_error


def test_coverage_by_hand():
    lower, upper = np.zeros((2, 4)), np.ones((2, 4))
    observed = np.array([[0.0, 1.0, 0.5, 1.1], [-0.1, 2.0, 3.0, 0.2]])
    np.testing.assert_array_equal(interval_coverage(lower, upper, observed, level=0.9), [0.75, 0.25])
    assert interval_coverage(lower[0], upper[0], observed[0], level=0.9) == 0.75


@pytest.mark.parametrize("level", [0.5, 0.9])
@pytest.mark.parametrize("noise", [0.0, 1.5])
def test_coverage_of_calibrated_intervals(level, noise):
    mean, sd, observed, standard_error = predictions(noise=noise)
    half = norm.ppf((1 + level) / 2) * sd
    found = interval_coverage(mean - half, mean + half, observed, level=level, standard_error=standard_error)
    assert found.shape == (5,)
    np.testing.assert_allclose(found, level, atol=0.015)
    if noise:  # what an observation with noise makes of intervals of the true mean
        assert (interval_coverage(mean - half, mean + half, observed, level=level) < level - 0.1).all()


def test_an_interval_is_widened_in_quadrature():
    z = norm.ppf(0.95)
    # Half-width 3 z, standard error 4: half-width 5 z.
    for observed, expected in ((4.99 * z, 1), (5.01 * z, 0), (-4.99 * z, 1), (-5.01 * z, 0)):
        found = interval_coverage([-3 * z], [3 * z], [observed], level=0.9, standard_error=[4.0])
        assert found == expected


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
def test_calibration_curve_of_normal_errors(factor):
    mean, sd, observed, standard_error = predictions(factor=factor)
    levels, coverage = calibration_curve(mean, sd, observed, standard_error=standard_error)
    np.testing.assert_array_equal(levels, LEVELS)
    expected = 2 * norm.cdf(norm.ppf((1 + levels) / 2) / factor) - 1
    np.testing.assert_allclose(coverage, expected, atol=0.007)
    error = expected_calibration_error(mean, sd, observed)
    assert error == pytest.approx(np.abs(expected - levels).mean(), abs=0.007)


def test_curve_agrees_with_intervals():
    mean, sd, observed, standard_error = predictions(factor=1.4, noise=0.7, shape=(300,))
    levels, coverage = calibration_curve(mean, sd, observed, standard_error=standard_error, levels=[0.2, 0.9])
    for level, found in zip(levels, coverage, strict=True):
        half = norm.ppf((1 + level) / 2) * sd
        assert found == interval_coverage(
            mean - half, mean + half, observed, level=level, standard_error=standard_error
        )


def test_certain_predictions():
    # Without any spread a mean is either right, and covered at every level, or wrong.
    _, coverage = calibration_curve([1.0, 1.0], [0.0, 0.0], [1.0, 1.5], levels=[0.1, 0.9])
    np.testing.assert_array_equal(coverage, [0.5, 0.5])
    assert expected_calibration_error([1.0], [0.0], [1.0], levels=[0.25]) == 0.75


def test_rank_correlation_agrees_with_scipy():
    mean, sd, observed, _ = predictions(shape=(3, 50))
    observed[0, :20] = mean[0, :20] + np.round(observed[0, :20] - mean[0, :20])  # ties
    found = rank_correlation_of_error_and_uncertainty(mean, sd, observed)
    expected = [spearmanr(np.abs(o - m), s).statistic for m, s, o in zip(mean, sd, observed, strict=True)]
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert rank_correlation_of_error_and_uncertainty(mean[0], sd[0], observed[0]) == pytest.approx(expected[0])


def test_rank_correlation_of_true_standard_deviations_is_positive_but_not_one():
    mean, sd, observed, _ = predictions(shape=(20_000,))
    assert 0.3 < rank_correlation_of_error_and_uncertainty(mean, sd, observed) < 0.7
    assert rank_correlation_of_error_and_uncertainty(mean, sd, mean + 3 * sd) == pytest.approx(1)


def test_rank_correlation_is_undefined_where_nothing_differs():
    mean, observed = np.zeros((2, 4)), np.array([[1.0, 2.0, 3.0, 4.0]] * 2)
    found = rank_correlation_of_error_and_uncertainty(mean, [[1.0] * 4, [1.0, 2.0, 3.0, 4.0]], observed)
    np.testing.assert_allclose(found, [np.nan, 1.0], atol=1e-12)


ONES = np.ones(3)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        pytest.param((ONES, ONES, ONES[:2]), {}, "Expected arrays of one shape", id="shape"),
        pytest.param((ONES, ONES[:2], ONES), {}, "Expected arrays of one shape", id="shape_of_sd"),
        pytest.param((1.0, 1.0, 1.0), {}, "Expected arrays of one shape", id="no_axis"),
        pytest.param((ONES[:0],) * 3, {}, "Expected arrays of one shape", id="empty"),
        pytest.param((ONES, ONES, ONES * np.nan), {}, "finite values in `observed`, found 3", id="nan"),
        pytest.param((ONES, -ONES, ONES), {}, "Expected `sd` to be 0 or more, found 3 negative", id="negative"),
        pytest.param((ONES, ONES, ONES), {"standard_error": -ONES}, "Expected `standard_error` to be 0", id="error"),
        pytest.param((ONES, ONES, ONES), {"levels": [0.5, 1.0]}, "Expected probabilities between 0 and 1", id="level"),
        pytest.param((ONES, ONES, ONES), {"levels": []}, "Expected probabilities between 0 and 1", id="no_levels"),
    ],
)
def test_bad_predictions_are_refused(arguments, options, message):
    for function in (calibration_curve, expected_calibration_error):
        with pytest.raises(ValueError, match=message):
            function(*arguments, **options)


def test_bad_intervals_are_refused():
    with pytest.raises(ValueError, match="Expected `upper` at or above `lower`, found it below in 3 places"):
        interval_coverage(ONES, 0 * ONES, ONES, level=0.9)
    with pytest.raises(ValueError, match=r"Expected probabilities between 0 and 1, found \[90\]"):
        interval_coverage(0 * ONES, ONES, ONES, level=90)
    with pytest.raises(ValueError, match="Expected arrays of one shape"):
        rank_correlation_of_error_and_uncertainty(ONES, ONES, ONES[:2])
