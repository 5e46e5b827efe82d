"""How often a prediction is closest to the condition that it is meant for: ranks among all conditions."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import cdist

from perturbflow._checks import check_one_of
from perturbflow.metrics._cells import RELATIVE_ZERO
from perturbflow.metrics._families import of_profiles
from perturbflow.metrics._profiles import check_profiles
from perturbflow.screen._named_arrays import real_numbers, same_on_both_sides


def normalised_rank(scores: ArrayLike, *, higher_is_better: bool) -> NDArray[np.float64]:
    """Rank of every prediction at its own reference among all predictions.

    ::

        rank_j = ( #{i != j: score_ij better than score_jj} + 1/2 #{i != j: score_ij = score_jj} ) / (n - 1)

    *Direction*: lower is better. *Range*: 0 (the own prediction is the closest) to 1; 0.5 for a prediction that does
    not tell conditions apart, by chance or because all are equal (ties take the middle rank; PerturBench, whose rank
    this is otherwise, breaks them at random). Compare conditions of one context only: across contexts the cell type
    alone decides.

    *Weakness*: that of :func:`discrimination_score`.

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


Distance = Literal["l1", "l2", "cosine"]
Convention = Literal["cell_eval", "cell_eval2"]

BLOCK_BYTES = 64 * 2**20
TIE = 1e-12  # well above the rounding of a sum over 20,000 genes


@of_profiles
def discrimination_score(
    predicted: ArrayLike,
    observed: ArrayLike,
    *,
    distance: Distance = "l1",
    convention: Convention = "cell_eval2",
    targets: ArrayLike | None = None,
) -> NDArray[np.float64]:
    """Perturbation discrimination score: how few other conditions are closer to a prediction than its own.

    With ``d_ij`` the distance of the predicted effect i from the observed effect j::

        score_i = 1 - rank_i / n
        rank_i  = #{j: d_ij < d_ii} + (ties)

    ================  =========  =================================  ============================================
    ``convention``    ``n``      equally close conditions           target genes are left out
    ================  =========  =================================  ============================================
    ``"cell_eval2"``  ``P - 1``  count one half each                those of all conditions, from every effect
    ``"cell_eval"``   ``P``      count where they stand before i    those of condition i, in row i
    ================  =========  =================================  ============================================

    *Direction*: higher is better. *Range*: 0 to 1 (``1 / P`` to 1 for ``"cell_eval"``); 0.5 (``(P + 1) / (2 P)``) on
    average for a prediction that does not tell conditions apart; NaN for P = 1 under ``"cell_eval2"``. Compare
    conditions of one context only: across contexts the cell type alone decides.

    *Weakness*: tells whether predictions are specific, not whether they are good, and depends on which other
    conditions are in the panel. With ``"l1"`` and ``"l2"`` predictions that are all too small can be closest to the
    weakest condition. Under ``"cell_eval"`` the score can be raised without any knowledge: a prediction that changes
    the target genes of the *other* conditions is repelled by them, and a prediction without effect under the cosine
    distance scores by its place in the panel.

    Parameters
    ----------
    predicted
        Predicted effects of all conditions of one context, shape (P, G): mean expression minus that of the controls.
        For ``"l1"`` and ``"l2"`` mean expression does as well, if the same controls serve both sides.
    distance
        Sum of absolute differences, Euclidean distance, or one minus the cosine (1 for an effect of no length).
    convention
        Whose rules: see above. The order of conditions matters for ``"cell_eval"`` if there are ties.
    targets
        Which genes the perturbation of a condition acts on itself, shape (P, G), boolean. Their change is known
        without a model.

    Notes
    -----
    Distances that differ by no more than rounding are ties (for ``"l2"``, conditions that differ by a millionth of
    their length), and effects of less than a billionth of the largest observed one have no direction. Time is
    O(P^2 G), by matrix products but for ``"l1"``; memory grows with P G.

    References
    ----------
    Roohani et al. (2025), Virtual Cell Challenge: toward a Turing test for the virtual cell. *Cell* 188, 3370-3374
    (``"cell_eval"``); the Virtual Cell Challenge of 2026 (``"cell_eval2"``).

    Examples
    --------
    >>> observed = np.array([[1.0, 0.0], [0.0, 1.0], [2.0, 2.0]])
    >>> discrimination_score(np.array([[0.9, 0.0], [1.0, 0.1], [1.0, 1.0]]), observed)
    array([1. , 0.5, 0. ])
    """
    check_one_of(distance, get_args(Distance), name="distance")
    check_one_of(convention, get_args(Convention), name="convention")
    x, y = check_profiles(predicted=predicted, observed=observed)
    kept = _kept_genes(targets, y.shape)
    if convention == "cell_eval2":
        everywhere = kept.all(axis=0)
        x, y, kept = x[:, everywhere], y[:, everywhere], kept[:, everywhere]
    if not kept.any(axis=1).all():
        msg = (
            f"Expected genes that are not targets, found none for condition {np.argmin(kept.any(axis=1))}. "
            "Score more genes, or omit `targets`."
        )
        raise ValueError(msg)
    n_conditions, n_genes = y.shape
    if convention == "cell_eval2" and n_conditions == 1:
        return np.full(1, np.nan)
    if distance != "cosine":  # distances do not change, and lose fewer digits
        centre = y.mean(axis=0)
        x, y = x - centre, y - centre
    block = max(1, BLOCK_BYTES // (8 * max(n_conditions, n_genes)))
    scores = np.empty(n_conditions)
    for start in range(0, n_conditions, block):
        own = np.arange(start, min(start + block, n_conditions))
        distances, sizes = _distances(x[own], y, kept[own], distance)
        distance_own, size_own = (values[np.arange(len(own)), own][:, None] for values in (distances, sizes))
        tied = np.abs(distances - distance_own) <= TIE * np.maximum(sizes, size_own)
        closer = ((distances < distance_own) & ~tied).sum(axis=1)
        if convention == "cell_eval":
            before = (tied & (np.arange(n_conditions) < own[:, None])).sum(axis=1)
            scores[own] = 1.0 - (closer + before) / n_conditions
        else:
            scores[own] = 1.0 - (closer + (tied.sum(axis=1) - 1) / 2) / (n_conditions - 1)
    return scores


@of_profiles
def centroid_accuracy(predicted: ArrayLike, observed: ArrayLike) -> NDArray[np.float64]:
    """Share of the other conditions whose observed mean is farther from a prediction than its own.

    ::

        share over j != i of |predicted_i - observed_i| < |predicted_i - observed_j|

    with Euclidean distances; an equally far condition counts one half (in the sources, nothing). Systema's centroid
    accuracy, which is the normalised inverse rank of Miller et al., and :func:`discrimination_score` with
    ``distance="l2"`` and all genes.

    *Direction*: higher is better. *Range*: 0 to 1; 0.5 on average for a prediction that does not tell conditions
    apart. NaN for a single condition. Compare conditions of one context only.

    *Weakness*: that of :func:`discrimination_score`; the change of the target gene itself, which is known without a
    model, can suffice.

    References
    ----------
    Viñas Torné et al. (2025), Systema, *Nat. Biotechnol.*; Miller et al. (2025), bioRxiv 10.1101/2025.10.20.683304.

    Examples
    --------
    >>> observed = np.array([[1.0, 0.0], [0.0, 1.0], [2.0, 2.0]])
    >>> centroid_accuracy(observed, observed)
    array([1., 1., 1.])
    >>> centroid_accuracy(np.zeros((3, 2)), observed)
    array([0.75, 0.75, 0.  ])
    """
    return discrimination_score(predicted, observed, distance="l2", convention="cell_eval2")


def _kept_genes(targets: ArrayLike | None, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    if targets is None:
        return np.ones(shape, dtype=bool)
    found = np.asarray(targets)
    if found.shape != shape or found.dtype != bool:
        msg = (
            f"Expected `targets` to be boolean of shape {shape}, found {found.dtype} of shape {found.shape}. "
            "Mark the target genes of every condition."
        )
        raise ValueError(msg)
    return ~found


def _distances(
    predicted: NDArray[np.float64], observed: NDArray[np.float64], kept: NDArray[np.bool_], distance: Distance
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Distances (B, P) of some predictions (B, G) from all conditions (squared for l2), and what they round with."""
    if distance == "l1":
        sizes = np.add.outer(np.abs(predicted).sum(axis=1), np.abs(observed).sum(axis=1))
        distances = cdist(predicted, observed, "cityblock")
        for row in np.flatnonzero(~kept.all(axis=1)):
            left_out = ~kept[row]
            distances[row] -= np.abs(predicted[row, left_out] - observed[:, left_out]).sum(axis=1)
        return distances, sizes
    # Sums over the genes that are kept come from products with zeros, not from differences, which would lose digits.
    predicted = np.where(kept, predicted, 0.0)
    products = predicted @ observed.T
    squares_predicted = np.einsum("bg,bg->b", predicted, predicted)[:, None]
    squares_observed = kept @ np.square(observed).T
    if distance == "l2":
        sizes = squares_predicted + squares_observed
        return sizes - 2.0 * products, sizes
    nothing = RELATIVE_ZERO**2 * squares_observed.max()
    directed = (squares_predicted > nothing) & (squares_observed > nothing)
    lengths = np.sqrt(squares_predicted) * np.sqrt(squares_observed)
    cosines = np.divide(products, lengths, out=np.zeros_like(products), where=directed)
    return 1.0 - cosines, np.ones_like(cosines)
