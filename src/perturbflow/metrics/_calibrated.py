"""Errors and correlations that do not reward the average response: weighted by what is specific to a condition.

Profiles are arrays (P, G) of the conditions of one context: the mean expression of predicted or of observed cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
from numpy.typing import ArrayLike, NDArray

from perturbflow._checks import check_whole_number
from perturbflow.metrics._cells import RELATIVE_ZERO, check_same_genes
from perturbflow.metrics._families import of_profiles
from perturbflow.metrics._moments import CellsOrMoments, Moments, moments_of
from perturbflow.metrics._profiles import check_profiles, correlation_of_changes, per_gene
from perturbflow.screen._named_arrays import aligned


def differential_weights(conditions: Sequence[CellsOrMoments]) -> NDArray[np.float64]:
    """Weights of genes by how much a condition differs from all other perturbed cells.

    ::

        t_g = (mean_g - mean of the others_g) / sqrt(var_g + var of the others_g)
        w_g = ((|t_g| - min |t|) / (max |t| - min |t|))^2

    Up to a factor that is the same for all genes and cancels, the t-score is scanpy's ``t-test_overestim_var`` against
    the rest. What all perturbations have in common carries no weight.

    Parameters
    ----------
    conditions
        Observed cells of every perturbed condition, or their moments; no controls, and not the cells that a positive
        control is made of.

    Returns
    -------
    Weights between 0 and 1, shape (P, G). A gene without variance has no score and the weight of the lowest; where all
    genes have one score all weights are 0.

    Raises
    ------
    ValueError
        If there are fewer than two conditions, or one has fewer than two cells, or genes disagree.

    References
    ----------
    Mejia et al. (2025), Diversity by design: addressing mode collapse improves scRNA-seq perturbation modeling on
    well-calibrated metrics, arXiv 2506.22641; Miller et al. (2025), bioRxiv 10.1101/2025.10.20.683304.

    Examples
    --------
    >>> cells = np.array([[0.0, 1.0, 2.0], [1.0, 2.0, 3.0]])
    >>> differential_weights([cells, cells + [0.0, 1.0, 2.0]])
    array([[0.  , 0.25, 1.  ],
           [0.  , 0.25, 1.  ]])
    """
    named = {f"conditions[{i}]": cells for i, cells in enumerate(conditions)}
    groups = [moments_of(cells, name=name) for name, cells in zip(named, aligned("genes", **named), strict=True)]
    if len(groups) < 2:
        msg = f"Expected at least 2 conditions, found {len(groups)}: each is compared with all others."
        raise ValueError(msg)
    check_same_genes(**dict(zip(named, groups, strict=True)))
    others = _others(groups)
    means, other_means = (np.stack([one.mean for one in side]) for side in (groups, others))
    variances, other_variances = (np.stack([one.variance for one in side]) for side in (groups, others))
    deviations = np.sqrt(variances + other_variances)
    varies = deviations > RELATIVE_ZERO * np.maximum(np.abs(means), np.abs(other_means))
    scores = np.divide(np.abs(means - other_means), deviations, out=np.zeros_like(means), where=varies)
    scores -= scores.min(axis=1, keepdims=True)
    largest = scores.max(axis=1, keepdims=True)
    return np.square(np.divide(scores, largest, out=np.zeros_like(scores), where=largest > 0))


@of_profiles
def weighted_mse(predicted: ArrayLike, observed: ArrayLike, weights: ArrayLike) -> NDArray[np.float64]:
    """Mean squared error over genes, weighted.

    ``sum_g w_g (predicted_g - observed_g)^2 / sum_g w_g``; with :func:`differential_weights` the WMSE of
    Mejia et al. (2025, arXiv 2506.22641).

    *Direction*: lower is better. *Range*: 0 to infinity, in squared units of expression. NaN where all weights are 0.

    *Weakness*: the weights come from the observed cells, so with few cells they pick genes by their noise and a perfect
    prediction is charged for it; the fewer genes carry weight, the more so.

    Examples
    --------
    >>> weighted_mse([[1.0, 5.0]], [[0.0, 3.0]], [3.0, 1.0])
    array([1.75])
    """
    x, y = check_profiles(predicted=predicted, observed=observed)
    return _weighted_mean(np.square(x - y), _weights(weights, y))


@of_profiles
def weighted_r2(
    predicted: ArrayLike, observed: ArrayLike, weights: ArrayLike, reference: ArrayLike
) -> NDArray[np.float64]:
    """Share of the weighted variance over genes of the observed change that the predicted change explains.

    ::

        R2_w = 1 - sum_g w_g (D_g - Dhat_g)^2 / sum_g w_g (D_g - mean_w(D))^2

    with ``D = observed - reference``, ``Dhat = predicted - reference`` and ``mean_w(D)`` the weighted mean over genes.
    With :func:`differential_weights` and the mean of all perturbed cells as the reference, the R2_w of Mejia et al. (2025);
    with equal weights the coefficient of determination.

    *Direction*: higher is better. *Range*: minus infinity to 1; predicting the reference scores at or below 0. NaN
    where all weights are 0 or the observed change is equal in all genes that have weight.

    *Weakness*: that of :func:`weighted_mse`. Unbounded below, so do not average it over conditions without a look at
    the smallest; changes that are equal in all genes leave nothing to explain.

    Examples
    --------
    >>> weighted_r2([[1.0, 2.0, 2.0]], [[1.0, 2.0, 3.0]], [1.0, 1.0, 1.0], [0.0, 0.0, 0.0])
    array([0.5])
    """
    x, y = check_profiles(predicted=predicted, observed=observed)
    gene_weights, base = _weights(weights, y), per_gene(reference, y, name="reference")
    change = y - base
    centre = _weighted_mean(change, gene_weights)[:, None]
    variance = _weighted_mean(np.square(change - centre), gene_weights)
    rounding = RELATIVE_ZERO**2 * _weighted_mean(np.square(change) + np.square(base), gene_weights)
    error = _weighted_mean(np.square(x - y), gene_weights)
    defined = variance > rounding
    return np.where(defined, 1.0 - error / np.where(defined, variance, 1.0), np.nan)


@of_profiles
def pearson_against_reference(
    predicted: ArrayLike,
    observed: ArrayLike,
    reference: ArrayLike,
    *,
    n_top: int | None = None,
    scores: ArrayLike | None = None,
) -> NDArray[np.float64]:
    """Pearson correlation over genes of the predicted and the observed change from a reference other than the controls.

    ``corr(predicted - reference, observed - reference)``. With the mean of the perturbation centroids of the training
    data as the reference, Systema's perturbed-reference correlation: what all perturbations have in common (stress,
    cell cycle, batch) is taken away.

    *Direction*: higher is better. *Range*: -1 to 1. Predicting the reference scores 0, as it orders no genes (Systema
    leaves it undefined). NaN where the observed change is equal in all genes.

    *Weakness*: blind to the size of the effect. Errors in the reference enter both changes and make unrelated
    predictions look alike; for a condition close to the reference the observed change is noise. Over the top genes
    alone, which are picked by the observed cells, even a wrong prediction with the right signs scores well.

    Parameters
    ----------
    n_top
        Number of genes that count in every condition (Systema: 20); all by default.
    scores
        How differential genes are, with either sign, shape (P, G); by default the observed change from the reference.

    References
    ----------
    Viñas Torné et al. (2025), Systema, *Nat. Biotechnol.*

    Examples
    --------
    >>> reference = np.array([1.0, 1.0, 1.0])
    >>> pearson_against_reference([[3.0, 1.0, 2.0], [1.0, 1.0, 1.0]], [[5.0, 1.0, 3.0], [0.0, 1.0, 2.0]], reference)
    array([1., 0.])
    """
    x, y = check_profiles(predicted=predicted, observed=observed)
    base = per_gene(reference, y, name="reference")
    if n_top is None:
        return correlation_of_changes(x, y, base)
    check_whole_number(n_top, name="n_top", least=2)
    ranking = np.abs(y - base if scores is None else per_gene(scores, y, name="scores"))
    top = np.argsort(-ranking, axis=1, kind="stable")[:, :n_top]
    return correlation_of_changes(*(np.take_along_axis(profiles, top, axis=1) for profiles in (x, y, base)))


def _others(groups: Sequence[Moments]) -> list[Moments]:
    """Moments of all cells but those of one condition, for every condition: those before it and those after it."""
    before = list(accumulate(groups[:-1], Moments.pooled))
    after = list(accumulate(groups[:0:-1], Moments.pooled))[::-1]
    middle = [Moments.pooled(*sides) for sides in zip(before[:-1], after[1:], strict=True)]
    return [after[0], *middle, before[-1]]


def _weights(weights: ArrayLike, like: NDArray[np.float64]) -> NDArray[np.float64]:
    found = per_gene(weights, like, name="weights")
    if (found < 0).any():
        msg = f"Expected `weights` of at least 0, found {found.min():.3g}."
        raise ValueError(msg)
    return found


def _weighted_mean(values: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    total = weights.sum(axis=1)
    weighed = np.einsum("pg,pg->p", values, weights)
    return np.divide(weighed, total, out=np.full(len(total), np.nan), where=total > 0)
