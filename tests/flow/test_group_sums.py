"""Sums over groups of cells, in one piece, in chunks, and without a part."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
from scipy import sparse

from perturbflow.flow import AdditiveHurdlePrior, Calibration, CellData, GroupSums

N_CELLS, N_GENES = 400, 12


def cells(container=sparse.csr_matrix, *, seed=0):
    rng = np.random.default_rng(seed)
    x = np.log1p(rng.poisson(0.8, (N_CELLS, N_GENES))).astype(np.float32)
    doses = np.array([[0, 0, 0], [1, 0, 0], [0, 2, 0], [1, 0, 0.5], [0, 1, 0]], dtype=float)
    return CellData(container(x), doses[rng.integers(0, 5, N_CELLS)], rng.integers(0, 2, (N_CELLS, 1)))


def assert_same(one, two, **tolerance):
    assert (one.doses != two.doses).nnz == 0
    for name in ("covariates", "n_cells", "n_expressing"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
    for name in ("total", "squares"):
        np.testing.assert_allclose(getattr(one, name), getattr(two, name), **{"rtol": 1e-12, "atol": 1e-12} | tolerance)


@pytest.mark.parametrize("container", [np.asarray, sparse.csr_matrix, sparse.csr_array])
def test_sums_are_those_of_the_cells_of_every_group(container):
    data = cells(container)
    x = data.x if isinstance(data.x, np.ndarray) else data.x.toarray()
    sums = GroupSums.of(data)
    groups = data.groups()
    assert len(sums) == len(groups) == 10
    for i, group in enumerate(groups):
        own = x[group.rows].astype(float)
        np.testing.assert_array_equal(sums.doses[[i]].toarray()[0], group.perturbation)
        np.testing.assert_array_equal(sums.covariates[i], group.covariates)
        assert sums.n_cells[i] == len(own)
        assert sums.is_control[i] == (not group.perturbation.any())
        np.testing.assert_array_equal(sums.n_expressing[i], (own > 0).sum(axis=0))
        np.testing.assert_allclose(sums.total[i], own.sum(axis=0))
        np.testing.assert_allclose(sums.squares[i], (own**2).sum(axis=0))


@pytest.mark.parametrize("container", [np.asarray, sparse.csr_matrix])
@pytest.mark.parametrize("n_chunks", [1, 3, 57])
def test_chunks_in_any_order_give_the_same(container, n_chunks):
    data = cells(container)
    rng = np.random.default_rng(n_chunks)
    sums = GroupSums.empty(N_GENES, 3, 1)
    for rows in np.array_split(rng.permutation(N_CELLS), n_chunks):
        sums.add(data.x[rows], data.perturbations[rows], data.covariates[rows])
    assert_same(sums.ordered(), GroupSums.of(data))


def test_negative_values_and_stored_zeros_are_not_expressed():
    x = sparse.csr_matrix((np.array([0.0, -1.0, 2.0]), ([0, 0, 1], [0, 1, 0])), shape=(2, 2))
    sums = GroupSums.of(CellData(x, np.zeros((2, 1)), np.zeros((2, 0), dtype=int)))
    assert sums.n_expressing.tolist() == [[1, 0]]
    assert sums.total.tolist() == [[2.0, -1.0]]
    assert sums.squares.tolist() == [[4.0, 1.0]]


def test_sums_without_a_part_are_those_of_the_others():
    data = cells()
    part = np.random.default_rng(1).permutation(N_CELLS)[:150]
    part = np.union1d(part, data.groups()[3].rows)  # a group that has no cells left
    rest = np.setdiff1d(np.arange(N_CELLS), part)
    whole, less = GroupSums.of(data), GroupSums.of(data, part)
    whole.exclude(less)
    assert len(whole) == 10
    assert (whole.n_cells > 0).sum() == 9
    assert_same(whole.take(whole.n_cells > 0), GroupSums.of(data, rest))
    whole.include(less)
    assert_same(whole, GroupSums.of(data))


def test_what_is_no_part_cannot_be_taken_away():
    data = cells()
    some, others = GroupSums.of(data, np.arange(50)), GroupSums.of(data, np.arange(50, N_CELLS))
    with pytest.raises(ValueError, match="Expected sums over a subset of the cells, found groups or cells"):
        some.exclude(others)
    assert_same(some, GroupSums.of(data, np.arange(50)))  # is left as it was
    few = GroupSums.of(data).take(np.array([0, 1]))
    with pytest.raises(ValueError, match="Pass a subset"):
        few.exclude(some)


@pytest.mark.parametrize(
    ("x", "doses", "codes", "message"),
    [
        pytest.param((4, 5), (4, 3), (4, 1), "found 5, 3 and 1", id="genes"),
        pytest.param((4, N_GENES), (4, 2), (4, 1), f"found {N_GENES}, 2 and 1", id="components"),
        pytest.param((4, N_GENES), (4, 3), (4, 0), f"found {N_GENES}, 3 and 0", id="covariates"),
        pytest.param((4, N_GENES), (3, 3), (4, 1), "one row for each of the 4 cells", id="rows"),
    ],
)
def test_chunks_have_the_same_columns(x, doses, codes, message):
    with pytest.raises(ValueError, match=message):
        GroupSums.empty(N_GENES, 3, 1).add(np.ones(x), np.zeros(doses), np.zeros(codes, dtype=int))


def test_the_prior_of_sums_is_that_of_the_cells():
    data = cells()
    shuffled = GroupSums.empty(N_GENES, 3, 1)
    for rows in np.array_split(np.arange(N_CELLS)[::-1], 7):
        shuffled.add(data.x[rows], data.perturbations[rows], data.covariates[rows])
    prior, other = AdditiveHurdlePrior.fit(data), AdditiveHurdlePrior.fit(shuffled)
    for field in fields(prior):
        np.testing.assert_allclose(getattr(prior, field.name), getattr(other, field.name), rtol=2e-3, atol=1e-4)


def test_calibration_takes_sums_over_parts_of_the_cells():
    data = cells()
    parts = [GroupSums.of(data, rows) for rows in np.array_split(np.random.default_rng(0).permutation(N_CELLS), 4)]
    found, expected = Calibration.fit(parts), Calibration.fit(data)
    assert found.n_conditions[-1] == expected.n_conditions[-1]  # of whole conditions: the same
    assert 0 < found.n_conditions[0] <= 4 * 8  # of some cells of each: parts of fewer than 5 are not judged
    np.testing.assert_allclose(found.factors[-1], expected.factors[-1], rtol=0.3)
