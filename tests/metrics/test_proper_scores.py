from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from perturbflow.metrics._proper_scores import gaussian_crps, negative_log_likelihood

SCORES = [gaussian_crps, negative_log_likelihood]


@pytest.mark.parametrize(("mean", "sd", "observed"), [(0.0, 1.0, 0.3), (2.0, 0.5, -1.0), (-1.0, 3.0, 4.0)])
def test_crps_is_the_integral(mean, sd, observed):
    below = quad(lambda t: norm.cdf(t, mean, sd) ** 2, -50, observed)[0]
    above = quad(lambda t: (1 - norm.cdf(t, mean, sd)) ** 2, observed, 50)[0]
    assert gaussian_crps([mean], [sd], [observed]) == pytest.approx(below + above, abs=1e-6)


def test_likelihood_is_that_of_scipy():
    rng = np.random.default_rng(0)
    mean, sd, observed = rng.normal(size=(2, 9)), rng.gamma(2.0, size=(2, 9)), rng.normal(size=(2, 9))
    expected = -norm.logpdf(observed, mean, sd).mean(axis=1)
    np.testing.assert_allclose(negative_log_likelihood(mean, sd, observed), expected, atol=1e-12)


@pytest.mark.parametrize("score", SCORES)
def test_sampling_error_adds_to_the_variance(score):
    found = score([1.0, 2.0], [3.0, 0.3], [0.5, 2.5], standard_error=[4.0, 0.4])
    assert found == pytest.approx(score([1.0, 2.0], [5.0, 0.5], [0.5, 2.5]), abs=1e-12)


@pytest.mark.parametrize("score", SCORES)
def test_scores_are_proper(score):
    # In expectation nothing beats the truth, here N(0.5, 2^2).
    observed = np.random.default_rng(1).normal(0.5, 2.0, size=100_000)

    def of(mean, sd):
        return score(np.full_like(observed, mean), np.full_like(observed, sd), observed)

    truth = of(0.5, 2.0)
    for mean, sd in ((0.5, 1.5), (0.5, 2.6), (0.0, 2.0), (1.0, 2.0)):
        assert of(mean, sd) > truth + 0.005


def test_expected_crps_of_the_truth():
    observed = np.random.default_rng(2).normal(size=100_000)
    zeros, ones = np.zeros_like(observed), np.ones_like(observed)
    assert gaussian_crps(zeros, ones, observed) == pytest.approx(1 / np.sqrt(np.pi), rel=0.01)
    # Without uncertainty it is the absolute error, sqrt(2 / pi) in expectation.
    assert gaussian_crps(zeros, zeros, observed) == np.abs(observed).mean()


@pytest.mark.parametrize("score", SCORES)
def test_one_score_a_condition(score):
    rng = np.random.default_rng(3)
    mean, sd, observed = rng.normal(size=(4, 6)), rng.gamma(2.0, size=(4, 6)), rng.normal(size=(4, 6))
    each = [score(*row) for row in zip(mean, sd, observed, strict=True)]
    np.testing.assert_allclose(score(mean, sd, observed), each, atol=1e-14)


@pytest.mark.parametrize("score", SCORES)
def test_bad_predictions_are_refused(score):
    with pytest.raises(ValueError, match="Expected arrays of one shape"):
        score([0.0, 1.0], [1.0], [0.0, 1.0])
    with pytest.raises(ValueError, match="Expected `sd` to be 0 or more, found 1 negative"):
        score([0.0], [-1.0], [0.0])


def test_certainty_has_no_likelihood():
    with pytest.raises(ValueError, match="Expected a positive standard deviation everywhere, found 0 in 1 places"):
        negative_log_likelihood([0.0, 0.0], [0.0, 1.0], [0.0, 0.0])
    assert np.isfinite(negative_log_likelihood([0.0], [0.0], [0.0], standard_error=[1.0]))
