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
_CENSORING_ROUNDS = 5
_LARGEST_RESPONSE = 1.5  # of a dose, relative to the next higher one


@dataclass(frozen=True, eq=False)
class AdditiveFit:
    """Parts of measured effects, C contexts, L dose levels, g groups, G genes.

    Parameters
    ----------
    shared
        Mean effect of a component (C, G).
    effects
        What every level adds to it (L, C, G).
    interactions
        What remains in every group (g, G).
    effect_variances
        Posterior variance of the effect of a level, in contexts where it was seen (L, G).
    interaction_variances
        Variance of the interaction of a pair (G,).
    context_variances
        Variance of an effect between contexts (G,).
    base_precisions
        What the groups of a context say of the base that the shared part is added to, as if they were more controls:
        the sum of their precisions (C, G).
    fraction
        Share of the variance of effects that features explain (1,).
    """

    shared: NDArray[np.float64]
    effects: NDArray[np.float64]
    interactions: NDArray[np.float64]
    effect_variances: NDArray[np.float64]
    interaction_variances: NDArray[np.float64]
    context_variances: NDArray[np.float64]
    base_precisions: NDArray[np.float64]
    fraction: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Measurements:
    """Measured effects of g groups of cells on G genes, and which components they are of.

    Parameters
    ----------
    design
        Weight of every dose level in every group (g, L).
    levels
        Component of every level (L,), ascending; within a component the doses ascend.
    which
        Context of every group (g,).
    effects, variances
        Measured effects and their sampling variances (g, G).
    lowest, highest
        Effects that take a gene to the ends of its range (g, G): what lies beyond looks the same.
    """

    design: NDArray[np.float64]
    levels: NDArray[np.int64]
    which: NDArray[np.int64]
    effects: NDArray[np.float64]
    variances: NDArray[np.float64]
    lowest: NDArray[np.float64]
    highest: NDArray[np.float64]

    @property
    def n_components(self) -> int:
        """Number of components P."""
        return int(self.levels.max()) + 1 if len(self.levels) else 0

    @property
    def seen(self) -> NDArray[np.intp]:
        """Levels of which there are groups."""
        return np.flatnonzero(self.design.any(axis=0))

    @property
    def trained(self) -> NDArray[np.bool_]:
        """Components of which there are groups (P,)."""
        return np.isin(np.arange(self.n_components), self.levels[self.seen])

    @property
    def n_active(self) -> NDArray[np.intp]:
        """Number of components of every group (g,)."""
        active = [np.unique(self.levels[np.flatnonzero(row)]) for row in self.design]
        return np.array([len(own) for own in active], dtype=np.intp)

    def beyond(self, fitted: NDArray[np.float64]) -> NDArray[np.float64]:
        """How far fitted effects (g, G) lie beyond the ends of the range, where none can be measured."""
        return fitted - np.clip(fitted, self.lowest, self.highest)


def fit_additive(
    measured: Measurements,
    *,
    covariances: NDArray[np.float64],
    features: NDArray[np.floating],
    scales: Sequence[float],
) -> AdditiveFit:
    """Split measured effects into parts that add up.

    The shared part first; then a ridge solution, which divides an effect evenly between components that were only seen
    together; from it and the features, what each component is expected to do given the others; then each component is
    shrunken towards that in turn. Further passes would let a component that comes early take what belongs to its
    partners. The levels of a component go from the highest dose down, each expected to do a part of what the one above
    does.

    Parameters
    ----------
    measured
        Measured effects.
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
    variances, design, which = measured.variances, measured.design, measured.which
    n_groups, n_genes = measured.effects.shape
    n_contexts, n_levels = covariances.shape[1], design.shape[1]
    shared = np.zeros((n_contexts, n_genes))
    effects = np.zeros((n_levels, n_contexts, n_genes))
    if n_groups == 0:  # the middle of the scales stands for what is not known
        typical = np.full(n_genes, float(np.median(scales)) ** 2)
        return AdditiveFit(
            shared=shared,
            effects=effects,
            interactions=np.zeros((0, n_genes)),
            effect_variances=np.repeat(typical[None], n_levels, axis=0),
            interaction_variances=_INTERACTION_SHARE * typical,
            context_variances=_CONTEXT_SHARE * typical,
            base_precisions=np.zeros((n_contexts, n_genes)),
            fraction=np.zeros(1),
        )
    amount = design.sum(axis=1, keepdims=True)
    seen, trained = measured.seen, measured.trained
    remaining = measured.effects.copy()
    if len(seen) > 1:
        shared = _shrink(remaining / amount, variances / amount**2, which, covariances, scales, between=True)[0]
        start = _divide(measured, amount * shared[which])
        effects[seen] = start[:, None]
        fitted = amount * shared[which] + design[:, seen] @ start
        remaining += measured.beyond(fitted) - fitted
    expected = _expect(measured, remaining, effects, features, scales)
    effects[~trained[measured.levels]] = expected.means[~trained][:, None]
    # The mean effect of a few components is itself uncertain.
    effect_variances = (expected.variances * (1 + 1 / trained.sum()))[measured.levels]
    for level in sorted(seen, key=lambda own: (measured.levels[own], -own)):
        rows = np.flatnonzero(design[:, level])
        weight = design[rows, level, None]
        partial, noise = remaining[rows] / weight + effects[level][which[rows]], variances[rows] / weight**2
        above = level + 1 if level + 1 in seen and measured.levels[level + 1] == measured.levels[level] else None
        if above is None:
            prior = np.repeat(expected.means[measured.levels[level], None], n_contexts, axis=0)
        else:
            total = shared + effects[above]
            prior = _response(partial + shared[which[rows]], noise, total[which[rows]]) * total - shared
        new, spread = _shrink(partial - prior[which[rows]], noise, which[rows], covariances, scales, between=False)
        new += prior
        remaining[rows] += weight * (effects[level] - new)[which[rows]]
        effects[level] = new
        effect_variances[level] = spread.mean(axis=0)
    alone = np.ones((1, 1, 1))
    interactions = np.stack(
        [
            shrink_effects(rest[:, None], variance[:, None], observed=[0], covariances=alone, scales=scales)[:, 0]
            for rest, variance in zip(remaining, variances, strict=True)
        ]
    )
    spread = (np.square(effects[seen]).mean(axis=1) + effect_variances[seen]).mean(axis=0)
    base_precisions = np.zeros((n_contexts, n_genes))
    if len(seen) > 1:  # the shared part takes up the error of the base
        np.add.at(base_precisions, which, 1 / (variances + spread))
    scale = (np.square(shared + effects[seen]).mean(axis=1) + effect_variances[seen]).mean(axis=0)
    return AdditiveFit(
        shared=shared,
        effects=effects,
        interactions=interactions,
        effect_variances=effect_variances,
        interaction_variances=_interaction_variances(measured, remaining, scale),
        context_variances=_context_variances(measured.effects / amount, variances / amount**2, design, which, scale),
        base_precisions=base_precisions,
        fraction=np.array([expected.fraction]),
    )


def _divide(measured: Measurements, shared: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ridge solution for what every seen level adds to the shared part (g, G), the same in all contexts.

    Where the parts of a combination take a gene beyond the end of its range, its cells show the end: the fit itself
    stands for what cannot be seen there (Tobin, Econometrica 1958), in a few rounds.
    """
    design = measured.design[:, measured.seen]
    gram = design.T @ design + _SPLIT_PENALTY * np.eye(design.shape[1])
    solution = np.linalg.solve(gram, design.T)
    start = solution @ (measured.effects - shared)
    for _ in range(_CENSORING_ROUNDS if (measured.n_active > 1).any() else 0):
        start = solution @ (measured.effects + measured.beyond(shared + design @ start) - shared)
    return start


def _response(effects: NDArray[np.float64], noise: NDArray[np.float64], above: NDArray[np.float64]) -> float:
    """Size of the effects of a dose (n, G) relative to those of the next higher one (n, G), over all genes."""
    strength = (above**2 / noise).sum()
    return float(np.clip((effects * above / noise).sum() / max(strength, 1e-12), 0, _LARGEST_RESPONSE))


def _expect(
    measured: Measurements,
    remaining: NDArray[np.float64],
    effects: NDArray[np.float64],
    features: NDArray[np.floating],
    scales: Sequence[float],
) -> FeatureEffects:
    """What each component is expected to do, from its effect averaged over contexts and those of the others.

    Of a component at several doses the highest counts: the others are no further perturbations.
    """
    average, noise = np.zeros((2, measured.n_components, remaining.shape[1]))
    for j in np.flatnonzero(measured.trained):
        level = measured.seen[measured.levels[measured.seen] == j][-1]
        rows = np.flatnonzero(measured.design[:, level])
        weight = measured.design[rows, level, None]
        precision = weight**2 / measured.variances[rows]
        noise[j] = 1 / precision.sum(axis=0)
        # Before components are shrunken, all contexts have the same effect.
        average[j] = noise[j] * (precision * remaining[rows] / weight).sum(axis=0) + effects[level, 0]
    return regress_effects(average, noise, features=features, trained=measured.trained, scales=scales)


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

    With ``between`` the true effects of the groups differ: their scatter counts as noise, so that the few groups with
    large effects are not taken for what all groups have in common.
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
        noise[:, i] = 1 / weights.sum(axis=0)
    mean, spread = posterior_effects(effects, noise, observed=observed.tolist(), covariances=covariances, scales=scales)
    return mean.T, spread.T


def _interaction_variances(
    measured: Measurements, remaining: NDArray[np.float64], scale: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Variance of the interaction of a pair (G,), from what remains in combinations (g, G).

    Each combination has taken part in the fit, which leaves ``1 - leverage`` of the variance of its remainder. A
    combination of k components has k - 1 times the variance of a pair.
    """
    design, n_active = measured.design[:, measured.seen], measured.n_active
    gram = design.T @ design + _SPLIT_PENALTY * np.eye(design.shape[1])
    leverage = (design.T * np.linalg.solve(gram, design.T)).sum(axis=0)
    telling = (n_active > 1) & (leverage < _LARGEST_LEVERAGE)
    squares = remaining[telling] ** 2 / (1 - leverage[telling, None]) - measured.variances[telling]
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
