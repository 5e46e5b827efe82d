from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse
from scipy.stats import pearsonr

from perturbflow.metrics import _covariances
from perturbflow.metrics._covariances import (
    concordance_of_correlations,
    leading_eigenvalue_ratio,
)

METRICS = [concordance_of_correlations, leading_eigenvalue_ratio]


def program(rng, n=60, n_genes=13, strength=1.0):
    """Cells with a common program of all genes but the last five."""
    loadings = np.where(np.arange(n_genes) < n_genes - 5, strength, 0.0)
    return rng.normal(size=(n, 1)) * loadings + rng.normal(size=(n, n_genes)) + 5.0


@pytest.fixture
def pair():
    rng = np.random.default_rng(0)
    return program(rng, 40), program(rng, 70, strength=0.6)


def triangles(pair):
    return [np.corrcoef(cells, rowvar=False)[np.triu_indices(13, k=1)] for cells in pair]


def concordance(a, b):
    return 2 * np.cov(a, b, ddof=0)[0, 1] / (a.var() + b.var() + (a.mean() - b.mean()) ** 2)


def test_definitions(pair):
    a, b = triangles(pair)
    assert concordance_of_correlations(*pair, level=None) == pytest.approx(concordance(a, b), abs=1e-12)
    leading = [np.linalg.eigvalsh(np.corrcoef(cells, rowvar=False))[-1] for cells in pair]
    assert leading_eigenvalue_ratio(*pair) == pytest.approx(leading[0] / leading[1], abs=1e-12)


@pytest.mark.parametrize("level", [0.05, 0.3])
def test_pairs_that_are_significant_on_both_sides(pair, level):
    a, b = triangles(pair)
    genes = list(zip(*np.triu_indices(13, k=1), strict=True))
    p_values = [np.array([pearsonr(cells[:, i], cells[:, j]).pvalue for i, j in genes]) for cells in pair]
    kept = (p_values[0] <= level) & (p_values[1] <= level)
    assert 3 < kept.sum() < len(kept)
    expected = concordance(a[kept], b[kept])
    assert concordance_of_correlations(*pair, level=level) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("container", [sparse.csr_matrix, sparse.csc_array])
def test_sparse_cells_in_blocks(metric, container, pair, monkeypatch):
    expected = metric(*pair)
    monkeypatch.setattr(_covariances, "BLOCK_GENES", 4)
    assert metric(*map(container, pair)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("metric", METRICS)
def test_invariant_to_order_and_to_scale_of_genes(metric, pair):
    x, y = pair
    rng = np.random.default_rng(1)
    genes, scale = rng.permutation(13), rng.uniform(0.5, 3.0, size=13)
    assert metric(scale * x[::-1], y - scale) == pytest.approx(metric(x, y), abs=1e-10)
    assert metric(x[:, genes], y[:, genes]) == pytest.approx(metric(x, y), abs=1e-10)


@pytest.mark.parametrize("metric", METRICS)
def test_perfect_prediction(metric, pair):
    assert metric(pair[1], pair[1]) == pytest.approx(1, abs=1e-12)


def test_a_weaker_program_is_told_from_the_right_one():
    rng = np.random.default_rng(2)
    y, right, weak, none = (program(rng, 2000, strength=s) for s in (1.0, 1.0, 0.5, 0.0))
    assert concordance_of_correlations(right, y, level=None) > 0.95
    assert concordance_of_correlations(weak, y, level=None) < 0.75
    assert abs(concordance_of_correlations(none, y, level=None)) < 0.1
    assert leading_eigenvalue_ratio(right, y) == pytest.approx(1, abs=0.1)
    assert leading_eigenvalue_ratio(none, y) < leading_eigenvalue_ratio(weak, y) < 0.6


@pytest.mark.parametrize("metric", METRICS)
def test_genes_that_are_constant_on_a_side_do_not_count(metric, pair):
    x, y = pair
    expected = metric(x[:, 1:], y[:, 1:])
    assert metric(x, np.column_stack([np.full(len(y), 0.1, dtype=np.float32), y[:, 1:]])) == pytest.approx(expected)
    assert metric(np.column_stack([np.full(len(x), 0.1), x[:, 1:]]), y) == pytest.approx(expected)


@pytest.mark.parametrize("metric", METRICS)
def test_nothing_varies(metric):
    assert np.isnan(metric(np.ones((4, 5)), np.random.default_rng(0).normal(size=(4, 5))))


def test_two_genes_are_one_pair():
    cells = np.random.default_rng(0).normal(size=(9, 2))
    assert np.isnan(concordance_of_correlations(cells, cells, level=None))


def test_equal_correlations_name_no_pattern():
    collinear = np.arange(8.0)[:, None] * np.arange(1.0, 6.0)
    y = np.random.default_rng(0).normal(size=(8, 5))
    assert np.isnan(concordance_of_correlations(collinear, collinear))
    assert concordance_of_correlations(collinear, y, level=None) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("metric", METRICS)
def test_bad_input(metric):
    with pytest.raises(ValueError, match="'x': 3, 'y': 4"):
        metric(np.ones((5, 3)), np.ones((5, 4)))
    with pytest.raises(ValueError, match=r"at least \d cells and 1 gene in `x`"):
        metric(np.ones((1, 3)), np.ones((5, 3)))
    with pytest.raises(ValueError, match="finite values in `y`"):
        metric(np.ones((5, 3)), np.full((5, 3), np.nan))


def test_bad_level(pair):
    with pytest.raises(ValueError, match="`level` to lie between 0 and 1, or None, found 1"):
        concordance_of_correlations(*pair, level=1)
