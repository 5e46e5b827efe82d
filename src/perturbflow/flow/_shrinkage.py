"""Adaptive shrinkage of effects that are measured in several contexts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


# Shared and local parts of the covariance between contexts: (weight of the shared part, length scale of the local part).
_CONTEXT_KERNELS = ((0.5, 0.3), (0.5, 0.5), (0.5, 1.0), (0.0, 0.5), (0.0, 1.0))
_NULL_PSEUDO_GENES = 10.0
_EM_STEPS = 60


def context_covariances(distances: NDArray[np.float64]) -> NDArray[np.float64]:
    """Candidate covariances of an effect between contexts, each with unit variance.

    ``K = r + (1 - r) exp(-D / (2 l^2))`` for a few shares r of what all contexts have in common and length scales l.

    Parameters
    ----------
    distances
        Squared distances between the contexts' control profiles (C, C), in units of their median.

    Returns
    -------
    Covariances (M, C, C); a single one where there is a single context.
    """
    n = len(distances)
    if n == 1:
        return np.ones((1, 1, 1))
    local = [share + (1 - share) * np.exp(-distances / (2 * length**2)) for share, length in _CONTEXT_KERNELS]
    return np.stack(local) + 1e-6 * np.eye(n)


def shrink_effects(
    effects: NDArray[np.float64],
    variances: NDArray[np.float64],
    *,
    observed: Sequence[int],
    covariances: NDArray[np.float64],
    scales: Sequence[float],
) -> NDArray[np.float64]:
    """Posterior mean of an effect in every context, gene by gene, under a prior learned from all genes.

    The true effects of a gene over the contexts follow a mixture of ``N(0, s^2 K)`` over scales s and covariances K
    with a point mass at zero; the mixture weights are fitted by expectation-maximisation over the genes, with a light
    penalty that favours the point mass. Contexts without measurements are predicted from those that resemble them.

    Parameters
    ----------
    effects
        Measured effects (G, O) in the observed contexts.
    variances
        Their sampling variances (G, O).
    observed
        Index of every observed context (O,).
    covariances
        Candidate covariances between all contexts (M, C, C).
    scales
        Candidate standard deviations of true effects.

    Returns
    -------
    Posterior means (G, C).

    Notes
    -----
    Multivariate adaptive shrinkage (Stephens, Biostatistics 2017; Urbut et al., Nature Genetics 2019). Costs
    G * O^3 for every mixture component.
    """
    n_genes, n_observed = effects.shape
    n_contexts = covariances.shape[1]
    log_likelihoods = [-0.5 * (np.log(variances) + effects**2 / variances).sum(1)]
    means = [np.zeros((n_genes, n_contexts))]
    noise = np.zeros((n_genes, n_observed, n_observed))
    diagonal = np.arange(n_observed)
    noise[:, diagonal, diagonal] = variances
    for covariance in covariances:
        within, across = covariance[np.ix_(observed, observed)], covariance[:, observed]
        for scale in scales:
            factor = np.linalg.cholesky(scale**2 * within + noise)
            white = np.linalg.solve(factor, effects[..., None])
            log_determinant = np.log(factor[:, diagonal, diagonal]).sum(1)
            log_likelihoods.append(-log_determinant - 0.5 * (white[..., 0] ** 2).sum(1))
            weights = np.linalg.solve(factor.transpose(0, 2, 1), white)[..., 0]
            means.append(scale**2 * weights @ across.T)
    responsibilities = _mixture_responsibilities(np.stack(log_likelihoods, axis=1))
    posterior = np.zeros((n_genes, n_contexts))
    for k, mean in enumerate(means):
        posterior += responsibilities[:, k, None] * mean
    return posterior


def _mixture_responsibilities(log_likelihoods: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probability of every mixture component for every gene (G, M), component 0 being the null."""
    likelihoods = np.exp(log_likelihoods - log_likelihoods.max(axis=1, keepdims=True))
    n_components = likelihoods.shape[1]
    weights = np.full(n_components, 1 / n_components)
    for _ in range(_EM_STEPS):
        responsibilities = likelihoods * weights
        responsibilities /= responsibilities.sum(axis=1, keepdims=True)
        weights = responsibilities.sum(axis=0)
        weights[0] += _NULL_PSEUDO_GENES
        weights /= weights.sum()
    responsibilities = likelihoods * weights
    return responsibilities / responsibilities.sum(axis=1, keepdims=True)
