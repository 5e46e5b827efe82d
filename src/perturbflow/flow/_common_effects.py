"""Effects that the perturbations of a context have in common, whichever of them were measured there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from perturbflow.flow._measurements import Measurements
    from perturbflow.flow._ridge_split import RidgeSplit

_ROUNDS = 5  # in which contexts and levels are told apart
_SAME = 1e-9  # difference of weights


def common_effects(
    measured: Measurements, split: RidgeSplit
) -> tuple[NDArray[np.integer], NDArray[np.float64], NDArray[np.float64]]:
    """Mean effect of the groups of every context, with its variance: contexts (O,), means and variances (O, G).

    Groups differ truly: their scatter counts as noise, and contexts with a single group take that of the others. Which
    levels a context has is luck: the weighted mean of the effects of its levels in an average context, less that over
    all groups, is taken from its mean.
    """
    effects, variances = measured.per_unit()
    observed, place = np.unique(measured.which, return_inverse=True)
    n_groups, n_contexts = len(place), len(observed)
    sums = sparse.csr_matrix((np.ones(n_groups), (place, np.arange(n_groups))), shape=(n_contexts, n_groups))
    counts = np.bincount(place)
    means, spreads = np.empty((2, n_contexts, effects.shape[1]))
    is_same = _have_the_same(measured, sums)
    for genes in measured.gene_blocks():
        own, noise = effects[:, genes].astype(np.float64), variances[:, genes].astype(np.float64)
        weights = 1 / (noise + _scatter(own, noise, sums, counts)[place])
        total = sums @ weights
        mean = (sums @ (weights * own)) / total
        if not is_same:
            levels = _of_levels(measured, split, own, sums, counts, place)
            mean -= (sums @ (weights * levels)) / total - (weights * levels).sum(axis=0) / weights.sum(axis=0)
        means[:, genes], spreads[:, genes] = mean, 1 / total
    return observed, means, spreads


def _scatter(
    effects: NDArray[np.float64], noise: NDArray[np.float64], sums: sparse.csr_matrix, counts: NDArray[np.intp]
) -> NDArray[np.float64]:
    """Variance of true effects (O, G) between the groups of each context; where there is one group, that of the others."""
    several = counts > 1
    found = np.zeros((len(counts), effects.shape[1]))
    if several.any():
        n = counts[several, None]
        own = sums[several]
        total = own @ np.square(effects) - np.square(own @ effects) / n
        found[several] = np.maximum(total / (n - 1) - (own @ noise) / n, 0)
        found[~several] = (found[several] * (n - 1)).sum(axis=0) / (n - 1).sum()
    elif len(counts) > 1:
        found[:] = np.maximum(effects.var(axis=0, ddof=1) - noise.mean(axis=0), 0)
    return found


def _have_the_same(measured: Measurements, sums: sparse.csr_matrix) -> bool:
    """Return whether all contexts have the same levels as often."""
    found = sparse.csr_matrix(sums @ measured.design)
    first = sparse.csr_matrix(np.ones((found.shape[0], 1))) @ found[0]
    return abs(found - first).max() < _SAME


def _of_levels(
    measured: Measurements,
    split: RidgeSplit,
    effects: NDArray[np.float64],
    sums: sparse.csr_matrix,
    counts: NDArray[np.intp],
    place: NDArray[np.intp],
) -> NDArray[np.float64]:
    """Effects of the groups' levels in an average context (g, G'), told from what the contexts are, in a few rounds."""
    amount = measured.amount[:, None]
    of_contexts = np.zeros((len(counts), effects.shape[1]))
    for _ in range(_ROUNDS):
        levels = split.design @ split.solve((effects - of_contexts[place]) * amount) / amount
        of_contexts = (sums @ (effects - levels)) / counts[:, None]
        of_contexts -= of_contexts.mean(axis=0)
    return levels
