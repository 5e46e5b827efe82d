from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from perturbflow.flow import (
    AdditiveHurdlePrior,
    CellData,
    ConditionalFlow,
    FlowConfig,
    GeneSupport,
)

X = np.array([[0.0, 0.0, 2.0], [0.5, 0.0, 1.0], [1.5, 0.0, 0.0]], dtype=np.float32)


@pytest.mark.parametrize("container", [np.asarray, sparse.csr_matrix, sparse.csr_array])
def test_support_is_that_of_the_cells(container):
    support = GeneSupport.of([container(X[:2]), container(X[2:])])
    assert support.smallest.tolist() == [0.5, 0.0, 1.0]
    assert support.largest.tolist() == [1.5, np.inf, 2.0]


def test_stored_zeros_are_no_values():
    x = sparse.csr_matrix(X)
    x.data[0] = 0
    assert GeneSupport.of([x]).largest.tolist() == [1.5, np.inf, 1.0]


def test_values_are_brought_to_the_nearest_and_zeros_stay():
    support = GeneSupport.of([X])
    cells = np.array([[0.1, 0.1, 0.0], [0.7, 9.0, 3.0], [0.0, 0.0, 1.5]], dtype=np.float32)
    expected = [[0.5, np.float32(0.1), 0.0], [np.float32(0.7), 9.0, 2.0], [0.0, 0.0, 1.5]]
    assert support.within(cells.copy()).tolist() == expected
    # What new control cells have was seen, too.
    assert support.within(cells.copy(), np.array([[0.2, 1.0, 2.5]], dtype=np.float32))[1, 2] == 2.5
    assert support.within(cells.copy(), np.array([[0.2, 1.0, 2.5]], dtype=np.float32))[0, 0] == np.float32(0.2)
    np.testing.assert_array_equal(GeneSupport.unknown(3).within(cells.copy()), cells)


def test_arrays_survive():
    support = GeneSupport.of([X])
    arrays = support.to_arrays()
    assert all(np.isfinite(array).all() for array in arrays.values())
    restored = GeneSupport.from_arrays(arrays)
    np.testing.assert_array_equal(restored.smallest, support.smallest)
    np.testing.assert_array_equal(restored.largest, support.largest)


@pytest.mark.parametrize("changes", [{"entry_time": 1.0}, {"entry_time": 0.5}, {"source": "noise"}])
def test_a_flow_predicts_within_it(changes):
    rng = np.random.default_rng(0)
    x = np.log1p(rng.poisson(1.0, (200, 5)) * 2).astype(np.float32)  # no value between 0 and log 3
    doses = np.repeat([[0.0], [1.0]], 100, axis=0)
    cells = CellData(x, doses, np.zeros((200, 0), dtype=int))
    prior = AdditiveHurdlePrior.fit(cells)
    config = FlowConfig(n_genes=5, n_components=1, n_categories=(), width=8, n_blocks=1)
    flow = ConditionalFlow(config, prior, support=GeneSupport.of([x]))
    found = flow.sample(x[:100], np.ones(1), np.zeros(0, dtype=int), rng=rng, **changes)
    assert found[found > 0].min() >= x[x > 0].min()
    assert (found <= x.max(axis=0)).all()


def test_values_below_the_threshold_are_zeros():
    support = replace(GeneSupport.of([X]), zero_below=np.array([0.4, 0.2, 1.2], dtype=np.float32))
    cells = np.array([[0.4, 0.1, 1.1], [0.3, 0.2, 1.2]], dtype=np.float32)
    # What is not below stays expressed, and is lifted to the smallest value.
    assert support.within(cells).tolist() == [[0.5, 0.0, 0.0], [0.0, np.float32(0.2), np.float32(1.2)]]


def test_rounding_takes_the_nearer_of_zero_and_the_smallest_value():
    cells = np.array([[0.24, 0.1, 0.6], [0.26, 0.0, 0.4]], dtype=np.float32)
    assert GeneSupport.of([X]).rounded().within(cells).tolist() == [[0.0, np.float32(0.1), 1.0], [0.5, 0.0, 0.0]]


def test_thresholds_are_stored():
    support = replace(GeneSupport.of([X]), zero_below=np.array([0.4, 0.2, 1.2], dtype=np.float32))
    arrays = support.to_arrays()
    np.testing.assert_array_equal(GeneSupport.from_arrays(arrays).zero_below, support.zero_below)
    assert GeneSupport.of([X]).to_arrays()["zero_below"].tolist() == [0.0, 0.0, 0.0]


def test_values_that_may_be_negative_stay():
    cells = np.array([[-0.5, 0.5]], dtype=np.float32)
    np.testing.assert_array_equal(GeneSupport.unknown(2).within(cells.copy()), cells)
