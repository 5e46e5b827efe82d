from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from perturbflow.predict import _output_space
from perturbflow.predict._output_space import (
    OutputSpace,
    counts_per_unit,
    renormalised,
    repressed_genes,
    scaled_to_total,
    to_challenge,
    to_counts,
)
from perturbflow.screen import Expression

TARGET = 1e4


def normalised(counts, *, target=TARGET, totals=None):
    totals = counts.sum(axis=1) if totals is None else totals
    return np.log1p(counts * target / totals[:, None]).astype(np.float32)


@pytest.fixture
def counts():
    """Counts of 30 cells of 60 genes with totals from about 50 to 5000."""
    rng = np.random.default_rng(0)
    depth = np.geomspace(50, 5000, 30)
    return rng.poisson(depth[:, None] * rng.dirichlet(np.full(60, 0.3), size=30)).astype(float)


@pytest.mark.parametrize("container", [np.asarray, sparse.csr_matrix, sparse.csr_array])
def test_counts_are_recovered_exactly(counts, container):
    x = normalised(counts)
    scale = counts_per_unit(container(x))
    np.testing.assert_allclose(scale, counts.sum(axis=1) / TARGET, rtol=1e-4)
    np.testing.assert_array_equal(np.rint(np.expm1(x) * scale[:, None]), counts)


def test_batches_of_cells_change_nothing(counts, monkeypatch):
    whole = counts_per_unit(normalised(counts))
    monkeypatch.setattr(_output_space, "_CELLS_AT_ONCE", 7)
    np.testing.assert_array_equal(counts_per_unit(normalised(counts)), whole)


def test_counts_are_recovered_from_some_of_the_genes(counts):
    x = normalised(counts)[:, ::2]
    np.testing.assert_array_equal(np.rint(np.expm1(x) * counts_per_unit(x)[:, None]), counts[:, ::2])


@given(st.lists(st.integers(2, 400), min_size=2, max_size=30), st.integers(100, 10**6))
def test_the_lowest_count_may_be_above_one(values, total):
    values = [2, 3, *values]  # the lowest is 2, and not all are even
    x = normalised(np.array([values], dtype=float), totals=np.array([total]))
    np.testing.assert_allclose(counts_per_unit(x), total / TARGET, rtol=1e-4)


def test_values_that_are_no_counts_are_not_recovered():
    x = np.random.default_rng(0).gamma(2.0, size=(5, 40))
    x[3] = 0
    assert np.isnan(counts_per_unit(x)).all()


def test_counts_keep_the_expectation_and_are_whole():
    x = np.log1p(np.array([[0.0, 0.2, 1.7, 40.5]], dtype=np.float32)).repeat(20_000, axis=0)
    found = to_counts(x, np.full(len(x), 0.5), rng=np.random.default_rng(0))
    assert found.dtype == np.float32
    expected = np.array([0, 0.1, 0.85, 20.25])
    # Four standard errors of the share that is rounded up.
    np.testing.assert_allclose(found.mean(axis=0), expected, atol=4 * 0.5 / np.sqrt(len(x)))
    for values, mean in zip(found.T, expected, strict=True):
        assert set(values) == {np.floor(mean), np.ceil(mean)}


def test_whole_counts_stay_what_they_are(counts):
    scale = counts.sum(axis=1) / TARGET
    # As exact as double precision: a whole count may then come out one lower with a probability of about 1e-12.
    x = np.log1p(counts / scale[:, None])
    np.testing.assert_array_equal(np.abs(to_counts(x, scale, rng=np.random.default_rng(0)) - counts).sum(), 0)


def test_scaling_to_a_total_leaves_cells_of_zeros():
    values = np.array([[1.0, 3.0], [0.0, 0.0]])
    np.testing.assert_array_equal(scaled_to_total(values, 8.0), [[2, 6], [0, 0]])


def test_challenge_recipe_by_hand():
    x = np.log1p(np.array([[1.0, 2.0, 2.2, 0.0]]))
    # Scaled to 10: 1.92, 3.85, 4.23, 0; rounded: 2, 4, 4, 0, of sum 10.
    np.testing.assert_allclose(to_challenge(x, 10.0), np.log1p([[2, 4, 4, 0]]), rtol=1e-6)
    # Scaled to 9: 1.73, 3.46, 3.81, 0; rounded: 2, 3, 4, 0, of sum 9. The target goes last, after the scaling.
    np.testing.assert_allclose(to_challenge(x, 9.0, targets=[1]), np.log1p([[2, 0, 4, 0]]), rtol=1e-6)
    # Scaled to 3: 0.58, 1.15, 1.27, 0; rounded: 1, 1, 1, 0. Scaled to 4: 0.77, 1.54, 1.69; rounded 1, 2, 2, of sum 5.
    np.testing.assert_allclose(to_challenge(x, 4.0), np.log1p([[0.8, 1.6, 1.6, 0]]), rtol=1e-6)


@pytest.mark.parametrize("container", [np.asarray, sparse.csr_matrix, sparse.csr_array])
def test_renormalised_is_the_normalisation_of_the_counts(counts, container):
    counts[3] = 0
    totals = np.maximum(counts.sum(axis=1), 1)
    x = renormalised(container(normalised(counts, totals=totals)), 800.0)
    assert isinstance(x, sparse.csr_matrix)
    assert x.dtype == np.float32
    np.testing.assert_allclose(x.toarray(), np.log1p(scaled_to_total(counts, 800.0)), rtol=1e-4)


def test_challenge_of_whole_counts_is_their_normalisation(counts):
    total = counts[0].sum()
    np.testing.assert_allclose(to_challenge(normalised(counts[:1]), total), np.log1p(counts[:1]), rtol=1e-4)


def convert(space, cells, *, members=None, targets=(), seed=0):
    members = np.arange(len(cells)) if members is None else members
    return space.convert(cells, members=members, targets=targets, rng=np.random.default_rng(seed))


def units(name, x, *, total):
    return OutputSpace.from_controls(name, Expression(x, where="adata.X"), total=total)


def test_log_normalised_cells_are_left_alone(counts):
    x = normalised(counts)
    assert convert(units("log_normalised", x, total=None), x, targets=[1]) is x


def test_counts_have_the_depth_of_the_control_cell(counts):
    x = normalised(counts)
    space = units("counts", sparse.csr_matrix(x), total=None)
    members = np.arange(len(x))[::-1]
    # The same cell at the depth of every control cell.
    found = convert(space, np.repeat(x[:1], len(x), axis=0), members=members)
    np.testing.assert_array_equal(found, np.rint(found))
    np.testing.assert_allclose(found.sum(axis=1), counts.sum(axis=1)[::-1], atol=4 * np.sqrt(60 / 4))


def test_counts_have_the_total_that_is_asked_for(counts):
    x = np.random.default_rng(0).gamma(1.0, size=counts.shape).astype(np.float32)
    x[3] = 0
    found = convert(units("counts", x, total=5000.0), x)
    np.testing.assert_allclose(found.sum(axis=1), np.where(np.arange(len(x)) == 3, 0, 5000), atol=4 * np.sqrt(60 / 4))


def test_control_cell_of_zeros_has_the_typical_depth(counts):
    counts[4] = 0
    with np.errstate(invalid="ignore"):
        x = np.nan_to_num(normalised(counts))
    scale = units("counts", x, total=None).scale
    others = np.delete(counts.sum(axis=1), 4) / TARGET
    assert scale is not None
    assert scale[4] == pytest.approx(np.median(others), rel=1e-4)


def test_challenge_takes_the_median_of_the_control_cells(counts):
    x = normalised(counts)
    space = units("challenge", x, total=None)
    assert space.total == pytest.approx(np.median(counts.sum(axis=1)), rel=1e-4)
    np.testing.assert_array_equal(convert(space, x, targets=[2]), to_challenge(x, space.total, targets=[2]))
    assert units("challenge", x, total=77).total == 77


def test_rounding_is_decided_by_the_randomness_alone(counts):
    x = np.random.default_rng(0).gamma(1.0, size=counts.shape).astype(np.float32)
    space = units("counts", x, total=500.0)
    np.testing.assert_array_equal(convert(space, x, seed=1), convert(space, x, seed=1))
    assert (convert(space, x, seed=1) != convert(space, x, seed=2)).any()


@pytest.mark.parametrize(
    ("name", "total", "error", "message"),
    [
        ("tpm", None, ValueError, r"Expected `output` to be one of \['challenge', 'counts', 'log_normalised'\], found 'tpm'"),
        ("counts", 0, ValueError, "Expected `target_total` to be from 1 to"),
        ("counts", "1e4", TypeError, "Expected `target_total` to be a number, found '1e4'"),
        ("log_normalised", 1e4, ValueError, "Expected `target_total` together with `output` 'counts' or 'challenge'"),
        ("counts", None, ValueError, "found 3 of 4 cells whose values are not integer .* Set `target_total` to the total"),
        ("challenge", None, ValueError, "found 3 of 4 cells whose values are not integer"),
    ],
)  # fmt: skip
def test_bad_requests(name, total, error, message):
    x = np.random.default_rng(0).gamma(2.0, size=(4, 30))
    x[2] = 0
    with pytest.raises(error, match=message):
        units(name, x, total=total)


def test_only_zeros_tell_no_depth():
    with pytest.raises(ValueError, match="found 0 of 2 cells .* Set `target_total` to the total"):
        units("counts", np.zeros((2, 3)), total=None)


@pytest.mark.parametrize(
    ("components", "type_mark", "expected"),
    [
        (["b"], None, [1]),
        (["c", "a", "x"], None, [2, 0]),
        ([], None, []),
        (["b:CRISPRi"], ":", [1]),
        (["b:CRISPRa", "c:Knock-down"], ":", [2]),
        (["b:overexpression"], ":", []),
        (["b:CRISPRi"], None, []),
        (["d:x:siRNA"], ":", [3]),
    ],
)
def test_repressed_genes(components, type_mark, expected):
    assert repressed_genes(components, ["a", "b", "c", "d:x"], type_mark=type_mark) == expected
