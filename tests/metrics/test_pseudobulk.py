from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import sparse

from perturbflow.metrics import pseudobulk_moments


@pytest.fixture
def counts():
    return np.random.default_rng(0).poisson(2.0, size=(9, 5))


def profile(counts, target_sum):
    sums = counts.sum(axis=0)
    return np.log1p(target_sum * sums / sums.sum())


def test_jackknife_by_leaving_out_each_cell(counts):
    moments = pseudobulk_moments(counts, target_sum=100.0)
    without = np.array([profile(np.delete(counts, i, axis=0), 100.0) for i in range(9)])
    np.testing.assert_allclose(moments.mean, profile(counts, 100.0), atol=1e-12)
    sampling_variance = 8 / 9 * np.square(without - without.mean(axis=0)).sum(axis=0)
    np.testing.assert_allclose(moments.variance / moments.n_cells, sampling_variance, atol=1e-12)


def test_variance_is_that_of_the_pseudo_values(counts):
    without = np.array([profile(np.delete(counts, i, axis=0), 100.0) for i in range(9)])
    pseudo_values = 9 * profile(counts, 100.0) - 8 * without
    variance = pseudobulk_moments(counts, target_sum=100.0).variance
    np.testing.assert_allclose(variance, pseudo_values.var(axis=0, ddof=1), atol=1e-10)


def test_one_cell_has_a_profile_and_no_variance(counts):
    moments = pseudobulk_moments(counts[:1], target_sum=100.0)
    assert moments.n_cells == 1
    np.testing.assert_allclose(moments.mean, profile(counts[:1], 100.0))
    assert np.isnan(moments.variance).all()


def test_the_jackknife_finds_the_variance_of_repeated_samples():
    rng = np.random.default_rng(1)
    profiles, variances = [], []
    for _ in range(400):
        moments = pseudobulk_moments(rng.negative_binomial(2, 0.3, size=(60, 4)), target_sum=4.0)
        profiles.append(moments.mean)
        variances.append(moments.variance / 60)
    np.testing.assert_allclose(np.mean(variances, axis=0), np.var(profiles, axis=0, ddof=1), rtol=0.25)


@settings(max_examples=25, deadline=None)
@given(arrays(np.int64, (5, 3), elements=st.integers(0, 20)), st.integers(2, 9))
def test_the_profile_sees_the_composition_alone(counts, factor):
    assert np.expm1(pseudobulk_moments(counts).mean).sum() == pytest.approx(50_000 * bool(counts.any()), rel=1e-9)
    np.testing.assert_allclose(
        pseudobulk_moments(factor * counts).variance, pseudobulk_moments(counts).variance, atol=1e-8
    )


@pytest.mark.parametrize("container", [sparse.csr_matrix, sparse.csc_array])
def test_sparse_counts_in_blocks(container, counts, monkeypatch):
    expected = pseudobulk_moments(counts)
    monkeypatch.setattr("perturbflow.metrics._moments.BLOCK_VALUES", 10)  # two cells
    found = pseudobulk_moments(container(counts))
    np.testing.assert_allclose(found.mean, expected.mean, atol=1e-12)
    np.testing.assert_allclose(found.variance, expected.variance, atol=1e-12)


def test_equal_cells_have_no_variance():
    np.testing.assert_allclose(pseudobulk_moments(np.tile([3, 1, 0], (6, 1))).variance, 0, atol=1e-20)


def test_a_cell_that_holds_all_counts():
    moments = pseudobulk_moments(np.array([[4, 4], [0, 0]]), target_sum=2.0)
    # Without the first cell nothing is left, and the profile is 0; without the second it is log(2).
    np.testing.assert_allclose(moments.variance / 2, 0.5 * 2 * (np.log(2) / 2) ** 2)


def test_no_counts_and_one_cell():
    nothing = pseudobulk_moments(np.zeros((3, 2)))
    assert not nothing.mean.any()
    assert not nothing.variance.any()
    assert np.isnan(pseudobulk_moments(np.array([[1, 2]])).variance).all()


def test_bad_counts():
    with pytest.raises(ValueError, match="negative value in `counts`: -1"):
        pseudobulk_moments(np.array([[1, -1], [2, 2]]))
    with pytest.raises(ValueError, match="`target_sum` to be positive, found 0"):
        pseudobulk_moments(np.ones((2, 2)), target_sum=0)
