from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse, stats

from perturbflow.metrics import WilcoxonOfCounts


@pytest.fixture
def counts():
    rng = np.random.default_rng(0)
    rates = np.array([5.0, 1.0, 0.3, 0.0, 2.0])
    depth = rng.gamma(4.0, 0.3, size=(60, 1))
    counts = rng.poisson(rates * depth)
    counts[:25, 1] *= 3
    return counts[:25], counts[25:]


def per_million(counts):
    total = counts.sum(axis=1, keepdims=True)
    return 1e6 * counts / np.where(total > 0, total, 1)


@pytest.mark.parametrize("container", [np.asarray, sparse.csr_matrix, sparse.csc_array])
def test_definition(counts, container):
    condition, control = counts
    test = WilcoxonOfCounts(container(control))
    np.testing.assert_array_equal(test.genes, [True, True, True, False, True])
    found = test(container(condition))
    x, y = per_million(condition)[:, test.genes], per_million(control)[:, test.genes]
    p_value = stats.mannwhitneyu(x, y, method="asymptotic").pvalue
    np.testing.assert_allclose(found.p_value, p_value, rtol=1e-9)
    np.testing.assert_allclose(found.adjusted, stats.false_discovery_control(p_value), rtol=1e-9)
    np.testing.assert_allclose(found.log_fold_change, np.log2(x.mean(axis=0) / y.mean(axis=0)), atol=1e-9)


def test_depth_of_the_condition_does_not_matter(counts):
    condition, control = counts
    test = WilcoxonOfCounts(control)
    np.testing.assert_allclose(test(4 * condition).log_fold_change, test(condition).log_fold_change, atol=1e-9)
    np.testing.assert_allclose(test(4 * condition).p_value, test(condition).p_value, rtol=1e-9)


def test_controls_alone_choose_the_genes():
    control, condition = np.array([[1, 1, 0], [2, 3, 0]]), np.array([[0, 1, 9], [0, 4, 8]])
    test = WilcoxonOfCounts(control, minimum=450_000)
    np.testing.assert_array_equal(test.genes, [False, True, False])
    assert test(condition).n_genes == 1


def test_empty_cells_stay_empty(counts):
    _, control = counts
    assert (WilcoxonOfCounts(control)(np.zeros((3, 5))).log_fold_change < -40).all()


def test_bad_counts(counts):
    condition, control = counts
    with pytest.raises(ValueError, match="counts in `control`, found a negative value: -1"):
        WilcoxonOfCounts(-np.ones((2, 2)))
    with pytest.raises(ValueError, match="more than 1000000.0 counts per million in `control`, found at most"):
        WilcoxonOfCounts(control, minimum=1e6)
    with pytest.raises(ValueError, match="'counts': 4, 'control': 5"):
        WilcoxonOfCounts(control)(condition[:, :4])
