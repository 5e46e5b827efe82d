"""Adaptive shrinkage of effects that are measured in several contexts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from perturbflow.flow._context_covariance import FactorCovariance, FullCovariance

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from perturbflow.flow._context_covariance import ContextCovariance


# Shared and local parts of the covariance between contexts: (weight of the shared part, length scale of the local part).
_CONTEXT_KERNELS = ((0.5, 0.3), (0.5, 0.5), (0.5, 1.0), (0.0, 0.5), (0.0, 1.0))
_NULL_PSEUDO_GENES = 10.0
_STEADYING_GENES = 5.0  # with the weights of all, added to every stratum
_EM_STEPS = 60
_VALUES_AT_ONCE = 1_000_000
_LEAST_RESPONSIBILITY = 1e-12  # of a mixture component for any gene; less makes no difference


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
    candidates = [FullCovariance(covariance) for covariance in covariances]
    return posterior_effects(effects, variances, observed=observed, covariances=candidates, scales=scales)[0]


def posterior_effects(
    effects: NDArray[np.floating],
    variances: NDArray[np.floating],
    *,
    observed: Sequence[int],
    covariances: Sequence[ContextCovariance],
    scales: Sequence[float],
    strata: NDArray[np.intp] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Posterior mean of an effect in every context and its posterior variance in the observed ones.

    Parameters
    ----------
    effects, variances, observed, scales
        As in :func:`shrink_effects`.
    covariances
        Candidate covariances between all contexts.
    strata
        See :func:`mixture_responsibilities`.

    Returns
    -------
    Posterior means (G, C) and variances (G, O).
    """
    if covariances[0].n_contexts == 1:
        mean, variance = shrink_apart(effects.T, variances.T, scales, strata)
        return mean.T, variance.T
    squared_scales, n_observed = np.square(scales), effects.shape[1]
    at_once = max(1, _VALUES_AT_ONCE // (len(scales) * n_observed))
    if not all(isinstance(each, FactorCovariance) for each in covariances):  # whose matrices are written out
        at_once = max(1, at_once // n_observed)
    parts = []
    log_likelihoods = np.empty((1 + len(covariances) * len(scales), len(effects)))
    for first in range(0, len(effects), at_once):
        genes = slice(first, first + at_once)
        noise, measured = (np.array(each[genes].T, dtype=np.float64, order="C") for each in (variances, effects))
        log_likelihoods[0, genes] = -0.5 * (measured**2 / noise).sum(axis=0)
        solved = [each.evidence(observed, squared_scales, noise, measured) for each in covariances]
        log_likelihoods[1:, genes] = np.concatenate([evidence for evidence, _ in solved])
        parts.append((genes, noise, measured, [solution for _, solution in solved]))
    responsibilities = mixture_responsibilities(log_likelihoods, strata)[1:].reshape(len(covariances), len(scales), -1)
    chosen = [np.flatnonzero(own.max(axis=1) > _LEAST_RESPONSIBILITY) for own in responsibilities]
    means, spreads = np.zeros((covariances[0].n_contexts, len(effects))), np.empty((n_observed, len(effects)))
    for genes, noise, measured, solutions in parts:
        second = np.zeros(noise.shape)
        for covariance, solution, own, places in zip(covariances, solutions, responsibilities, chosen, strict=True):
            if not len(places):
                continue
            weights, precision = solution(places)
            share = own[places, None, genes]
            combined = (share * squared_scales[places, None, None] * weights).sum(axis=0)
            means[:, genes] += covariance.carry(observed, combined)
            # K - K (K + D)^-1 K = D - D (K + D)^-1 D, and K (K + D)^-1 y = y - D (K + D)^-1 y
            precision *= -(noise**2)
            precision += noise
            weights *= noise
            np.subtract(measured, weights, out=weights)
            np.square(weights, out=weights)
            weights += np.maximum(precision, 0, out=precision)
            weights *= share
            second += weights.sum(axis=0)
        spreads[:, genes] = np.maximum(second - means[observed, genes] ** 2, 0)
    return means.T, spreads.T


def shrink_apart(
    effects: NDArray[np.floating],
    variances: NDArray[np.floating],
    scales: Sequence[float],
    strata: NDArray[np.intp] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Shrink several sets of effects of a single context, each under a prior of its own.

    Parameters
    ----------
    effects, variances
        Measured effects and their sampling variances (n, G).
    scales
        Candidate standard deviations of true effects.
    strata
        See :func:`mixture_responsibilities`.

    Returns
    -------
    Posterior means and variances (n, G).
    """
    effects, noise = np.asarray(effects, dtype=np.float64), np.asarray(variances, dtype=np.float64)[:, None]
    total = np.square(np.append(0.0, scales))[:, None] + noise  # (n, 1 + S, G), the null first
    log_likelihoods = -0.5 * (np.log(total) + effects[:, None] ** 2 / total)
    responsibilities = mixture_responsibilities(log_likelihoods, strata)
    kept = 1 - noise / total
    means = kept * effects[:, None]
    mean = (responsibilities * means).sum(axis=1)
    second = (responsibilities * (kept * noise + means**2)).sum(axis=1)
    return mean, np.maximum(second - mean**2, 0)


def mixture_responsibilities(
    log_likelihoods: NDArray[np.float64], strata: NDArray[np.intp] | None = None
) -> NDArray[np.float64]:
    """Probability of every mixture component for every gene, component 0 being the null.

    Parameters
    ----------
    log_likelihoods
        Of every component for every gene (..., M, G).
    strata
        Stratum of every gene (G,): each has weights of its own, steadied by those of all genes. A gene that no cell
        expresses has no effect that could be seen, and says nothing of the others.

    Returns
    -------
    The probabilities (..., M, G).
    """
    likelihoods = np.exp(log_likelihoods - log_likelihoods.max(axis=-2, keepdims=True))
    strata = np.zeros(likelihoods.shape[-1], dtype=np.intp) if strata is None else strata
    members = [np.flatnonzero(strata == stratum) for stratum in np.unique(strata)]
    parts = [np.ascontiguousarray(likelihoods[..., genes]) for genes in members] if len(members) > 1 else [likelihoods]
    responsibilities = np.empty_like(likelihoods)
    for genes, part, weights in zip(members, parts, _mixture_weights(parts), strict=True):
        part *= weights[..., None]
        part /= part.sum(axis=-2, keepdims=True)
        responsibilities[..., genes] = part
    return responsibilities


def _mixture_weights(parts: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Weights of the components in every stratum (S, ..., M), by expectation-maximisation over its genes (..., M, G')."""
    *batch, n_components, _ = parts[0].shape
    sizes = np.array([part.shape[-1] for part in parts])
    null = (_NULL_PSEUDO_GENES * sizes / sizes.sum()).reshape(-1, *(1 for _ in batch))
    steadying = _STEADYING_GENES / sizes.sum()
    weights = np.full((len(parts), *batch, n_components), 1 / n_components)
    counts, in_all, totals = np.empty_like(weights), np.empty(weights.shape[1:]), np.empty((len(parts), *batch, 1))
    # Few genes take less time than making views of arrays does: these are made once, and the arrays are kept.
    of_null = counts[..., 0]
    steps = []
    for own, part, found in zip(weights, parts, counts, strict=True):
        mixed = np.empty((*batch, 1, part.shape[-1]))
        steps.append((own[..., None, :], part, mixed, mixed.swapaxes(-1, -2), found[..., None]))
    for _ in range(_EM_STEPS):
        for row, part, mixed, column, found in steps:
            np.matmul(row, part, out=mixed)
            np.divide(1, mixed, out=mixed)
            np.matmul(part, column, out=found)
        counts *= weights
        if len(parts) > 1:
            np.add.reduce(counts, axis=0, out=in_all)
            in_all *= steadying
            counts += in_all
        of_null += null
        np.add.reduce(counts, axis=-1, keepdims=True, out=totals)
        np.divide(counts, totals, out=weights)
    return weights
