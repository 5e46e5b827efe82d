from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from perturbflow.metrics._uncertainty import interval_coverage


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
        found = interval_coverage(*np.array([[-3 * z], [3 * z], [observed]]), level=0.9, standard_error=4.0)
        assert found == expected
