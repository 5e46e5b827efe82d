from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from perturbflow.metrics import Moments, error_of_variances, error_of_zero_fractions

FUNCTIONS = [error_of_zero_fractions, error_of_variances]
CONTAINERS = [np.asfortranarray, sparse.csr_matrix, sparse.csc_matrix, sparse.coo_array]


def counts(n, *, seed, mean=0.6, n_genes=7):
    return np.random.default_rng(seed).poisson(mean, (n, n_genes)).astype(float)


def test_zero_fractions_by_hand():
    x = np.array([[0.0, 1.0, 0.0, -2.0]] * 4)
    y = np.array([[0.0, 0.0, 3.0, 1.0], [0.0, 5.0, 0.0, 1.0]])
    assert error_of_zero_fractions(x, y) == np.mean([0, 0.5, 0.5, 0])


def test_only_exact_zeros_count():
    y = counts(50, seed=0)
    assert error_of_zero_fractions(y, y) == 0
    assert error_of_zero_fractions(3 * y, y) == 0
    assert error_of_zero_fractions(y + 1e-6, y) == pytest.approx((y == 0).mean(), abs=1e-12)


def test_stored_zeros_are_zeros():
    y = counts(9, seed=1)
    stored = sparse.csr_array(y + 1)
    stored.data -= 1
    assert stored.nnz == y.size
    assert error_of_zero_fractions(stored, y) == 0


def test_zero_fractions_of_a_perfect_prediction():
    z, m = np.exp(-0.6), 40
    perfect = np.zeros((10_000, 400))
    perfect[round(10_000 * z) :] = 1
    found = error_of_zero_fractions(perfect, counts(m, seed=2, n_genes=400))
    assert found == pytest.approx(np.sqrt(2 * z * (1 - z) / (np.pi * m)), rel=0.1)


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 3.0])
def test_spread_of_scaled_cells(scale):
    y = counts(30, seed=3)
    mean = y.mean(axis=0)
    assert error_of_variances(mean + scale * (y - mean), y) == pytest.approx(abs(scale - 1), abs=1e-12)


def test_spread_by_hand():
    x = np.array([[0.0, 0.0, 1.0], [2.0, 0.0, 1.0]])  # standard deviations sqrt(2), 0, 0
    y = np.array([[0.0, 4.0, 1.0], [0.0, 0.0, 1.0]])  # 0, 2 sqrt(2), 0
    assert error_of_variances(x, y) == pytest.approx((1 + 2) / 2, abs=1e-12)
    assert np.isnan(error_of_variances(x, np.ones((4, 3))))


def test_moments_are_as_good_as_cells():
    x, y = counts(12, seed=4), counts(15, seed=5)
    assert error_of_variances(Moments.of(x), Moments.of(y)) == error_of_variances(x, y)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("container", CONTAINERS)
def test_containers_agree(function, container):
    x, y = counts(12, seed=6), counts(15, seed=7, mean=0.3)
    expected = function(x, y)
    assert expected > 0
    assert function(container(x), container(y)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_bad_cells_are_refused(function):
    good = counts(5, seed=8)
    with pytest.raises(ValueError, match="Expected the same genes in x, y; found"):
        function(good, good[:, :3])
    with pytest.raises(ValueError, match="finite values in `y`"):
        function(good, np.where(good == 0, np.inf, good))


def test_one_cell_has_no_spread():
    with pytest.raises(ValueError, match="Expected at least 2 cells in `x`, found 1"):
        error_of_variances(counts(1, seed=9), counts(5, seed=9))
