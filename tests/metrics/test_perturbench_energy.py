from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import sparse

from perturbflow.metrics import energy_distance, energy_loss


def naive(x, y, shortest):
    def mean(a, b):
        return np.mean([max(math.dist(p, q), shortest) for p in a for q in b])

    return mean(x, y) - 0.5 * mean(x, x) - 0.5 * mean(y, y)


@pytest.mark.parametrize("shortest", [0.0, 1e-4, 1.5])
def test_agrees_with_a_double_loop(shortest):
    rng = np.random.default_rng(0)
    x, y = rng.gamma(0.3, size=(31, 9)), rng.gamma(0.5, size=(18, 9))
    assert energy_loss(x, y, shortest=shortest) == pytest.approx(naive(x, y, shortest), abs=1e-12)


def test_is_half_the_energy_distance_over_all_pairs():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(12, 4)), rng.normal(size=(9, 4))
    half = 0.5 * energy_distance(x, y, unbiased=False)
    assert energy_loss(x, y, shortest=0.0) == pytest.approx(half, abs=1e-12)
    assert energy_loss(x, y) == pytest.approx(half - 0.5e-4 * (1 / 12 + 1 / 9), abs=1e-12)


@pytest.mark.parametrize("n", [1, 2, 40])
def test_a_sample_is_at_zero_from_itself(n):
    x = np.random.default_rng(2).gamma(1.0, size=(n, 5))
    assert energy_loss(x, x) == pytest.approx(0.0, abs=1e-14)


def test_samples_of_one_law_are_apart_by_the_bias():
    # X - X' ~ N(0, 2): E|X - X'| = 2 / sqrt(pi).
    rng = np.random.default_rng(3)
    values = [energy_loss(rng.normal(size=(20, 1)), rng.normal(size=(10, 1))) for _ in range(400)]
    expected = 1 / math.sqrt(math.pi) * (1 / 20 + 1 / 10)
    assert abs(np.mean(values) - expected) < 4 * np.std(values) / 20


def test_sparse_cells_are_the_same():
    rng = np.random.default_rng(4)
    x, y = rng.poisson(0.4, size=(13, 6)).astype(np.float32), rng.poisson(0.6, size=(8, 6)).astype(np.float32)
    expected = energy_loss(x, y)
    assert energy_loss(sparse.csr_matrix(x), sparse.csc_array(y)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("shortest", [-1e-4, float("nan")])
def test_a_negative_distance_is_refused(shortest):
    with pytest.raises(ValueError, match="Expected `shortest` to be a distance of 0 or more, found"):
        energy_loss(np.zeros((2, 2)), np.ones((2, 2)), shortest=shortest)


def test_other_genes_are_refused():
    with pytest.raises(ValueError, match=r"Expected the same genes in .*'x': 3"):
        energy_loss(np.zeros((2, 3)), np.ones((2, 2)))
