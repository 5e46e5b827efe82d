"""An order of the genes in which neighbours vary together."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from perturbflow.flow import coexpression_order


@pytest.fixture(scope="module")
def blocks():
    """Six blocks of twelve correlated genes, shuffled: expression and the block of every gene."""
    rng = np.random.default_rng(0)
    block = rng.permutation(np.repeat(np.arange(6), 12))
    return rng.standard_normal((400, 6))[:, block] + 0.7 * rng.standard_normal((400, 72)), block


def n_borders(labels):
    return int((labels[1:] != labels[:-1]).sum())


def test_correlated_genes_become_neighbours(blocks):
    x, block = blocks
    assert n_borders(block) > 50
    assert n_borders(block[coexpression_order(x)]) == 5


def test_opposed_genes_are_kept_apart():
    factor = np.random.default_rng(0).standard_normal(100)
    assert coexpression_order(np.column_stack([factor, -factor, factor, -factor])).tolist() == [0, 2, 1, 3]


def test_chain_of_genes_is_followed():
    # Every gene is correlated with its neighbours on a line alone.
    rng = np.random.default_rng(0)
    place = rng.permutation(np.linspace(0, 1, 40))
    centres = rng.random(3000)[:, None]
    x = np.exp(-((place - centres) ** 2) / 0.02)
    steps = np.abs(np.diff(place[coexpression_order(x)]))
    assert np.median(steps) < 2 / 39
    assert np.abs(np.diff(place)).mean() > 0.2


def test_result_is_a_permutation(blocks):
    x = blocks[0].copy()
    x[:, [3, 50]] = 0
    x[:, 7] = 2.5
    x[:, 8] = x[:, 9]
    order = coexpression_order(x)
    assert np.sort(order).tolist() == list(range(72))
    assert order[-3:].tolist() == [3, 7, 50]


def test_nothing_varies():
    assert coexpression_order(np.ones((5, 3))).tolist() == [0, 1, 2]


def test_units_do_not_matter(blocks):
    x = blocks[0]
    factors = np.random.default_rng(1).uniform(0.1, 10, 72)
    assert (coexpression_order(factors * x + 3) == coexpression_order(x)).all()


def test_sparse_is_dense(blocks):
    x = np.maximum(blocks[0], 0).astype(np.float32)
    dense = coexpression_order(x)
    assert (coexpression_order(sparse.csr_matrix(x)) == dense).all()
    assert (coexpression_order(sparse.csr_array(x)) == dense).all()


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.ones((1, 4)), r"at least 2 cells \(n, G\), found shape \(1, 4\)"),
        (np.ones(4), r"found shape \(4,\)"),
        (np.array([[1.0, np.nan], [0.0, 1.0]]), "finite expression"),
        (sparse.csr_matrix([[1.0, np.inf], [0.0, 1.0]]), "finite expression"),
    ],
)
def test_expression_that_has_no_order(x, message):
    with pytest.raises(ValueError, match=message):
        coexpression_order(x)
