"""Adaptive shrinkage of effects that are measured in several contexts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perturbflow.flow._context_covariance import ContextCovariance, FactorCovariance, Solution

# Shared and local parts of the covariance between contexts: (weight of the shared part, length scale of the local part).
_CONTEXT_KERNELS = ((0.5, 0.3), (0.5, 0.5), (0.5, 1.0), (0.0, 0.5), (0.0, 1.0))
_NULL_PSEUDO_GENES = 10.0
_STEADYING_GENES = 5.0  # with the weights of all, added to every stratum
_EM_STEPS = 60
_VALUES_AT_ONCE = 300_000  # so that arrays of a scale stay in the cache
_LEAST_SHARE = 0.03  # of what is no null, of a covariance that is kept
_LEAST_RESPONSIBILITY = 1e-12  # of a mixture component for any gene; less makes no difference


def context_covariances(distances: NDArray[np.float64]) -> NDArray[np.float64]:
    """Candidate covariances (M, C, C) of an effect between contexts, each with unit variance; one for one context.

    ``K = r + (1 - r) exp(-D / (2 l^2))`` for a few shares r of what all contexts have in common and length scales l,
    with squared distances D between control profiles (C, C), in units of their median.
    """
    n = len(distances)
    if n == 1:
        return np.ones((1, 1, 1))
    local = [share + (1 - share) * np.exp(-distances / (2 * length**2)) for share, length in _CONTEXT_KERNELS]
    return np.stack(local) + 1e-6 * np.eye(n)


def posterior_effects(
    effects: NDArray[np.floating],
    variances: NDArray[np.floating],
    *,
    observed: Sequence[int],
    covariances: Sequence[ContextCovariance],
    scales: Sequence[float],
    strata: NDArray[np.intp] | None = None,
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Posterior means and variances (G, O) of effects in the O contexts observed, under a prior learned from all genes.

    True effects over contexts follow a mixture of ``N(0, s^2 K)`` over scales s and covariances K with a point mass at
    zero, fitted by expectation-maximisation with a light penalty that favours the point mass: multivariate adaptive
    shrinkage (Stephens, Biostatistics 2017; Urbut et al., Nature Genetics 2019).
    """
    if covariances[0].n_contexts == 1:
        mean, variance = shrink_apart(effects.T, variances.T, scales, strata)
        return mean.T, variance.T
    means, spreads = np.empty((2, *effects.shape[::-1]))
    for block in _blocks(effects, variances, observed, covariances, scales, strata):
        noise, measured, null = block.noise, block.measured, block.null
        # Over the components: what is taken from the measured effect, its square, and the precision, all but times noise
        taken, squares, precisions = np.zeros((3, *noise.shape), dtype=noise.dtype)
        for _, places, shares, solution in block.components:
            for share, weights, precision in zip(shares, *solution(places), strict=True):
                precision *= share
                precisions += precision
                shared = share * weights
                taken += shared
                shared *= weights
                squares += shared
        taken *= noise
        # K - K (K + D)^-1 K = D - D (K + D)^-1 D, and K (K + D)^-1 y = y - D (K + D)^-1 y, but 0 under the null
        effect = 1 - null
        means[:, block.genes] = effect * measured - taken
        within = noise * effect + np.square(noise) * (squares - precisions) - np.square(taken)
        spreads[:, block.genes] = np.maximum(within + null * (effect * measured - 2 * taken) * measured, 0)
    return means.T, spreads.T


def likely_covariances(
    sets: Iterable[tuple[NDArray[np.integer], NDArray[np.floating], NDArray[np.floating]]],
    *,
    covariances: Sequence[ContextCovariance],
    scales: Sequence[float],
    strata: NDArray[np.intp],
) -> list[ContextCovariance]:
    """Covariances with 3 % or more of the weight in the mixtures of some sets of effects, at least one.

    A set has the numbers of observed contexts (O,), effects there and their variances (O, G).
    """
    weights = np.zeros(len(covariances))
    for observed, effects, variances in sets:
        for block in _blocks(effects.T, variances.T, observed.tolist(), covariances, scales, strata):
            for covariance, _, shares, _ in block.components:
                weights[covariances.index(covariance)] += shares.sum()
    least = _LEAST_SHARE * weights.sum()
    return [each for each, weight in zip(covariances, weights, strict=True) if weight >= least]


@dataclass(frozen=True, eq=False)
class _Block:
    """Some genes (G'): noise and effects in observed contexts (O, G'), and probabilities.

    ``null`` is that of no effect (G',), ``components`` are covariances with the scales (K,) that are likely under any
    gene, their probabilities (K, 1, G') and what solves for weights and precisions.
    """

    genes: slice
    noise: NDArray[np.floating]
    measured: NDArray[np.floating]
    null: NDArray[np.floating]
    components: list[tuple[ContextCovariance, NDArray[np.intp], NDArray[np.floating], Solution]]


def _blocks(
    effects: NDArray[np.floating],
    variances: NDArray[np.floating],
    observed: Sequence[int],
    covariances: Sequence[ContextCovariance],
    scales: Sequence[float],
    strata: NDArray[np.intp] | None,
) -> Iterator[_Block]:
    """Genes in blocks, with the mixture that was learned from all of them.

    Covariances in factors are computed with in single precision: their errors are far below what effects are known to.
    """
    squared_scales, (n_genes, n_observed) = np.square(scales), effects.shape
    at_once = max(1, _VALUES_AT_ONCE // (len(scales) * n_observed))
    in_factors = all(isinstance(each, FactorCovariance) for each in covariances)
    if not in_factors:  # matrices are written out
        at_once = max(1, at_once // n_observed)
    dtype: type[np.floating] = np.float32 if in_factors else np.float64
    parts = []
    log_likelihoods = np.empty((1 + len(covariances) * len(scales), n_genes), dtype=dtype)
    for first in range(0, n_genes, at_once):
        genes = slice(first, first + at_once)
        noise, measured = (np.array(each[genes].T, dtype=dtype, order="C") for each in (variances, effects))
        log_likelihoods[0, genes] = -0.5 * (measured**2 / noise).sum(axis=0)
        solved = [each.evidence(observed, squared_scales, noise, measured) for each in covariances]
        log_likelihoods[1:, genes] = np.concatenate([evidence for evidence, _ in solved])
        parts.append((genes, noise, measured, [solution for _, solution in solved]))
    null, *others = mixture_responsibilities(log_likelihoods, strata)
    probabilities = np.array(others).reshape(len(covariances), len(scales), n_genes)
    chosen = [np.flatnonzero(own.max(axis=1) > _LEAST_RESPONSIBILITY) for own in probabilities]
    for genes, noise, measured, solutions in parts:
        components = [
            (covariance, places, own[places, None, genes], solution)
            for covariance, places, own, solution in zip(covariances, chosen, probabilities, solutions, strict=True)
            if len(places)
        ]
        yield _Block(genes, noise, measured, null[genes], components)


def shrink_apart(
    effects: NDArray[np.floating],
    variances: NDArray[np.floating],
    scales: Sequence[float],
    strata: NDArray[np.intp] | None = None,
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Posterior means and variances (n, G) of sets of effects of a single context, each under a prior of its own."""
    dtype = np.result_type(effects, variances)
    effects, noise = np.asarray(effects, dtype=dtype), np.asarray(variances, dtype=dtype)
    lost = np.square(np.append(0, scales)).astype(dtype)[:, None] + noise[:, None]  # (n, 1 + S, G), the null first
    np.divide(noise[:, None], lost, out=lost)
    log_likelihoods = (np.square(effects) / -noise)[:, None] * lost
    log_likelihoods += np.log(lost)
    log_likelihoods /= 2
    responsibilities = mixture_responsibilities(log_likelihoods, strata)
    first = np.einsum("nsg,nsg->ng", responsibilities, lost)
    lost *= lost
    second = np.einsum("nsg,nsg->ng", responsibilities, lost)
    spread = noise * (1 - first) + np.square(effects) * (second - np.square(first))
    return effects * (1 - first), np.maximum(spread, 0)


def mixture_responsibilities(
    log_likelihoods: NDArray[np.floating], strata: NDArray[np.intp] | None = None
) -> NDArray[np.floating]:
    """Probability of every mixture component for every gene (..., M, G), component 0 being the null.

    Each stratum of genes (G,) has weights of its own, steadied by those of all: a gene that no cell expresses has no
    effect that could be seen, and says nothing of the others.
    """
    log_likelihoods = log_likelihoods - log_likelihoods.max(axis=-2, keepdims=True)
    # Anything lower makes no difference, and products of it would be too small to be computed with quickly.
    lowest = np.log(np.finfo(log_likelihoods.dtype).tiny) / 2
    likelihoods = np.exp(np.maximum(log_likelihoods, lowest, out=log_likelihoods), out=log_likelihoods)
    strata = np.zeros(likelihoods.shape[-1], dtype=np.intp) if strata is None else strata
    members = [np.flatnonzero(strata == stratum) for stratum in np.unique(strata)]
    parts = [np.ascontiguousarray(likelihoods[..., genes]) for genes in members] if len(members) > 1 else [likelihoods]
    responsibilities = np.empty_like(likelihoods)
    for genes, part, weights in zip(members, parts, _mixture_weights(parts), strict=True):
        part *= weights[..., None]
        part /= part.sum(axis=-2, keepdims=True)
        responsibilities[..., genes] = part
    return responsibilities


def _mixture_weights(parts: Sequence[NDArray[np.floating]]) -> NDArray[np.floating]:
    """Weights of the components in every stratum (S, ..., M), by expectation-maximisation over its genes (..., M, G')."""
    *batch, n_components, _ = parts[0].shape
    sizes = np.array([part.shape[-1] for part in parts])
    dtype = parts[0].dtype
    null = (_NULL_PSEUDO_GENES * sizes / sizes.sum()).astype(dtype).reshape(-1, *(1 for _ in batch))
    steadying = _STEADYING_GENES / sizes.sum()
    weights = np.full((len(parts), *batch, n_components), 1 / n_components, dtype=dtype)
    counts, in_all = np.empty_like(weights), np.empty(weights.shape[1:], dtype=dtype)
    totals = np.empty((len(parts), *batch, 1), dtype=dtype)
    # Few genes take less time than making views of arrays does: these are made once, and the arrays are kept.
    of_null = counts[..., 0]
    steps = []
    for own, part, found in zip(weights, parts, counts, strict=True):
        mixed = np.empty((*batch, 1, part.shape[-1]), dtype=dtype)
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
