"""Factors of contexts as far as their controls tell them: what perturbations do where none was measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from perturbflow.flow._carry import Carry, Way, mean_weights
from perturbflow.flow._context_interactions import quadratic
from perturbflow.flow._interaction_factors import EffectTable

FEWEST_CONTEXTS = 5  # of which both controls and factors are known
_PENALTY = 0.1  # of the mean variance between contexts
_LARGEST_SLOPE = 2.0
_LARGEST_READ = 0.9  # of the variance between contexts
_LEAST = 1e-9


class ControlFactors(NamedTuple):
    r"""Difference of effects in a context from those carried there, as far as its controls tell.

    With factors :math:`b` of the contexts where perturbations were measured, those of another one follow from its controls
    by ridge regression, :math:`\hat b = \bar b + s\, k^T (K + \lambda)^{-1} b`, where K and k are products of centred mean
    expression. To an effect that is carried :math:`\sum_k a_k (\hat b_k - b^*_k) l_k` is added, where :math:`b^*` are the
    factors of the contexts that it was carried from, as these count.
    """

    level_factors: NDArray[np.float64]  # factors a of every level (L, K)
    context_factors: NDArray[np.float64]  # factors b of every context (C, K), 0 where they are not known
    gene_factors: NDArray[np.float64]  # factors l (K, G), times how surely controls tell
    slope: NDArray[np.float64]  # s (1,), learned by leaving contexts out; 0 where controls tell nothing
    read_variances: NDArray[np.float64]  # how much of the variance of effects between contexts is told (G,)

    @classmethod
    def nothing(cls, n_levels: int, n_contexts: int, n_factors: int, n_genes: int) -> ControlFactors:
        """Factors of which controls tell nothing."""
        shapes = (n_levels, n_factors), (n_contexts, n_factors), (n_factors, n_genes), (1,), (n_genes,)
        return cls(*(np.zeros(shape) for shape in shapes))

    @property
    def is_read(self) -> bool:
        """Return whether controls tell something."""
        return bool(self.slope[0] > 0)

    def place(self, among: NDArray[np.float64], distances: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the factors of a context that its controls tell (K,).

        Squared distances between the controls of all contexts are ``among`` (C, C), those of the context to them (C,).
        """
        known = np.flatnonzero(self.context_factors.any(axis=1))
        factors = self.context_factors[known].astype(np.float64)
        weights = _ridge_weights(among[np.ix_(known, known)], distances[known])
        return factors.mean(axis=0) + self.slope[0] * (weights @ factors)

    def added(
        self,
        level: int,
        place: NDArray[np.float64],
        observed: NDArray[np.integer],
        distances: NDArray[np.float64],
        ways: Sequence[Way],
    ) -> NDArray[np.float64]:
        """Return what is added to the effect of a level (G,) that is carried in some ways from the contexts observed (O,).

        ``place`` are the factors of the context, from :meth:`place`, and distances are to the contexts observed.
        """
        usual = mean_weights(distances, ways) @ self.context_factors[observed]
        return (self.level_factors[level] * (place - usual)) @ self.gene_factors


def read_controls(
    table: EffectTable | None,
    effects: NDArray[np.float32],
    carry: Carry,
    variances: NDArray[np.float64],
) -> ControlFactors:
    """Learn how factors of contexts follow from controls, and add to effects (L, C, G), in place, where they were not measured.

    It is done as far as in contexts that are left out the factors are told better by controls than by the contexts that
    effects are carried from: with the mean fall of the logarithm of the squared error over contexts, :math:`t` of its
    standard errors, what is added counts :math:`1 - 1 / t^2`, and nothing where t is below 1.
    """
    n_levels, n_contexts, n_genes = effects.shape
    if table is None:
        return ControlFactors.nothing(n_levels, n_contexts, 0, n_genes)
    known = np.flatnonzero(table.single.is_known)
    nothing = ControlFactors.nothing(n_levels, n_contexts, table.factors.contexts.shape[1], n_genes)
    if len(known) < FEWEST_CONTEXTS:
        return nothing
    learned = _learn(table.factors.contexts[known], carry.distances[np.ix_(known, known)], carry.ways)
    if learned is None:
        return nothing
    factors, of_levels, rows = table.known()
    genes = table.genes(factors)
    found = nothing._replace(gene_factors=learned.weight * genes, slope=np.array([learned.slope]))
    found.level_factors[table.single.levels] = of_levels.factors
    found.context_factors[known] = factors.contexts[known]
    number = np.diff(rows.by_perturbation.indptr)
    fitted = of_levels.factors[rows.which] * of_levels.apart
    spread = quadratic(fitted.T @ fitted / (number[number > 1] - 1).sum(), genes)
    found.read_variances[:] = np.clip(learned.told * spread, 0, _LARGEST_READ * variances)
    for context in np.setdiff1d(np.arange(n_contexts), known):
        place = found.place(carry.distances, carry.distances[context])
        for number, level in enumerate(table.single.levels):
            if not table.single.is_measured[number, context]:
                observed = np.flatnonzero(table.single.is_measured[number])
                effects[level, context] += found.added(
                    int(level), place, observed, carry.distances[context, observed], carry.ways
                )
    return found


def _centred(distances: NDArray[np.float64]) -> NDArray[np.float64]:
    """Products of centred positions (O, O), of which the squared distances are given."""
    by_row = distances.mean(axis=0)
    return (by_row + by_row[:, None] - by_row.mean() - distances) / 2


def _penalised(products: NDArray[np.float64]) -> NDArray[np.float64]:
    n = len(products)
    return products + (_PENALTY * np.trace(products) / max(n - 1, 1) + _LEAST) * np.eye(n)


def _ridge_weights(among: NDArray[np.float64], distances: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how contexts (O,) count for the difference of another one from their mean; they sum to 0."""
    own = (among.mean(axis=0) - among.mean() - distances + distances.mean()) / 2
    weights = np.linalg.solve(_penalised(_centred(among)), own - own.mean())
    return weights - weights.mean()


class _Learned(NamedTuple):
    """Slope of what controls tell, how much it counts (0 to 1), and which share of the variance of factors is then told."""

    slope: float
    weight: float
    told: float


def _learn(factors: NDArray[np.float64], among: NDArray[np.float64], ways: Sequence[Way]) -> _Learned | None:
    """Learn what controls tell of the factors of contexts (O, K); None where that is nothing.

    Contexts are left out one by one: of a ridge regression what is then predicted follows from its residuals and leverages.
    """
    n = len(factors)
    products = _centred(among)
    fit = np.linalg.solve(_penalised(products), products).T + 1 / n
    others = (factors.sum(axis=0) - factors) / (n - 1)
    apart = factors - others
    predicted = apart - (factors - fit @ factors) / (1 - np.diag(fit))[:, None]
    agreement, size = (apart * predicted).sum(axis=1), np.square(predicted).sum(axis=1)
    # The slope of a context is learned from the others.
    of_others = np.clip((agreement.sum() - agreement) / (size.sum() - size + _LEAST), 0, _LARGEST_SLOPE)
    distances = among.copy()
    np.fill_diagonal(distances, np.inf)
    usual = factors - mean_weights(distances, ways) @ factors
    told = apart - of_others[:, None] * predicted
    before, after = np.square(usual).sum(axis=1) + _LEAST, np.square(told).sum(axis=1) + _LEAST
    gains = np.log(before / after)
    surely = gains.mean() / (gains.std(ddof=1) / np.sqrt(n) + _LEAST)
    slope = float(np.clip(agreement.sum() / (size.sum() + _LEAST), 0, _LARGEST_SLOPE))
    # Without a slope factors would be the same in all contexts, which controls do not tell.
    if surely <= 1 or slope == 0:
        return None
    weight = float(1 - 1 / surely**2)
    remaining = np.square((1 - weight) * usual + weight * told).sum()
    return _Learned(slope, weight, float(max(1 - remaining / before.sum(), 0)))
