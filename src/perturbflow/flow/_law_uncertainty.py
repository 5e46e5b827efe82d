"""How well the additive hurdle prior knows the law of a condition."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import expit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from perturbflow.flow._hurdle_law import Context
    from perturbflow.flow._prior import AdditiveHurdlePrior

_FEWEST_EXPRESSING = 0.5  # pseudo-cells that express a gene, and that do not
_SIMILAR_CONTEXTS = 0.5  # squared distance, in units of the median, over which effects carry over


@dataclass(frozen=True)
class LawUncertainty:
    """Posterior standard deviations of the law of a condition.

    Parameters
    ----------
    log_odds
        Of the log-odds that a gene is expressed (G,).
    mean
        Of the mean of its expressed values (G,).

    Examples
    --------
    >>> import numpy as np
    >>> import perturbflow as pf
    >>> rng = np.random.default_rng(0)
    >>> x = np.log1p(rng.poisson([3.0, 1.0], (200, 2)))
    >>> x[100:, 0] = 0  # the perturbation of the last 100 cells silences gene 0
    >>> cells = pf.flow.CellData(x, np.repeat([[0.0], [1.0]], 100, axis=0), np.zeros((200, 0), dtype=int))
    >>> prior = pf.flow.AdditiveHurdlePrior.fit(cells)
    >>> context = prior.context(np.zeros(0, dtype=int))
    >>> standard_error = np.sqrt(prior.variance / (100 * context.expressed))
    >>> (prior.law_sd(np.zeros(1), context).mean / standard_error).round(1).tolist()  # of 100 control cells
    [1.0, 1.0]
    """

    log_odds: NDArray[np.float32]
    mean: NDArray[np.float32]


def law_uncertainty(prior: AdditiveHurdlePrior, perturbation: NDArray[np.floating], context: Context) -> LawUncertainty:
    """Standard deviations of a law; see :meth:`AdditiveHurdlePrior.law_sd`."""
    perturbation = np.minimum(np.asarray(perturbation, dtype=np.float32), prior.dose_unit)
    relative = (perturbation / prior.dose_unit).astype(np.float64)
    active = np.flatnonzero(relative)
    total = np.zeros((2, prior.n_genes))
    for j in active:
        elsewhere = _share_of_context_variance(prior, int(j), context)
        total += relative[j] ** 2 * (prior.effect_variances[:, j] + elsewhere * prior.context_variances)
    if len(active) > 1:
        total += (len(active) - 1) * prior.interaction_variances
        same = (prior.group_contexts == context.index) & (prior.group_doses == perturbation).all(axis=1)
        if context.index is not None and same.any():
            law = prior.law(perturbation, context)
            measured = _sampling_variances(prior, float(prior.group_cells[same].sum()), law.expressed)
            total = total * measured / np.maximum(total + measured, 1e-12)
    # In b + (e1 - b) + (e2 - b) an error of the base b counts once less than there are components.
    share = max((1 - relative.sum()) ** 2, 1.0)
    total += share * _sampling_variances(prior, context.n_controls, expit(context.base_log_odds))
    log_odds, mean = np.sqrt(total).astype(np.float32)
    return LawUncertainty(log_odds, mean)


def _share_of_context_variance(prior: AdditiveHurdlePrior, component: int, context: Context) -> float:
    """How much of the variance between contexts the effect of a component has here: 0 where it was seen.

    It grows with the distance to the nearest context where the component was seen; for a component that was seen
    nowhere, to the nearest with any perturbation, and is whole where several contexts had some, because what the
    others say of it is an average over contexts.
    """
    trained = bool(prior.trained[component])
    telling = prior.group_doses[:, component] > 0 if trained else np.ones(len(prior.group_doses), dtype=bool)
    contexts = np.unique(prior.group_contexts[telling])
    if len(contexts) == 0 or (not trained and len(contexts) > 1):
        return 1.0
    return float(1 - np.exp(-context.distances[contexts].min() / _SIMILAR_CONTEXTS))


def _sampling_variances(
    prior: AdditiveHurdlePrior, n_cells: float, expressed: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Sampling variance of log-odds and of means (2, G) in a group of cells."""
    on, off = n_cells * expressed + _FEWEST_EXPRESSING, n_cells * (1 - expressed) + _FEWEST_EXPRESSING
    return np.stack([1 / on + 1 / off, prior.variance / on])
