from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from perturbflow.metrics import agreement_of_correlations, error_of_correlations

FUNCTIONS = [agreement_of_correlations, error_of_correlations]


def cells(n, *, seed, n_genes=12, loadings_seed=0):
    loadings = np.random.default_rng(loadings_seed).normal(size=(3, n_genes))
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 3)) @ loadings + rng.normal(size=(n, n_genes)) + 2.0


def naive(x, y, n_top):
    genes = np.argsort(-y.var(axis=0))[:n_top]
    upper = np.triu_indices(len(genes), k=1)
    return [np.corrcoef(c[:, genes], rowvar=False)[upper] for c in (x, y)]


@pytest.mark.parametrize("n_top", [3, 7, 200])
def test_agrees_with_the_matrices(n_top):
    x, y = cells(20, seed=1), cells(30, seed=2)
    predicted, observed = naive(x, y, n_top)
    expected = np.corrcoef(predicted, observed)[0, 1]
    assert agreement_of_correlations(x, y, n_top=n_top) == pytest.approx(expected, abs=1e-12)
    expected = np.sqrt(np.mean((predicted - observed) ** 2))
    assert error_of_correlations(x, y, n_top=n_top) == pytest.approx(expected, abs=1e-12)


def test_of_genes_that_vary_equally_the_first_are_compared():
    rng = np.random.default_rng(12)
    signs = np.repeat([-1.0, 1.0], 10)  # with a mean of 0 and equal variances, to the last digit
    size = np.where(np.arange(300) % 3 == 1, 2.0, 1.0)
    x, y = (size * np.column_stack([rng.permutation(signs) for _ in range(300)]) for _ in range(2))
    first = np.flatnonzero(size == 2)[:20]
    for function in FUNCTIONS:
        assert function(x, y, n_top=20) == pytest.approx(function(x[:, first], y[:, first]), abs=1e-12)


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
def test_what_rounding_leaves_of_constant_genes_is_no_correlation_in_any_unit(unit):
    y = cells(30, seed=7)
    x = y.copy()
    x[:, :3] = 0.1 * 3
    noise = np.random.default_rng(0).normal(size=(30, 3))
    almost, varied = x.copy(), x.copy()
    almost[:, :3] *= 1 + 1e-15 * noise
    varied[:, :3] *= 1 + 1e-9 * noise
    for function in FUNCTIONS:
        expected = function(x, y)
        assert function(unit * almost, unit * y) == pytest.approx(expected, abs=1e-12)
        assert abs(function(unit * varied, unit * y) - expected) > 1e-4


def test_shift_and_positive_scale_of_genes_do_not_matter():
    y, scale = cells(30, seed=3), np.random.default_rng(4).gamma(1.0, size=12)
    assert agreement_of_correlations(scale * y - 7, y) == pytest.approx(1, abs=1e-12)
    assert error_of_correlations(scale * y - 7, y) == pytest.approx(0, abs=1e-12)


def test_right_marginals_in_the_wrong_order_are_found_out():
    y = cells(400, seed=5)
    x = np.column_stack([np.random.default_rng(i).permutation(gene) for i, gene in enumerate(y.T)])
    assert abs(agreement_of_correlations(x, y)) < 0.35  # 66 pairs of noise
    assert error_of_correlations(x, y) > 3 * error_of_correlations(cells(400, seed=6), y)


@pytest.mark.parametrize("genes", [slice(None), slice(0, 4)])
def test_genes_that_are_constant_in_the_prediction_have_no_correlation(genes):
    y = cells(30, seed=7)
    x = y.copy()
    x[:, genes] = 0.1 * 3
    observed_matrix = np.corrcoef(y, rowvar=False)
    kept = observed_matrix.copy()
    kept[genes], kept[:, genes] = 0, 0
    upper = np.triu_indices(12, k=1)
    assert error_of_correlations(x, y) == pytest.approx(np.sqrt(np.mean((kept - observed_matrix)[upper] ** 2)))
    expected = 0.0 if genes == slice(None) else np.corrcoef(kept[upper], observed_matrix[upper])[0, 1]
    assert agreement_of_correlations(x, y) == pytest.approx(expected, abs=1e-12)


def test_noise_bounds_a_perfect_prediction():
    # The docstring's s / sqrt(s^2 + 1/m), with many predicted and m reference cells.
    loadings = 0.22 * np.random.default_rng(0).normal(size=(3, 200))
    covariance = loadings.T @ loadings + np.eye(200)
    scale = np.sqrt(np.diagonal(covariance))
    s = (covariance / np.outer(scale, scale))[np.triu_indices(200, k=1)].std()
    rng = np.random.default_rng(1)

    def draw(n):
        return rng.normal(size=(n, 3)) @ loadings + rng.normal(size=(n, 200))

    perfect = draw(20_000)
    found = np.mean([agreement_of_correlations(perfect, draw(100)) for _ in range(5)])
    assert found == pytest.approx(s / np.sqrt(s**2 + 1 / 100), rel=0.1)
    assert found < 0.8


def test_undefined_values():
    y = np.zeros((9, 5))
    y[:, :2] = cells(9, seed=8)[:, :2]
    assert np.isnan(agreement_of_correlations(cells(9, seed=9)[:, :5], y))
    assert np.isnan(error_of_correlations(cells(9, seed=9)[:, :5], y))
    together = np.outer(np.arange(5.0), np.ones(4))  # all correlations are 1
    assert np.isnan(agreement_of_correlations(cells(9, seed=9)[:, :4], together))


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("container", [np.asfortranarray, sparse.csr_matrix, sparse.csc_array, sparse.coo_array])
def test_containers_agree(function, container):
    rng = np.random.default_rng(10)
    x, y = (rng.poisson(1.0, (n, 9)).astype(np.float32) for n in (20, 30))
    assert function(container(x), container(y)) == pytest.approx(function(x, y), abs=1e-12)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_bad_input_is_refused(function):
    y = cells(9, seed=11)
    with pytest.raises(ValueError, match="Expected `n_top` to be at least 3, found 2"):
        function(y, y, n_top=2)
    with pytest.raises(ValueError, match="Expected at least 3 cells and 1 gene in `x`"):
        function(y[:2], y)
    with pytest.raises(ValueError, match="Expected the same genes"):
        function(y[:, :3], y)
    with pytest.raises(ValueError, match="finite values in `y`"):
        function(y, np.where(y == y.max(), np.nan, y))
