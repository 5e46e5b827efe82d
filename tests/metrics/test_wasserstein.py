from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import sparse
from scipy.stats import norm, wasserstein_distance

from perturbflow.metrics import sliced_wasserstein, wasserstein_of_genes

FUNCTIONS = [wasserstein_of_genes, sliced_wasserstein]


@pytest.mark.parametrize(("n", "m"), [(1, 1), (30, 30), (1, 7), (12, 8), (20, 37)])
def test_agrees_with_scipy(n, m):
    rng = np.random.default_rng(0)
    x, y = rng.poisson(0.7, size=(n, 12)).astype(float), rng.gamma(0.5, size=(m, 12))
    expected = np.mean([wasserstein_distance(a, b) for a, b in zip(x.T, y.T, strict=True)])
    assert wasserstein_of_genes(x, y) == pytest.approx(expected, abs=1e-12)


def test_blocks_of_genes_do_not_matter(monkeypatch):
    x, y = np.random.default_rng(0).gamma(0.5, size=(2, 20, 12))
    expected = wasserstein_of_genes(x, y)
    monkeypatch.setattr("perturbflow.metrics._wasserstein.BLOCK_BYTES", 5 * 8 * 40 // 32)
    assert wasserstein_of_genes(x, y) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("n", "m"), [(20, 20), (12, 8), (5, 7)])
def test_sliced_distance_is_that_of_repeated_cells(n, m):
    # n and m cells, each repeated to n m, are the same distributions; with equal numbers the sorted values are paired.
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(n, 4)), rng.normal(1.0, size=(m, 4))
    directions = np.random.default_rng(3).normal(size=(4, 50))
    directions /= np.linalg.norm(directions, axis=0)
    paired = [np.sort(np.repeat(cells @ directions, k, axis=0), axis=0) for cells, k in ((x, m), (y, n))]
    expected = np.sqrt(np.mean((paired[0] - paired[1]) ** 2))
    assert sliced_wasserstein(x, y, n_projections=50, seed=3) == pytest.approx(expected, abs=1e-12)


def test_a_shift():
    rng = np.random.default_rng(2)
    x, shift = rng.gamma(1.0, size=(15, 40)), rng.normal(size=40)
    assert wasserstein_of_genes(x + shift, x) == pytest.approx(np.abs(shift).mean(), abs=1e-12)
    expected = np.linalg.norm(shift) / np.sqrt(40)
    assert sliced_wasserstein(x + shift, x, n_projections=20_000) == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize("sd", [1.0, 3.0])
def test_normal_laws(sd):
    # Between N(0, 1) and N(0, s^2): W_1 = |s - 1| sqrt(2 / pi), W_2 = |s - 1|.
    quantiles = norm.ppf((np.arange(20_000) + 0.5) / 20_000)[:, None]
    assert wasserstein_of_genes(sd * quantiles, quantiles) == pytest.approx((sd - 1) * np.sqrt(2 / np.pi), abs=1e-3)
    assert sliced_wasserstein(sd * quantiles, quantiles) == pytest.approx(sd - 1, abs=1e-3)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_samples_of_one_law_are_not_at_zero(function):
    rng = np.random.default_rng(3)
    few, many = (function(rng.normal(size=(n, 200)), rng.normal(size=(n, 200))) for n in (25, 400))
    assert few > 0.1
    assert 3 < few / many < 6  # sqrt(400 / 25) = 4


def test_dependence_between_genes_is_not_seen_by_genes():
    rng = np.random.default_rng(4)
    y = rng.multivariate_normal([0, 0], [[1, 0.95], [0.95, 1]], size=500)
    x = np.column_stack([rng.permutation(gene) for gene in y.T])
    assert wasserstein_of_genes(x, y) == 0
    assert sliced_wasserstein(x, y) > 0.2


@pytest.mark.parametrize("container", [np.asfortranarray, sparse.csr_matrix, sparse.csc_matrix, sparse.coo_array])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_containers_agree(function, container):
    rng = np.random.default_rng(5)
    x, y = (rng.poisson(0.3, (n, 9)).astype(np.float32) for n in (8, 13))
    before = x.copy(), y.copy()
    expected = function(x, y)
    assert function(container(x), container(y)) == pytest.approx(expected, abs=1e-12)
    assert function(container(x), y) == pytest.approx(expected, abs=1e-12)
    assert (x == before[0]).all()
    assert (y == before[1]).all()


def test_digits_of_either_side_are_kept():
    rng = np.random.default_rng(8)
    x, y = rng.normal(1e3, 1.0, size=(9, 5)), rng.normal(1e3, 1.0, size=(6, 5)).astype(np.float32)
    exact = wasserstein_of_genes(x, y.astype(float))
    assert wasserstein_of_genes(x, y) == pytest.approx(exact, rel=1e-12)
    assert wasserstein_of_genes(y, x) == pytest.approx(exact, rel=1e-12)


def test_genes_are_read_in_blocks(monkeypatch):
    rng = np.random.default_rng(6)
    x, y = sparse.csr_array(rng.poisson(0.3, (8, 23))), rng.poisson(0.5, (11, 23))
    expected = wasserstein_of_genes(x, y)
    monkeypatch.setattr("perturbflow.metrics._wasserstein.BLOCK_BYTES", 500)
    assert wasserstein_of_genes(x, y) == pytest.approx(expected, abs=1e-14)


CELLS = st.integers(1, 6).flatmap(
    lambda n: arrays(np.float64, (n, 3), elements=st.floats(-100, 100, allow_subnormal=False))
)


@pytest.mark.parametrize("function", FUNCTIONS)
@settings(deadline=None, derandomize=True, max_examples=50)
@given(x=CELLS, y=CELLS, z=CELLS)
def test_is_a_distance(function, x, y, z):
    assert function(x, x) == 0
    assert function(x, y) == pytest.approx(function(y, x), abs=1e-9)
    assert function(x, z) <= function(x, y) + function(y, z) + 1e-9
    assert function(-2 * x + 5, -2 * y + 5) == pytest.approx(2 * function(x, y), abs=1e-9)


def test_directions_are_those_of_the_seed():
    rng = np.random.default_rng(7)
    x, y = rng.normal(size=(9, 5)), rng.normal(size=(6, 5))
    assert sliced_wasserstein(x, y, seed=1) == sliced_wasserstein(x, y, seed=1)
    assert sliced_wasserstein(x, y, seed=1) != sliced_wasserstein(x, y, seed=2)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_bad_cells_are_named(function):
    good = np.zeros((3, 2))
    with pytest.raises(ValueError, match="Expected the same genes"):
        function(good, np.zeros((3, 4)))
    with pytest.raises(ValueError, match="finite values in `y`"):
        function(good, np.full((3, 2), np.nan))
    with pytest.raises(ValueError, match="Expected at least 1 cells and 1 gene in `x`"):
        function(good[:0], good)


def test_a_direction_is_needed():
    with pytest.raises(ValueError, match="Expected `n_projections` to be at least 1, found 0"):
        sliced_wasserstein(np.zeros((3, 2)), np.ones((3, 2)), n_projections=0)
