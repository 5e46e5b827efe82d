from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import sparse
from scipy.spatial.distance import pdist

from perturbflow.metrics import mmd


def bandwidths_of(y):
    """Multiples of the median distance of cells."""
    return [factor * np.median(pdist(y)) for factor in (0.25, 0.5, 1, 2, 4)]


def naive(x, y, *, bandwidths, unbiased):
    def mean(a, b, same):
        total, n_pairs = 0.0, 0
        for i, p in enumerate(a):
            for j, q in enumerate(b):
                if same and unbiased and i == j:
                    continue
                n_pairs += 1
                total += sum(math.exp(-(math.dist(p, q) ** 2) / (2 * s**2)) for s in bandwidths) / len(bandwidths)
        return total / n_pairs

    return mean(x, x, True) + mean(y, y, True) - 2 * mean(x, y, False)


@pytest.mark.parametrize("unbiased", [True, False])
@pytest.mark.parametrize("bandwidths", [[1.0], [0.3, 2.0, 7.0], None])
def test_agrees_with_a_double_loop(bandwidths, unbiased):
    rng = np.random.default_rng(0)
    x, y = rng.gamma(0.3, size=(21, 9)), rng.gamma(0.5, size=(18, 9))
    used = bandwidths or bandwidths_of(y)
    expected = naive(x, y, bandwidths=used, unbiased=unbiased)
    assert mmd(x, y, bandwidths=bandwidths, unbiased=unbiased) == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("unbiased", [True, False])
def test_point_masses(unbiased):
    x, y = np.tile([3.0, 4.0], (4, 1)), np.zeros((7, 2))
    expected = 2 - math.exp(-25 / (2 * 4)) - math.exp(-25 / (2 * 9))
    assert mmd(x, y, bandwidths=[2.0, 3.0], unbiased=unbiased) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("shift", [0.0, 1.0, 3.0])
def test_normal_laws(shift):
    # E k(X, Y) = s / sqrt(s^2 + 2) exp(-shift^2 / (2 (s^2 + 2))) for X - Y ~ N(shift, 2).
    s = 0.8
    expected = 2 * s / math.sqrt(s**2 + 2) * (1 - math.exp(-(shift**2) / (2 * (s**2 + 2))))
    rng = np.random.default_rng(0)
    values = [mmd(rng.normal(size=(200, 1)), rng.normal(shift, size=(150, 1)), bandwidths=[s]) for _ in range(40)]
    standard_error = np.std(values, ddof=1) / math.sqrt(len(values))
    assert abs(np.mean(values) - expected) < 4 * standard_error
    assert standard_error < 0.01


@pytest.mark.parametrize(("n", "m"), [(2, 3), (10, 4)])
def test_unbiased_estimate_has_mean_zero_for_equal_laws(n, m):
    rng = np.random.default_rng(1)
    pairs = [(rng.gamma(0.5, size=(n, 3)), rng.gamma(0.5, size=(m, 3))) for _ in range(600)]
    unbiased = np.array([mmd(x, y, bandwidths=[0.5, 1.0]) for x, y in pairs])
    standard_error = unbiased.std(ddof=1) / math.sqrt(len(unbiased))
    assert abs(unbiased.mean()) < 4 * standard_error
    assert min(mmd(x, y, bandwidths=[0.5, 1.0], unbiased=False) for x, y in pairs) > 0


def test_bandwidths_are_those_of_the_reference():
    rng = np.random.default_rng(2)
    x, y = rng.gamma(1.0, size=(20, 5)), rng.gamma(1.5, size=(15, 5))
    bandwidths = bandwidths_of(y)
    assert mmd(x, y) == pytest.approx(mmd(x, y, bandwidths=bandwidths), abs=1e-12)
    assert mmd(x, y) != pytest.approx(mmd(x, y, bandwidths=bandwidths_of(x)), abs=1e-6)
    assert mmd(sparse.csr_matrix(x), sparse.csr_matrix(y)) == pytest.approx(mmd(x, y), abs=1e-12)


def test_invariances():
    rng = np.random.default_rng(3)
    x, y = rng.gamma(1.0, size=(20, 5)), rng.gamma(1.5, size=(15, 5))
    value = mmd(x, y)
    assert mmd(x + 7.0, y + 7.0) == pytest.approx(value, abs=1e-10)
    # The offset rounds the values themselves to 1e-11.
    assert mmd(x + 1e5, y + 1e5) == pytest.approx(value, abs=1e-9)
    assert mmd(-3 * x, -3 * y) == pytest.approx(value, abs=1e-10)


def test_median_of_many_cells_is_that_of_evenly_spaced_rows(monkeypatch):
    y = np.random.default_rng(4).normal(size=(50, 3))
    monkeypatch.setattr("perturbflow.metrics._energy.MAX_MEDIAN_CELLS", 8)
    few = y[[0, 7, 14, 21, 28, 35, 42, 49]]
    assert mmd(y + 1, y) == pytest.approx(mmd(y + 1, y, bandwidths=bandwidths_of(few)), abs=1e-12)


@pytest.mark.parametrize("bandwidths", [[], [1.0, 0.0], [-1.0], [np.nan], 1.0])
def test_bandwidths_must_be_positive(bandwidths):
    with pytest.raises(ValueError, match="Expected `bandwidths` to be a sequence of positive numbers, found"):
        mmd(np.zeros((3, 2)), np.ones((3, 2)), bandwidths=bandwidths)


def test_equal_reference_cells_have_no_bandwidth():
    with pytest.raises(ValueError, match="found a median distance of 0. Pass `bandwidths`"):
        mmd(np.zeros((3, 2)), np.ones((3, 2)))
