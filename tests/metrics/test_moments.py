from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from perturbflow.metrics import (
    Moments,
    cosine_of_log_fold_changes,
    cosine_of_mean_effects,
    error_of_variances,
    recall_of_top_genes,
    rmse_of_mean_effects,
)


def cells(seed=0, n=40):
    return np.random.default_rng(seed).poisson(0.7, (n, 6)).astype(np.float32)


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_matrix, sparse.csc_array])
def test_moments_are_those_of_numpy(kind):
    found = Moments.of(kind(cells()))
    np.testing.assert_allclose(found.mean, cells().mean(axis=0, dtype=float), rtol=1e-12)
    np.testing.assert_allclose(found.variance, cells().astype(float).var(axis=0, ddof=1), rtol=1e-12)
    assert found.shape == (40, 6)


def test_variances_do_not_lose_digits_to_the_mean():
    values = cells().astype(float)
    np.testing.assert_allclose(Moments.of(values + 1e8).variance, values.var(axis=0, ddof=1), rtol=1e-7)


def test_pooled_moments_are_those_of_all_cells_together():
    parts = [cells(0, 3), cells(1, 1), cells(2, 30)]
    found, whole = Moments.pooled(*map(Moments.of, parts)), Moments.of(np.concatenate(parts))
    assert found.n_cells == 34
    np.testing.assert_allclose(found.mean, whole.mean, rtol=1e-12)
    np.testing.assert_allclose(found.variance, whole.variance, rtol=1e-12)
    assert np.isnan(Moments.of(parts[1]).variance).all()
    alone = Moments.pooled(Moments.of(parts[1]))
    assert (alone.n_cells, alone.mean.tolist()) == (1, parts[1][0].tolist())
    assert np.isnan(alone.variance).all()


@pytest.mark.parametrize(
    "metric",
    [
        rmse_of_mean_effects,
        cosine_of_mean_effects,
        cosine_of_log_fold_changes,
        recall_of_top_genes,
    ],
)
def test_moments_do_in_the_place_of_cells(metric):
    three = [cells(seed) for seed in range(3)]
    assert metric(*map(Moments.of, three)) == metric(*three)


def test_bad_input():
    with pytest.raises(ValueError, match="finite values in `z`"):
        Moments.of(np.array([[np.nan, 1.0]]), name="z")
    with pytest.raises(ValueError, match="at least 2 cells in `x`, found 1"):
        error_of_variances(Moments.of(np.ones((1, 2))), np.ones((3, 2)))
    with pytest.raises(ValueError, match="same genes"):
        rmse_of_mean_effects(Moments.of(np.ones((2, 3))), np.ones((2, 2)), np.ones((2, 2)))
