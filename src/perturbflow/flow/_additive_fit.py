"""Splitting measured effects into a shared part, one part a component, and interactions, with their variances."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from perturbflow.flow._feature_effects import FeatureEffects, regress_effects
from perturbflow.flow._shrinkage import posterior_effects, shrink_effects

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_SPLIT_PENALTY = 0.03
_LARGEST_LEVERAGE = 0.9  # beyond it a condition says nothing of its interaction
_PSEUDO_MEASUREMENTS = 4.0  # at the level that all genes have, added where a variance is estimated gene by gene
# Shares of the mean square of an effect, where no condition tells: of the interaction of two, and of what an effect
# in one context differs from that in others.
_INTERACTION_SHARE = 0.1
_CONTEXT_SHARE = 0.25


@dataclass(frozen=True, eq=False)
class AdditiveFit:
    """Parts of measured effects, C contexts, P components, g groups, G genes.

    Parameters
    ----------
    shared
        Mean effect of a component (C, G).
    effects
        What every component adds to it (P, C, G).
    interactions
        What remains in every group (g, G).
    effect_variances
        Posterior variance of the effect of a component, in contexts where it was seen (P, G).
    interaction_variances
        Variance of the interaction of a pair (G,).
    context_variances
        Variance of an effect between contexts (G,).
    fraction
        Share of the variance of effects that features explain (1,).
    """

    shared: NDArray[np.float64]
    effects: NDArray[np.float64]
    interactions: NDArray[np.float64]
    effect_variances: NDArray[np.float64]
    interaction_variances: NDArray[np.float64]
    context_variances: NDArray[np.float64]
    fraction: NDArray[np.float64]


def fit_additive(
    measured: NDArray[np.float64],
    variances: NDArray[np.float64],
    *,
    design: NDArray[np.float64],
    which: NDArray[np.int64],
    covariances: NDArray[np.float64],
    features: NDArray[np.floating],
    scales: Sequence[float],
) -> AdditiveFit:
    """Split measured effects (g, G) with sampling variances (g, G).

    The shared part first; then a ridge solution, which divides an effect evenly between components that were only seen
    together; from it and the features, what each component is expected to do given the others; then each component is
    shrunken towards that in turn. Further passes would let a component that comes early take what belongs to its
    partners.

    Parameters
    ----------
    measured, variances
        Measured effects and their sampling variances (g, G).
    design
        Relative dose of every component (g, P).
    which
        Context of every group (g,).
    covariances
        Candidate covariances between contexts (M, C, C).
    features
        Features of the components (P, F), F may be 0.
    scales
        Candidate standard deviations of true effects.

    Returns
    -------
    The parts.
    """
    n_groups, n_genes = measured.shape
    n_contexts, n_components = covariances.shape[1], design.shape[1]
    shared = np.zeros((n_contexts, n_genes))
    effects = np.zeros((n_components, n_contexts, n_genes))
    if n_groups == 0:  # the middle of the scales stands for what is not known
        typical = np.full(n_genes, float(np.median(scales)) ** 2)
        return AdditiveFit(
            shared=shared,
            effects=effects,
            interactions=np.zeros((0, n_genes)),
            effect_variances=np.repeat(typical[None], n_components, axis=0),
            interaction_variances=_INTERACTION_SHARE * typical,
            context_variances=_CONTEXT_SHARE * typical,
            fraction=np.zeros(1),
        )
    amount = design.sum(axis=1, keepdims=True)
    trained = np.asarray(design.any(axis=0))
    seen = np.flatnonzero(trained)
    remaining = measured.copy()
    if len(seen) > 1:
        shared = _shrink(measured / amount, variances / amount**2, which, covariances, scales, between=True)[0]
        remaining -= amount * shared[which]
        gram = design[:, seen].T @ design[:, seen] + _SPLIT_PENALTY * np.eye(len(seen))
        start = np.linalg.solve(gram, design[:, seen].T @ remaining)
        effects[seen] = start[:, None]
        remaining -= design[:, seen] @ start
    expected = _expect(remaining, variances, effects, design, trained, features, scales)
    effects[~trained] = expected.means[~trained, None]
    # The mean effect of a few components is itself uncertain.
    effect_variances = expected.variances * (1 + 1 / len(seen))
    for j in seen:
        rows = np.flatnonzero(design[:, j])
        dose = design[rows, j, None]
        partial = remaining[rows] / dose + effects[j][which[rows]] - expected.means[j]
        new, spread = _shrink(partial, variances[rows] / dose**2, which[rows], covariances, scales, between=False)
        new += expected.means[j]
        remaining[rows] += dose * (effects[j] - new)[which[rows]]
        effects[j] = new
        effect_variances[j] = spread.mean(axis=0)
    alone = np.ones((1, 1, 1))
    interactions = np.stack(
        [
            shrink_effects(rest[:, None], variance[:, None], observed=[0], covariances=alone, scales=scales)[:, 0]
            for rest, variance in zip(remaining, variances, strict=True)
        ]
    )
    scale = (np.square(shared + effects[seen]).mean(axis=1) + effect_variances[seen]).mean(axis=0)
    return AdditiveFit(
        shared=shared,
        effects=effects,
        interactions=interactions,
        effect_variances=effect_variances,
        interaction_variances=_interaction_variances(remaining, variances, design[:, seen], scale),
        context_variances=_context_variances(measured / amount, variances / amount**2, design, which, scale),
        fraction=np.array([expected.fraction]),
    )


def _expect(
    remaining: NDArray[np.float64],
    variances: NDArray[np.float64],
    effects: NDArray[np.float64],
    design: NDArray[np.float64],
    trained: NDArray[np.bool_],
    features: NDArray[np.floating],
    scales: Sequence[float],
) -> FeatureEffects:
    """What each component is expected to do, from its effect averaged over contexts and those of the others."""
    average, noise = np.zeros((2, len(effects), remaining.shape[1]))
    for j in np.flatnonzero(trained):
        rows = np.flatnonzero(design[:, j])
        dose = design[rows, j, None]
        precision = dose**2 / variances[rows]
        noise[j] = 1 / precision.sum(axis=0)
        # Before components are shrunken, all contexts have the same effect.
        average[j] = noise[j] * (precision * remaining[rows] / dose).sum(axis=0) + effects[j, 0]
    return regress_effects(average, noise, features=features, trained=trained, scales=scales)


def _shrink(
    partial: NDArray[np.float64],
    variances: NDArray[np.float64],
    which: NDArray[np.int64],
    covariances: NDArray[np.float64],
    scales: Sequence[float],
    *,
    between: bool,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Average the groups of each context by precision, then shrink: means (C, G), variances in observed contexts.

    With ``between`` the true effects of the groups differ: the weights allow for it, the noise of their mean does not,
    because the mean over just these groups is wanted.
    """
    observed = np.unique(which)
    effects, noise = np.empty((2, partial.shape[1], len(observed)))
    for i, context in enumerate(observed):
        rows = which == context
        scatter = 0.0
        if between and rows.sum() > 1:
            scatter = np.maximum(partial[rows].var(axis=0, ddof=1) - variances[rows].mean(axis=0), 0)
        weights = 1 / (variances[rows] + scatter)
        effects[:, i] = (weights * partial[rows]).sum(axis=0) / weights.sum(axis=0)
        noise[:, i] = 1 / (1 / variances[rows]).sum(axis=0)
    mean, spread = posterior_effects(effects, noise, observed=observed.tolist(), covariances=covariances, scales=scales)
    return mean.T, spread.T


def _interaction_variances(
    remaining: NDArray[np.float64],
    variances: NDArray[np.float64],
    design: NDArray[np.float64],
    scale: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Variance of the interaction of a pair (G,), from what remains in combinations (g, G).

    Each combination has taken part in the fit, which leaves ``1 - leverage`` of the variance of its remainder. A
    combination of k components has k - 1 times the variance of a pair.
    """
    gram = design.T @ design + _SPLIT_PENALTY * np.eye(design.shape[1])
    leverage = (design.T * np.linalg.solve(gram, design.T)).sum(axis=0)
    n_active = (design > 0).sum(axis=1)
    telling = (n_active > 1) & (leverage < _LARGEST_LEVERAGE)
    squares = remaining[telling] ** 2 / (1 - leverage[telling, None]) - variances[telling]
    return _gene_variances(squares / (n_active[telling, None] - 1), scale, share=_INTERACTION_SHARE)


def _context_variances(
    measured: NDArray[np.float64],
    variances: NDArray[np.float64],
    design: NDArray[np.float64],
    which: NDArray[np.int64],
    scale: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Variance of an effect between contexts (G,), from perturbations that were measured in several."""
    _, perturbation = np.unique(design, axis=0, return_inverse=True)
    squares = [
        measured[rows].var(axis=0, ddof=1) - variances[rows].mean(axis=0)
        for rows in (np.flatnonzero(perturbation.ravel() == p) for p in range(perturbation.max() + 1))
        if len(np.unique(which[rows])) > 1
    ]
    return _gene_variances(np.array(squares).reshape(len(squares), len(scale)), scale, share=_CONTEXT_SHARE)


def _gene_variances(squares: NDArray[np.float64], scale: NDArray[np.float64], *, share: float) -> NDArray[np.float64]:
    """Variance of every gene (G,) from unbiased but noisy estimates of it (n, G), steadied by what all genes show.

    Over all genes a variance is taken to be proportional to the mean square ``scale`` of effects (G,); where there are
    no estimates the proportion is ``share``.
    """
    n = len(squares)
    if n == 0 or not scale.any():
        return share * scale
    common = max(float(squares.mean()), 0.0) / float(scale.mean()) * scale
    return np.maximum((squares.sum(axis=0) + _PSEUDO_MEASUREMENTS * common) / (n + _PSEUDO_MEASUREMENTS), 0)
