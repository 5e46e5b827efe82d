"""Splitting measured effects into a shared part, one part per component, and interactions, with their variances."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from perturbflow.flow._carry import Carry
from perturbflow.flow._context_interactions import tell_contexts
from perturbflow.flow._control_factors import FEWEST_CONTEXTS, ControlFactors, read_controls
from perturbflow.flow._effect_split import (
    CONTEXT_SHARE,
    INTERACTION_SHARE,
    Asked,
    RidgeSplit,
    common_effects,
    context_variances,
    interaction_variances,
)
from perturbflow.flow._feature_effects import FeatureEffects, regress_effects
from perturbflow.flow._interaction_factors import EffectTable, SingleEffects
from perturbflow.flow._measurements import Measurements, members
from perturbflow.flow._shrinkage import likely_covariances, posterior_effects, shrink_apart

_SPLIT_PENALTY = 0.03
_CENSORING_ROUNDS = 5
_GROUPS_AT_ONCE = 16
_TELLING_LEVELS = 32  # that say which covariances between contexts are likely, of four times as many or more
_LARGEST_RESPONSE = 1.5  # of a dose, relative to the next higher one


def fit_additive(
    measured: Measurements,
    *,
    carry: Carry,
    features: NDArray[np.floating],
    asked: Asked | None = None,
) -> dict[str, NDArray]:
    """Split measured effects into parts that add up, by the name of a field of the prior; what is not ``asked`` for has 0.

    The shared part first; then a ridge solution, which divides an effect evenly between components that were only seen
    together; from it and the features, what each component is expected to do given the others; then each component is
    shrunken towards that in turn, from its highest dose down, and carried to the contexts where it was not measured.
    Further passes would let a component that comes early take what belongs to its partners.
    """
    variances, which = measured.variances, measured.which
    n_groups, n_genes = measured.effects.shape
    n_contexts, n_levels = carry.n_contexts, len(measured.levels)
    shared = np.zeros((n_contexts, n_genes))
    effects = np.zeros((n_levels, n_contexts, n_genes), dtype=np.float32)
    if n_groups == 0:  # the middle of the scales stands for what is not known
        typical = np.full(n_genes, float(np.median(measured.scales)) ** 2)
        return {
            "shared": shared,
            "effects": effects,
            "interactions": np.zeros((0, n_genes), dtype=np.float32),
            "effect_variances": np.repeat(typical[None], n_levels, axis=0).astype(np.float32),
            "interaction_variances": INTERACTION_SHARE * typical,
            "context_variances": CONTEXT_SHARE * typical,
            "told_variances": np.zeros((n_contexts, n_genes)),
            "base_precisions": np.zeros((n_contexts, n_genes)),
            "fraction": np.zeros(1),
            **ControlFactors.nothing(n_levels, n_contexts, 0, n_genes)._asdict(),
        }
    seen, trained = measured.seen, measured.trained
    split = RidgeSplit(measured.design[:, seen], _SPLIT_PENALTY)
    start = np.zeros((n_levels, n_genes))  # of a level, before it is shrunken: the same in all contexts
    remaining = measured.effects.copy()
    if len(seen) > 1:
        observed, common, noise = common_effects(measured, split)
        shared = carry.everywhere(observed, _posterior(observed, common, noise, carry, measured)[0])
        for genes in measured.gene_blocks():
            start[seen, genes], fitted = _divide(measured, split, shared[:, genes], genes)
            remaining[:, genes] += measured.beyond(fitted, which, genes) - fitted
    beyond = replace(carry, bases=carry.bases + shared)
    expected = _expect(measured, remaining, start, features)
    unknown = ~trained[measured.levels]
    effects[unknown] = expected.means[measured.levels[unknown], None]
    # The mean effect of a few components is itself uncertain.
    uncertain = 1 + 1 / trained.sum()
    effect_variances = np.zeros((n_levels, n_genes), dtype=np.float32)
    for level in np.flatnonzero(~measured.is_seen):
        effect_variances[level] = expected.variances[measured.levels[level]] * uncertain
    fitted_levels = seen if asked is None else asked.levels(measured, split)
    likely = _with_likely_covariances(
        carry, measured, remaining, start - expected.means[measured.levels], fitted_levels
    )
    for level in fitted_levels[np.lexsort((-fitted_levels, measured.levels[fitted_levels]))]:
        component = measured.levels[level]
        rows, weight = measured.of_level(level)
        partial, noise = remaining[rows] / weight + start[level], variances[rows] / weight**2
        has_above = level + 1 < n_levels and measured.levels[level + 1] == component and measured.is_seen[level + 1]
        prior = np.repeat(expected.means[component, None], n_contexts, axis=0)
        if has_above:
            total = shared + effects[level + 1]
            prior = _response(partial + shared[which[rows]], noise, total[which[rows]]) * total - shared
        observed, averages, sampling = _by_context(partial - prior[which[rows]], noise, which[rows])
        shrunken, spread = _posterior(observed, averages, sampling, likely, measured)
        new = beyond.everywhere(observed, shrunken + prior[observed])
        remaining[rows] += weight * (start[level] - new[which[rows]])
        effects[level] = new
        effect_variances[level] = spread.mean(axis=0)
    del start
    # Where nothing was perturbed effects are carried, and tell nothing more.
    own = carry.measured
    spread, scale = _mean_squares(shared[own], effects[:, own], effect_variances, fitted_levels)
    between = context_variances(measured, scale)
    table = _table(measured, shared, fitted_levels)
    told = tell_contexts(table, effects, beyond, between, expected.means[measured.levels])
    for better, variance in told.spreads.items():
        effect_variances[better] = variance
    alone, context = measured.design[told.groups].indices, which[told.groups]
    remaining[told.groups] = measured.effects[told.groups] - (shared[context] + effects[alone, context])
    read = read_controls(table, effects, beyond, between)
    if read.is_read:
        told.variances[~read.context_factors.any(axis=1)] = read.read_variances
    groups = np.arange(n_groups) if asked is None else np.flatnonzero(asked.groups)
    return {
        "shared": shared,
        "effects": effects,
        "interactions": _interactions(remaining, measured, groups),
        "effect_variances": effect_variances,
        "interaction_variances": interaction_variances(measured, remaining, split.leverages(), scale),
        "context_variances": between,
        "told_variances": told.variances,
        "base_precisions": _base_precisions(measured, spread, n_contexts),
        "fraction": np.array([expected.fraction]),
        **read._asdict(),
    }


def _table(measured: Measurements, shared: NDArray[np.float64], fitted: NDArray[np.intp]) -> EffectTable | None:
    """Effects that tell how contexts differ; None where nothing can be learned of it, or nobody asks."""
    single = SingleEffects.of(measured, fitted, len(shared))
    if single is None or not (len(single.asking) or single.is_known.sum() >= FEWEST_CONTEXTS):
        return None
    return EffectTable.of(single, measured, shared)


def _divide(
    measured: Measurements, split: RidgeSplit, shared: NDArray[np.float64], genes: slice
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Ridge solution for what every seen level adds to the shared part (S, G'), and what groups have of both (g, G').

    It is the same in all contexts. Where the parts of a combination take a gene beyond the end of its range, its cells
    show the end: the fit itself stands for what cannot be seen there (Tobin, Econometrica 1958), in a few rounds.
    """
    which, effects = measured.which, measured.effects[:, genes].astype(np.float64)
    base = measured.amount[:, None] * shared[which]
    start = split.solve(effects - base)
    for _ in range(_CENSORING_ROUNDS if (measured.n_active > 1).any() else 0):
        start = split.solve(effects + measured.beyond(base + split.design @ start, which, genes) - base)
    return start, base + split.design @ start


def _mean_squares(
    shared: NDArray[np.float64],
    effects: NDArray[np.float32],
    variances: NDArray[np.float32],
    levels: NDArray[np.intp],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean square of what some levels add to the shared part, and of both together, with what is not known (G,)."""
    alone, together = np.zeros((2, shared.shape[1]))
    for level in levels:
        own = effects[level].astype(np.float64)
        alone += np.square(own).mean(axis=0) + variances[level]
        together += np.square(shared + own).mean(axis=0) + variances[level]
    return alone / len(levels), together / len(levels)


def _interactions(
    remaining: NDArray[np.float32], measured: Measurements, groups: NDArray[np.intp]
) -> NDArray[np.float32]:
    """Return what remains in some groups, shrunken group by group (g, G); 0 in the others."""
    found = np.zeros(remaining.shape, dtype=np.float32)
    for first in range(0, len(groups), _GROUPS_AT_ONCE):
        rows = groups[first : first + _GROUPS_AT_ONCE]
        found[rows] = shrink_apart(remaining[rows], measured.variances[rows], measured.scales, measured.strata)[0]
    return found


def _base_precisions(measured: Measurements, spread: NDArray[np.float64], n_contexts: int) -> NDArray[np.float64]:
    """Return what the groups of every context say of its base (C, G): the shared part takes up the error of it."""
    found = np.zeros((n_contexts, len(spread)))
    if len(measured.seen) > 1:
        of_context = members(measured.which, n_contexts)
        for genes in measured.gene_blocks():
            found[:, genes] = of_context @ (1 / (measured.variances[:, genes] + spread[genes]))
    return found


def _response(effects: NDArray[np.float64], noise: NDArray[np.float64], above: NDArray[np.float64]) -> float:
    """Size of the effects of a dose (n, G) relative to those of the next higher one (n, G), over all genes."""
    strength = (above**2 / noise).sum()
    return float(np.clip((effects * above / noise).sum() / max(strength, 1e-12), 0, _LARGEST_RESPONSE))


def _expect(
    measured: Measurements,
    remaining: NDArray[np.float32],
    start: NDArray[np.float64],
    features: NDArray[np.floating],
) -> FeatureEffects:
    """Return what each component is expected to do, from its effect averaged over contexts and those of the others.

    Of a component at several doses the highest counts: the others are no further perturbations.
    """
    average, noise = np.zeros((2, measured.n_components, remaining.shape[1]))
    seen = measured.seen
    component = measured.levels[seen]
    for level in seen[np.append(component[1:] != component[:-1], True)]:
        j = measured.levels[level]
        rows, weight = measured.of_level(level)
        precision = weight**2 / measured.variances[rows]
        noise[j] = 1 / precision.sum(axis=0)
        # Before components are shrunken, all contexts have the same effect.
        average[j] = noise[j] * (precision * remaining[rows] / weight).sum(axis=0) + start[level]
    return regress_effects(
        average, noise, features=features, trained=measured.trained, scales=measured.scales, strata=measured.strata
    )


def _with_likely_covariances(
    carry: Carry,
    measured: Measurements,
    remaining: NDArray[np.float32],
    start: NDArray[np.float64],
    levels: NDArray[np.intp],
) -> Carry:
    """Leave covariances out that are unlikely in some of many levels: which contexts are alike is a matter of these."""
    step = len(levels) // _TELLING_LEVELS
    if step < 4:
        return carry
    sets = []
    for level in levels[::step]:
        rows, weight = measured.of_level(level)
        partial, noise = remaining[rows] / weight + start[level], measured.variances[rows] / weight**2
        sets.append(_by_context(partial, noise, measured.which[rows]))
    likely = likely_covariances(
        ((np.searchsorted(carry.measured, observed), effects, noise) for observed, effects, noise in sets),
        covariances=carry.covariances,
        scales=measured.scales,
        strata=measured.strata,
    )
    return replace(carry, covariances=likely)


def _by_context(
    partial: NDArray[np.floating], variances: NDArray[np.floating], which: NDArray[np.int64]
) -> tuple[NDArray[np.integer], NDArray[np.floating], NDArray[np.floating]]:
    """Average the groups of each context by precision: contexts (O,), effects and variances there (O, G)."""
    order = np.argsort(which, kind="stable")
    observed, firsts, counts = np.unique(which[order], return_index=True, return_counts=True)
    if len(observed) == len(which):  # a group per context
        return observed, partial[order], variances[order]
    effects, noise = np.empty((2, len(observed), partial.shape[1]))
    for i, (first, count) in enumerate(zip(firsts, counts, strict=True)):
        rows = order[first : first + count]
        precision = 1 / variances[rows].astype(np.float64)
        noise[i] = 1 / precision.sum(axis=0)
        effects[i] = noise[i] * (precision * partial[rows]).sum(axis=0)
    return observed, effects, noise


def _posterior(
    observed: NDArray[np.integer],
    effects: NDArray[np.floating],
    noise: NDArray[np.floating],
    carry: Carry,
    measured: Measurements,
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Posterior means and variances (O, G) of effects in the contexts where they were measured."""
    places = np.searchsorted(carry.measured, observed)
    mean, spread = posterior_effects(
        effects.T,
        noise.T,
        observed=places.tolist(),
        covariances=carry.covariances,
        scales=measured.scales,
        strata=measured.strata,
    )
    return mean.T, spread.T
