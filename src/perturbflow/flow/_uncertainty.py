"""Distance of a prediction from training, and uncertainty of its distributions and means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from perturbflow.flow._hurdle_distribution import Context, share_at, share_error
from perturbflow.flow._prior_arrays import PriorArrays

if TYPE_CHECKING:
    from perturbflow.flow._prior import AdditiveHurdlePrior

_FEWEST_EXPRESSING = 0.5  # pseudo-cells that express a gene
SIMILAR_CONTEXTS = 0.5  # squared distance, in units of the median, over which effects carry over
# Variance of the effect halfway between two doses: of a uniform distribution between the effects of both, in units of
# their squared difference, and in units of their mean square.
_BETWEEN_DOSES = 1 / 12
_OF_AN_EFFECT = 1 / 20
KINDS = ("seen", "new dose", "combination", "new context", "unseen")  # in the order of how much has to be inferred


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


def condition_kind(prior: AdditiveHurdlePrior, perturbation: NDArray[np.floating], context: Context) -> str:
    """Training data that a prediction rests on.

    "unseen" if a component has no training cells; "new context" if one, or the context, has none here; "seen" for
    training conditions and controls of training contexts; "new dose" for components that were there, alone or together,
    at other doses; else "combination": known components together as they have not been.
    """
    asked = sparse.csr_matrix(np.asarray(perturbation, dtype=np.float32)[None])
    components = asked.indices
    if not prior.trained[components].all():
        return "unseen"
    groups, index = prior.groups, context.index
    if index is None or not all(len(groups.here(int(j), index)) for j in components):
        return "new context"
    if not len(components) or groups.find(asked, np.array([index]))[0] >= 0:
        return "seen"
    return "new dose" if groups.has_components(components, index) else "combination"


def mean_expression(
    prior: AdditiveHurdlePrior, perturbation: NDArray[np.floating], context: Context
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    r"""Mean expression of every gene in a condition, with the standard deviation that the prior states.

    The mean is ``p m``, with the share p of cells that express the gene and the mean m of the expressed values. Its
    variance is :math:`(m\, \sigma_p)^2 + (p\, \sigma_m)^2 + 2 \rho\, m\, \sigma_p\, p\, \sigma_m`, the error of p
    following from that of its angle (:func:`share_error`), with the correlation :math:`\rho` of both errors.

    Parameters
    ----------
    prior
        The fitted prior.
    perturbation, context
        Dose of every component (P,), and where it is applied.

    Returns
    -------
    Means and standard deviations (G,).

    Examples
    --------
    >>> import perturbflow as pf
    >>> rng = np.random.default_rng(0)
    >>> x = np.log1p(rng.poisson([3.0, 1.0], (200, 2)))
    >>> x[100:, 0] = 0  # the perturbation of the last 100 cells silences gene 0
    >>> cells = pf.flow.CellData(x, np.repeat([[0.0], [1.0]], 100, axis=0), np.zeros((200, 0), dtype=int))
    >>> prior = pf.flow.AdditiveHurdlePrior.fit(cells)
    >>> context = prior.context(np.zeros(0, dtype=int))
    >>> mean, sd = pf.flow.mean_expression(prior, np.ones(1), context)
    >>> bool((abs(mean - x[100:].mean(axis=0)) < 2 * sd).all())
    True
    """
    distribution = prior.distribution(perturbation, context)
    sd = distribution_uncertainty(prior, perturbation, context, distribution.expressed)
    expressed, mean = distribution.expressed.astype(np.float64), distribution.mean.astype(np.float64)
    of_share, of_mean = mean * share_error(expressed, sd.angle), expressed * sd.mean
    variance = of_share**2 + of_mean**2 + 2 * sd.correlation * of_share * of_mean
    return expressed * mean, np.sqrt(np.maximum(variance, 0))
