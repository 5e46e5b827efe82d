"""Splitting effects of groups: into those of levels and what all have in common in a context, and how these vary."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.linalg import cho_factor, cho_solve

from perturbflow.flow._measurements import Measurements, members

_FEWEST_COMPONENTS = 200  # that are fitted, so that what is an average over components is known
_ROUNDS = 5  # in which contexts and levels are told apart
_SAME = 1e-9  # difference of weights
_LARGEST_LEVERAGE = 0.9  # beyond it a condition says nothing of its interaction
_PSEUDO_MEASUREMENTS = 4.0  # at the level that all genes have, added where a variance is estimated gene by gene
# Shares of the mean square of an effect, where no condition tells: of the interaction of two, and of what an effect
# in one context differs from that in others.
INTERACTION_SHARE = 0.1
CONTEXT_SHARE = 0.25
_GROUPS_AT_ONCE = 1000


class RidgeSplit:
    r"""The normal equations :math:`(D^T D + \lambda I) b = D^T y` of a design D (g, L), with a penalty above 0.

    Levels that occur together, or through other levels, form a block; most are alone in theirs. Costs O(sum of b^3) for
    blocks of b levels.
    """

    def __init__(self, design: sparse.csr_matrix, penalty: float) -> None:
        self.design, self.transposed = design, sparse.csr_matrix(design.T)
        gram = sparse.csr_matrix(self.transposed @ design)
        self._diagonal = gram.diagonal() + penalty
        n_blocks, self._block = sparse.csgraph.connected_components(gram, directed=False)
        order = np.argsort(self._block, kind="stable")
        members = np.split(order, np.cumsum(np.bincount(self._block, minlength=n_blocks))[:-1]) if n_blocks else []
        self._levels = {int(self._block[own[0]]): own for own in members if len(own) > 1}
        self._factors = {
            block: cho_factor(gram[own][:, own].toarray() + penalty * np.eye(len(own)), lower=True)
            for block, own in self._levels.items()
        }

    @property
    def is_alone(self) -> NDArray[np.bool_]:
        """Return whether a level was never together with another (L,)."""
        return np.bincount(self._block)[self._block] == 1

    def solve(self, effects: NDArray[np.float64]) -> NDArray[np.float64]:
        """Parts of levels (L, n) from the effects of groups (g, n)."""
        right = self.transposed @ effects
        parts = right / self._diagonal[:, None]
        for block, own in self._levels.items():
            parts[own] = cho_solve(self._factors[block], right[own])
        return parts

    def leverages(self) -> NDArray[np.float64]:
        """Return how far the effect of every group decides its own fit, the diagonal of ``D (D^T D + penalty)^-1 D^T`` (g,)."""
        precision = 1 / self._diagonal
        found = np.asarray(self.design.multiply(self.design) @ precision).ravel()
        first = self.design.indptr[:-1][np.diff(self.design.indptr) > 0]
        block = np.full(self.design.shape[0], -1)
        block[np.diff(self.design.indptr) > 0] = self._block[self.design.indices[first]]
        order = np.argsort(block, kind="stable")
        for number, own in self._levels.items():
            first, last = np.searchsorted(block[order], [number, number + 1])
            groups = order[first:last]
            weights = self.design[groups][:, own].toarray().T
            found[groups] = (weights * cho_solve(self._factors[number], weights)).sum(axis=0)
        return found


@dataclass(frozen=True, eq=False)
class Asked:
    """Groups (g,) and components (P,) that a fit is asked for: others that nothing else rests on are not estimated."""

    groups: NDArray[np.bool_]
    components: NDArray[np.bool_]

    def levels(self, measured: Measurements, split: RidgeSplit) -> NDArray[np.intp]:
        """Numbers of the levels to estimate: of components asked for or ever combined, and random others up to 200."""
        component = measured.levels[measured.seen]
        together = np.bincount(component[~split.is_alone], minlength=measured.n_components) > 0
        wanted = measured.trained & (self.components | together)
        rest = np.flatnonzero(measured.trained & ~wanted)
        n_more = max(_FEWEST_COMPONENTS - int(wanted.sum()), 0)
        if len(rest) > n_more:
            rest = np.random.default_rng(0).choice(rest, n_more, replace=False)
        wanted[rest] = True
        return measured.seen[wanted[component]]


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
    n_contexts = len(observed)
    sums = members(place, n_contexts)
    counts = np.bincount(place)
    means, spreads = np.empty((2, n_contexts, effects.shape[1]))
    levels_of = sparse.csr_matrix(sums @ measured.design)
    first = sparse.csr_matrix(np.ones((n_contexts, 1))) @ levels_of[0]
    is_same = abs(levels_of - first).max() < _SAME  # all contexts have the same levels as often
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


def interaction_variances(
    measured: Measurements,
    remaining: NDArray[np.float32],
    leverages: NDArray[np.float64],
    scale: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Variance of the interaction of a pair (G,), from what remains in combinations (g, G).

    The fit leaves ``1 - leverage`` of a variance; a combination of k components has k - 1 times that of a pair.
    """
    n_active = measured.n_active
    telling = np.flatnonzero((n_active > 1) & (leverages < _LARGEST_LEVERAGE))
    squares = (
        (np.square(remaining[rows], dtype=np.float64) / (1 - leverages[rows, None]) - measured.variances[rows])
        / (n_active[rows, None] - 1)
        for rows in np.array_split(telling, max(1, len(telling) // _GROUPS_AT_ONCE))
    )
    return _gene_variances(squares, scale, share=INTERACTION_SHARE)


def context_variances(measured: Measurements, scale: NDArray[np.float64]) -> NDArray[np.float64]:
    """Variance of an effect between contexts (G,), from perturbations that were measured in several."""
    design, which = measured.design, measured.which
    rows_of: dict[tuple[bytes, bytes], list[int]] = {}
    for row, (first, last) in enumerate(zip(design.indptr[:-1], design.indptr[1:], strict=True)):
        name = design.indices[first:last].tobytes(), design.data[first:last].tobytes()
        rows_of.setdefault(name, []).append(row)
    effects, variances = measured.per_unit()
    squares = (
        (effects[rows].var(axis=0, ddof=1, dtype=np.float64) - variances[rows].mean(axis=0, dtype=np.float64))[None]
        for rows in rows_of.values()
        if len(np.unique(which[rows])) > 1
    )
    return _gene_variances(squares, scale, share=CONTEXT_SHARE)


def _gene_variances(
    squares: Iterable[NDArray[np.float64]], scale: NDArray[np.float64], *, share: float
) -> NDArray[np.float64]:
    """Variance of every gene (G,) from noisy estimates (n, G), steadied by a common proportion to ``scale`` (G,).

    Where there are no estimates the proportion is ``share``.
    """
    n, total = 0, np.zeros(len(scale))
    for part in squares:
        n += len(part)
        total += part.sum(axis=0)
    if n == 0 or not scale.any():
        return share * scale
    common = max(float(total.mean()) / n, 0.0) / float(scale.mean()) * scale
    return np.maximum((total + _PSEUDO_MEASUREMENTS * common) / (n + _PSEUDO_MEASUREMENTS), 0)
