"""Rank of a prediction among the predictions of other conditions."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from perturbflow.screen._named_arrays import real_numbers, same_on_both_sides


def normalised_rank(scores: ArrayLike, *, higher_is_better: bool) -> NDArray[np.float64]:
    """Rank of every prediction at its own reference among all predictions.

    ::

        rank_j = ( #{i != j: score_ij better than score_jj} + 1/2 #{i != j: score_ij = score_jj} ) / (n - 1)

    *Direction*: lower is better. *Range*: 0 (the own prediction is the closest) to 1; 0.5 for a prediction that does
    not tell conditions apart, by chance or because all are equal (ties take the middle rank; PerturBench, whose rank
    this is otherwise, breaks them at random). Compare conditions of one context only: across contexts the cell type
    alone decides.

    *Weakness*: tells whether predictions are specific, not whether they are good; depends on which other conditions
    are in the set.

    Parameters
    ----------
    scores
        Scores (n, n) of any metric: row i is the prediction for condition i, column j the reference of condition j.
    higher_is_better
        Whether large scores are good (a similarity) or bad (a distance).

    Returns
    -------
    The rank (n,) of every condition. NaN where the column has a NaN, and for n = 1: one prediction has no rank.

    Raises
    ------
    ValueError
        If the scores are not a square matrix.

    Examples
    --------
    >>> import numpy as np
    >>> normalised_rank(np.array([[1.0, 5.0, 2.0], [3.0, 4.0, 2.0], [2.0, 6.0, 2.0]]), higher_is_better=False)
    array([0. , 0. , 0.5])
    """
    matrix = real_numbers(same_on_both_sides(scores, name="scores", what="conditions"), name="scores")
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.size == 0:
        msg = f"Expected `scores` to have shape (conditions, conditions), found {matrix.shape}."
        raise ValueError(msg)
    n_conditions = len(matrix)
    if n_conditions == 1:
        return np.full(1, np.nan)
    own = np.diagonal(matrix)
    better = (matrix > own if higher_is_better else matrix < own).sum(axis=0)
    tied = (matrix == own).sum(axis=0) - 1
    ranks = (better + 0.5 * tied) / (n_conditions - 1)
    return np.where(np.isnan(matrix).any(axis=0), np.nan, ranks)
