"""Uncertainty of the distributions that the additive hurdle prior predicts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from perturbflow.flow._angle import share_at

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from perturbflow.flow._hurdle_distribution import Context
    from perturbflow.flow._prior_arrays import PriorArrays

_FEWEST_EXPRESSING = 0.5  # pseudo-cells that express a gene
SIMILAR_CONTEXTS = 0.5  # squared distance, in units of the median, over which effects carry over
# Variance of the effect halfway between two doses: of a uniform distribution between the effects of both, in units of
# their squared difference, and in units of their mean square.
_BETWEEN_DOSES = 1 / 12
_OF_AN_EFFECT = 1 / 20


@dataclass(frozen=True)
class DistributionUncertainty:
    """Posterior standard deviations of the distribution of a condition.

    Where an effect is shrunken or carried, angle and mean are off in the same way; what is sampled of both is
    independent.
    """

    angle: NDArray[np.float32]  # of the angle of the share of cells that express a gene (G,)
    mean: NDArray[np.float32]  # of the mean of its expressed values (G,)
    correlation: NDArray[np.float32]  # of the errors of both (G,)


def distribution_uncertainty(
    prior: PriorArrays, perturbation: NDArray[np.floating], context: Context, expressed: NDArray[np.floating]
) -> DistributionUncertainty:
    """Standard deviations of a distribution with shares (G,): :meth:`AdditiveHurdlePrior.distribution_sd`."""
    asked = np.asarray(perturbation, dtype=np.float32)
    doses = prior.within(asked)
    active = doses.indices
    design = prior.levels.design(doses)
    total = np.zeros((2, prior.n_genes))
    between = prior.context_variances - prior.told_in(context)
    for j in active:
        elsewhere = share_of_context_variance(prior, int(j), context)
        own = prior.levels.of_component(int(j))
        weights = np.zeros(own.stop - own.start)
        is_own = (design.indices >= own.start) & (design.indices < own.stop)
        weights[design.indices[is_own] - own.start] = design.data[is_own]
        known = np.tensordot(weights, prior.effect_variances[:, own], axes=(0, 1))
        total += known + weights.sum() ** 2 * elsewhere * between
        total += _dose_variance(prior, own, weights, float(asked[j]), context)
    base = _sampling_variances(prior, context.n_controls, share_at(context.base_angle))
    if len(active) and context.index is not None:
        base = 1 / (1 / base + prior.base_precisions[:, context.index])
    same = -1
    if len(active) and context.index is not None:
        same = int(prior.groups.find(doses, np.array([context.index]))[0])
    if same >= 0:
        measured = _sampling_variances(prior, float(prior.group_cells[same]), expressed)
    if len(active) == 1 and same >= 0 and len(prior.groups.here(int(active[0]), context.index)) == 1:
        # The effect is known from these cells alone; as far as it is not shrunken, so is what it is added to.
        sampled = np.minimum(total / measured, 1)
        inferred = (1 - sampled) * total
        total += (1 - sampled) ** 2 * base
    else:
        inferred = total.copy()
        # In b + (e1 - b) + (e2 - b) an error of the base b counts once less than there are components.
        total += max((len(active) - 1) ** 2, 1) * base + max(len(active) - 1, 0) * prior.interaction_variances
        if same >= 0:  # from its own cells as well, and alone a component is no more additive than with others
            total += prior.interaction_variances if len(active) == 1 else 0
            sampled = total / (total + measured)
            total = sampled * measured
            inferred *= (1 - sampled) ** 2
    angle, mean = np.sqrt(total).astype(np.float32)
    correlation = prior.agreement * np.sqrt((inferred / total).prod(axis=0))
    return DistributionUncertainty(angle, mean, correlation.astype(np.float32))


def _dose_variance(
    prior: PriorArrays, own: slice, weights: NDArray[np.float64], asked: float, context: Context
) -> NDArray[np.float64]:
    """Variance (2, G) of the effect of a component at a dose that was not measured; 0 at those that were.

    Between two doses it is largest halfway; above the largest it grows with the dose as between the largest two.
    """
    effects = np.stack([prior.change(level, context) for level in range(own.start, own.stop)], axis=1)  # (2, levels, G)
    effects = np.concatenate([np.zeros_like(effects[:, :1]), effects], axis=1)
    weights = np.concatenate([[1 - weights.sum()], weights])
    upper = int(np.flatnonzero(weights)[-1])
    lower = max(upper - 1, 0)
    newness = 4 * weights[upper] * (1 - weights[upper])
    highest = prior.levels.doses[own][-1]
    if asked > highest:
        newness = 1 - highest / asked
    between = (effects[:, upper] - effects[:, lower]) ** 2
    size = (effects[:, upper] ** 2 + effects[:, lower] ** 2) / 2
    return newness * (_BETWEEN_DOSES * between + _OF_AN_EFFECT * size)


def share_of_context_variance(prior: PriorArrays, component: int, context: Context) -> float:
    """Return how much of the variance between contexts the effect of a component has here: 0 where it was seen.

    It grows with the distance to the nearest context where the component was seen; for a component that was seen
    nowhere, to the nearest with any perturbation, and is whole where several contexts had some, because what the
    others say of it is an average over contexts.
    """
    trained = bool(prior.trained[component])
    contexts = prior.group_contexts[prior.groups.with_component(component)] if trained else prior.groups.all_contexts
    if len(contexts) == 0 or (not trained and len(contexts) > 1):
        return 1.0
    return float(1 - np.exp(-context.distances[contexts].min() / SIMILAR_CONTEXTS))


def _sampling_variances(prior: PriorArrays, n_cells: float, expressed: NDArray[np.floating]) -> NDArray[np.float64]:
    """Sampling variance of angles and of means (2, G) in a group of cells."""
    means = prior.variance / (n_cells * expressed + _FEWEST_EXPRESSING)
    return np.stack([np.full_like(means, 1 / n_cells), means])
