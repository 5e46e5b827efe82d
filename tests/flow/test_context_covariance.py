"""Covariances between contexts, written out and in factors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from perturbflow.flow import AdditiveHurdlePrior, CellData, GroupSums, context_covariances
from perturbflow.flow import _additive_fit as additive_fit
from perturbflow.flow._context_covariance import FactorCovariance, FullCovariance, VectorCholesky, in_factors
from perturbflow.flow._shrinkage import likely_covariances, posterior_effects

SCALES = np.array([0.3, 1.0])
N_GENES = 7


def tissues(n_contexts, *, seed=0):
    """Squared distances between contexts of four kinds, in units of their median."""
    rng = np.random.default_rng(seed)
    profiles = rng.normal(0, 1, (4, 200))[np.arange(n_contexts) % 4] + rng.normal(0, 0.5, (n_contexts, 200))
    distances = np.square(profiles[:, None] - profiles[None]).sum(axis=-1)
    return distances / np.median(distances[distances > 0])


def data(n_observed, *, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(0, 1, (n_observed, N_GENES)), rng.uniform(0.01, 2, (n_observed, N_GENES))


@pytest.mark.parametrize("n_observed", [1, 3, 5, 26])  # by vectors and by matrices
@pytest.mark.parametrize("form", ["full", "factors"])
def test_evidence_weights_and_precisions(n_observed, form):
    rng = np.random.default_rng(1)
    factors, rest = rng.normal(0, 0.5, (30, 2)), rng.uniform(0.1, 0.5, 30)
    matrix = factors @ factors.T + np.diag(rest)
    covariance: Any = FullCovariance(matrix) if form == "full" else FactorCovariance(factors, rest)
    observed = np.sort(rng.permutation(30)[:n_observed])
    measured, noise = data(n_observed)
    evidence, solution = covariance.evidence(observed, SCALES**2, noise, measured)
    weights, precision = solution(np.arange(2))
    for s, scale in enumerate(SCALES):
        for g in range(N_GENES):
            total = scale**2 * matrix[np.ix_(observed, observed)] + np.diag(noise[:, g])
            density = stats.multivariate_normal.logpdf(measured[:, g], np.zeros(n_observed), total)
            common = -0.5 * (np.log(2 * np.pi) * n_observed + np.log(noise[:, g]).sum())
            assert evidence[s, g] + common == pytest.approx(density, rel=1e-9)
            np.testing.assert_allclose(weights[s, :, g], np.linalg.solve(total, measured[:, g]), rtol=1e-8)
            np.testing.assert_allclose(precision[s, :, g], np.diag(np.linalg.inv(total)), rtol=1e-8)
    np.testing.assert_allclose(solution(np.array([1]))[0][0], weights[1])


@pytest.mark.parametrize("n_contexts", [9, 30, 60])
def test_factors_are_few_and_within_the_stated_tolerance(n_contexts):
    for covariance in context_covariances(tissues(n_contexts)):
        found = in_factors(covariance)
        assert isinstance(found, FactorCovariance)
        assert found.factors.shape[1] <= min(n_contexts // 2, 12)
        assert (found.rest >= 0).all()
        approximate = found.factors @ found.factors.T + np.diag(found.rest)
        np.testing.assert_allclose(approximate, covariance, atol=0.05)
        assert np.linalg.eigvalsh(approximate).min() > -1e-9


@pytest.mark.parametrize("n_contexts", [1, 2, 8])
def test_few_contexts_are_taken_as_they_are(n_contexts):
    matrix = context_covariances(tissues(n_contexts) if n_contexts > 1 else np.zeros((1, 1)))[0]
    covariance = in_factors(matrix)
    assert isinstance(covariance, FullCovariance)
    assert covariance.matrix is matrix


def test_what_needs_many_factors_is_taken_as_it_is():
    roots = np.random.default_rng(0).normal(size=(12, 12))
    matrix = roots @ roots.T
    matrix /= np.sqrt(np.outer(np.diag(matrix), np.diag(matrix)))
    covariance = in_factors(matrix)
    assert isinstance(covariance, FullCovariance)
    assert covariance.matrix is matrix


def test_shrinkage_with_factors_is_nearly_that_with_the_covariances():
    n_contexts, n_genes, rng = 24, 300, np.random.default_rng(0)
    covariances = context_covariances(tissues(n_contexts))
    truth = rng.multivariate_normal(np.zeros(n_contexts), covariances[1], n_genes) * rng.integers(0, 2, (n_genes, 1))
    noise = rng.uniform(0.05, 0.6, truth.shape)
    measured = truth + rng.normal(0, np.sqrt(noise))
    options: Any = {"observed": list(range(n_contexts)), "scales": [0.25, 0.5, 1.0, 2.0]}
    full, full_variance = posterior_effects(
        measured, noise, covariances=[FullCovariance(each) for each in covariances], **options
    )
    few, variance = posterior_effects(
        measured, noise, covariances=[in_factors(each) for each in covariances], **options
    )
    error = np.sqrt(np.mean((full - truth) ** 2))
    assert np.sqrt(np.mean((few - full) ** 2)) < 0.1 * error
    assert np.sqrt(np.mean((few - truth) ** 2)) == pytest.approx(error, rel=0.01)
    np.testing.assert_allclose(variance.mean(), full_variance.mean(), rtol=0.05)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_decompositions_of_many_matrices(n):
    rng = np.random.default_rng(n)
    roots = rng.normal(size=(2, 4, n, n + 2))
    matrices = roots @ roots.swapaxes(2, 3)  # of 2 scales and 4 genes
    first, second = np.tril_indices(n)
    cholesky = VectorCholesky(matrices[:, :, first, second].swapaxes(1, 2), n)
    right = rng.normal(size=(2, n, 4))
    np.testing.assert_allclose(cholesky.log_determinant(), np.linalg.slogdet(matrices)[1], rtol=1e-9, atol=1e-9)
    solved = np.linalg.solve(matrices, right.swapaxes(1, 2)[..., None])[..., 0].swapaxes(1, 2)
    np.testing.assert_allclose(cholesky.solve(right), solved, rtol=1e-7)
    inverses = np.linalg.inv(matrices)[:, :, first, second].swapaxes(1, 2)
    np.testing.assert_allclose(cholesky.inverse(np.array([1])), inverses[[1]], rtol=1e-7)


def test_many_perturbations_do_without_unlikely_covariances(monkeypatch):
    """Perturbations that do the same in all of nine contexts: what is left out makes next to no difference."""
    rng = np.random.default_rng(0)
    n_components, n_contexts, n_genes = 130, 9, 20
    doses = np.tile(np.repeat(np.eye(n_components + 1)[:, 1:], 6, axis=0), (n_contexts, 1))
    rates = np.exp(rng.normal(0, 0.3, (n_contexts, n_genes)))
    factors = np.exp(rng.normal(0, 1.0, (n_components, n_genes)) * (rng.random((n_components, n_genes)) < 0.2))
    of_cells = np.concatenate([np.ones((6, n_genes)), np.repeat(factors, 6, axis=0)])
    x = np.log1p(rng.poisson(rates[:, None] * of_cells).reshape(-1, n_genes))
    sums = GroupSums.of(CellData(x, doses, np.repeat(np.arange(n_contexts), len(of_cells))[:, None]))
    kept = []

    def likely(*given, **options):
        kept.append(likely_covariances(*given, **options))
        return kept[-1]

    monkeypatch.setattr(additive_fit, "likely_covariances", likely)
    found = AdditiveHurdlePrior.fit(sums)
    assert [0 < len(each) < 5 for each in kept] == [True, True]  # of shares and of means
    monkeypatch.setattr(additive_fit, "_TELLING_LEVELS", 33)  # of which 130 are not four times as many
    expected = AdditiveHurdlePrior.fit(sums)
    assert len(kept) == 2
    difference = np.square(found.effects - expected.effects).mean()
    assert 0 < difference < 0.01 * np.square(expected.effects).mean()
