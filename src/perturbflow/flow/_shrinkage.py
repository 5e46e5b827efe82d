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
_VALUES_AT_ONCE = 10_000_000


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

    Examples
    --------
    >>> import numpy as np
    >>> import perturbflow as pf
    >>> covariances = pf.flow.context_covariances(np.array([[0.0, 1.0], [1.0, 0.0]]))
    >>> covariances.shape
    (5, 2, 2)
    >>> covariances[:, 0, 1].round(2)  # the last has nothing in common, and exp(-1 / 2) through resemblance
    array([0.5 , 0.57, 0.8 , 0.14, 0.61])
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

    Examples
    --------
    One gene of 20 has an effect, which was measured in the first of two contexts only:

    >>> import numpy as np
    >>> import perturbflow as pf
    >>> effects = np.append(2.0, np.random.default_rng(0).normal(0, 0.1, 19))[:, None]
    >>> covariances = pf.flow.context_covariances(np.array([[0.0, 1.0], [1.0, 0.0]]))
    >>> shrunken = pf.flow.shrink_effects(
    ...     effects, np.full((20, 1), 0.01), observed=[0], covariances=covariances, scales=[0.5, 1.0, 2.0]
    ... )
    >>> shrunken[0].round(1)  # kept where it was measured, half of it expected in the other context
    array([2., 1.])
    >>> bool(abs(shrunken[1:]).max() < 0.05)  # of what was measured as up to 0.1
    True
    """
    return posterior_effects(effects, variances, observed=observed, covariances=covariances, scales=scales)[0]


def posterior_effects(
    effects: NDArray[np.float64],
    variances: NDArray[np.float64],
    *,
    observed: Sequence[int],
    covariances: NDArray[np.float64],
    scales: Sequence[float],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Posterior mean of an effect in every context and its posterior variance in the observed ones.

    Parameters
    ----------
    effects, variances, observed, covariances, scales
        As in :func:`shrink_effects`.

    Returns
    -------
    Posterior means (G, C) and variances (G, O).
    """
    n_genes, n_observed = effects.shape
    n_contexts = covariances.shape[1]
    squared_scales = np.square(scales)
    # Mixture components (M * S, ...): every covariance at every scale.
    full = (squared_scales[:, None, None] * covariances[:, None]).reshape(-1, n_contexts, n_contexts)
    within, across = full[:, observed][:, :, observed], full[:, :, observed]
    at_once = max(1, _VALUES_AT_ONCE // (len(full) * n_observed**2))
    chunks = [slice(first, first + at_once) for first in range(0, n_genes, at_once)]
    null = -0.5 * (np.log(variances) + effects**2 / variances).sum(axis=1)
    log_likelihoods = np.empty((1 + len(full), n_genes))
    log_likelihoods[0] = null
    means = np.empty((len(full), n_contexts, n_genes))
    spreads = np.empty((len(full), n_observed, n_genes))
    for chunk in chunks:
        noise = variances[chunk].T
        log_likelihoods[1:, chunk], weights, precision = _gaussian_evidence(within, noise, effects[chunk].T)
        means[:, :, chunk] = across @ weights
        # K - K (K + D)^-1 K = D - D (K + D)^-1 D
        spreads[:, :, chunk] = np.maximum(noise - noise**2 * precision, 0)
    responsibilities = mixture_responsibilities(log_likelihoods)[1:]
    mean = np.einsum("mg,mcg->gc", responsibilities, means)
    second = np.einsum("mg,mog->go", responsibilities, spreads + means[:, observed] ** 2)
    return mean, np.maximum(second - mean[:, observed] ** 2, 0)


def _gaussian_evidence(
    covariances: NDArray[np.float64], noise: NDArray[np.float64], measured: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Evidence of measurements y (O, G) with noise (O, G) under covariances K (M, O, O).

    Returns the log evidence (M, G), the weights ``(K + diag(noise))^-1 y`` (M, O, G) and the diagonal of the inverse
    ``(K + diag(noise))^-1`` (M, O, G). A Cholesky decomposition written over whole vectors of genes: matrices of a few
    contexts are far too small for a call of LAPACK each.
    """
    n = len(noise)
    factor: list[list[NDArray[np.float64]]] = []
    white: list[NDArray[np.float64]] = []
    evidence = np.zeros((len(covariances), noise.shape[1]))
    for i in range(n):
        row: list[NDArray[np.float64]] = []
        for j in range(i + 1):
            entry = covariances[:, i, j, None] + (noise[i] if i == j else 0.0)
            for k in range(j):
                entry = entry - row[k] * (row if i == j else factor[j])[k]
            row.append(np.sqrt(entry) if i == j else entry / factor[j][j])
        factor.append(row)
        rest = measured[i] - sum((row[k] * white[k] for k in range(i)), start=np.zeros(()))
        white.append(rest / row[i])
        evidence -= np.log(row[i]) + 0.5 * white[i] ** 2
    weights = np.empty((len(covariances), n, noise.shape[1]))
    for i in reversed(range(n)):
        rest = white[i] - sum((factor[k][i] * weights[:, k] for k in range(i + 1, n)), start=np.zeros(()))
        weights[:, i] = rest / factor[i][i]
    return evidence, weights, _inverse_diagonal(factor)


def _inverse_diagonal(factor: list[list[NDArray[np.float64]]]) -> NDArray[np.float64]:
    """Diagonal of ``(L L^T)^-1`` (M, O, G) from the rows of L, whose entries are (M, G)."""
    n = len(factor)
    diagonal = np.zeros((len(factor[0][0]), n, factor[0][0].shape[1]))
    for j in range(n):  # column j of the inverse of L
        column = {j: 1 / factor[j][j]}
        for i in range(j + 1, n):
            column[i] = -sum((factor[i][k] * column[k] for k in range(j, i)), start=np.zeros(())) / factor[i][i]
        diagonal[:, j] = sum(entry**2 for entry in column.values())
    return diagonal


def mixture_responsibilities(log_likelihoods: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probability of every mixture component for every gene (M, G), component 0 being the null."""
    likelihoods = np.exp(log_likelihoods - log_likelihoods.max(axis=0))
    weights = np.full(len(likelihoods), 1 / len(likelihoods))
    for _ in range(_EM_STEPS):
        weights = weights * (likelihoods @ (1 / (weights @ likelihoods)))
        weights[0] += _NULL_PSEUDO_GENES
        weights /= weights.sum()
    responsibilities = likelihoods * weights[:, None]
    return responsibilities / responsibilities.sum(axis=0)
