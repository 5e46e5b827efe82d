"""Interactions of perturbations and contexts: from those measured in a context to those measured in others only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from perturbflow.flow._carry import Carry
from perturbflow.flow._context_covariance import FactorCovariance
from perturbflow.flow._interaction_factors import (
    FEWEST_IN_CONTEXT,
    EffectTable,
    InteractionFactors,
    PerturbationFactors,
    Rows,
)
from perturbflow.flow._shrinkage import posterior_effects, shrink_apart

# Shares of an effect beyond its interactions that all contexts may have in common: without these no two are more alike.
_COMMON_SHARES = (0.1, 0.7)
_FEWEST_FOR_OFFSETS = 3  # effects of a context
_PERTURBATIONS_AT_ONCE = 16
_LEAST = 1e-9
_FOLDS = 4
_MOST_JUDGED = 120  # effects that are left out, of contexts that ask, and of all
_SURELY = 0.975  # in all contexts together
_LIKELY = 0.5  # in a context, where it is so in all together
_LARGEST_TOLD = 0.9  # of the variance between contexts


@dataclass(frozen=True, eq=False)
class Interactions:
    """Interactions in all genes, as predicted by factors."""

    factors: InteractionFactors
    known: PerturbationFactors  # what rows tell of the perturbations
    genes: NDArray[np.float64]  # what the factors do to genes (K, G)

    def of(self, number: int) -> NDArray[np.float64]:
        """Interactions of a perturbation in all contexts (C, G)."""
        return (self.known.factors[number] * self.factors.contexts) @ self.genes

    def unknown(self, numbers: NDArray[np.intp], contexts: NDArray[np.intp]) -> NDArray[np.float64]:
        """Variance of what is not known of the interactions of some pairs, on average over them (G,)."""
        known = self.known
        apart = self.factors.contexts[contexts] - known.centre[numbers]
        unknown = known.covariances[numbers] * apart[:, :, None] * apart[:, None]
        unknown += known.squares[numbers] * self.factors.context_covariances[contexts]
        return quadratic(unknown.mean(axis=0), self.genes)


def quadratic(matrix: NDArray[np.float64], genes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Value of a quadratic form (K, K) for every gene (K, G)."""
    return (genes * (matrix @ genes)).sum(axis=0)


class Effect(NamedTuple):
    """Effect of a perturbation in all contexts (C, G), in which it was measured (n,), its variance there (G,)."""

    everywhere: NDArray[np.float64]
    observed: NDArray[np.intp]
    variance: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ToldEffects:
    """Measured effects :math:`e_p + i_{pc} + o_c + r_{pc}` with interactions i that are known.

    What is left without them, e, is the same in all contexts but for a rest r, and for an offset o that all effects of
    a context share: the errors of its controls above all, for which the effects of few other perturbations are enough.
    """

    table: EffectTable  # of the measured effects
    rows: Rows  # which perturbation and context the groups of single perturbations are of
    interactions: Interactions  # of these
    rest: NDArray[np.float64]  # variance of r (G,)
    offsets: NDArray[np.float64]  # o (C, G)

    @classmethod
    def fit(cls, table: EffectTable, rows: Rows, interactions: Interactions) -> Self:
        """Estimate the variance of the rest, then the offsets."""
        nothing = np.zeros(table.shared.shape)
        found = cls(table, rows, interactions, nothing[0], nothing)
        found = replace(found, rest=found._variance_of_rest())
        return replace(found, offsets=found._offsets())

    def _of(self, number: int) -> tuple[NDArray[np.intp], NDArray[np.float64], NDArray[np.float64]]:
        """Contexts where a perturbation was measured (n,), effects there without what is known, and their noise (n, G)."""
        members = self.rows.by_perturbation
        own = members.indices[slice(*members.indptr[number : number + 2])]
        contexts, groups = self.rows.contexts[own], self.table.single.rows[own]
        measured = self.table.measured
        changes = measured.effects[groups] - (self.table.shared + self.interactions.of(number) + self.offsets)[contexts]
        return contexts, changes, measured.variances[groups].astype(np.float64)

    @property
    def _several(self) -> NDArray[np.intp]:
        """Perturbations that were measured in several contexts."""
        return np.flatnonzero(np.diff(self.rows.by_perturbation.indptr) > 1)

    def _variance_of_rest(self) -> NDArray[np.float64]:
        """Return what effects vary by between contexts beyond their noise (G,)."""
        total, freedom = np.zeros(self.offsets.shape[1]), 0
        for number in self._several:
            contexts, changes, noise = self._of(int(number))
            n = len(contexts)
            total += np.square(changes - changes.mean(axis=0)).sum(axis=0) - (1 - 1 / n) * noise.sum(axis=0)
            freedom += n - 1
        return np.maximum(total / max(freedom, 1), 0)

    def _offsets(self) -> NDArray[np.float64]:
        """Return how far the effects of a context are from what others say of the same perturbations (C, G), shrunken."""
        total, precision = np.zeros((2, *self.offsets.shape))
        number_of = np.zeros(len(total), dtype=np.intp)
        for number in self._several:
            contexts, changes, noise = self._of(int(number))
            weights = 1 / (noise + self.rest)
            of_others = np.maximum(weights.sum(axis=0) - weights, _LEAST)
            others = ((weights * changes).sum(axis=0) - weights * changes) / of_others
            certain = 1 / (1 / weights + 1 / of_others)
            total[contexts] += certain * (changes - others)
            precision[contexts] += certain
            number_of[contexts] += 1
        enough = number_of >= _FEWEST_FOR_OFFSETS
        found = np.zeros(total.shape)
        if enough.any():
            offsets, noise = total[enough] / precision[enough], 1 / precision[enough]
            variance = np.maximum((np.square(offsets) - noise).mean(axis=0), 0)
            found[enough] = offsets * variance / (variance + noise)
        return found

    def effects(self, numbers: NDArray[np.intp], expected: NDArray[np.float64]) -> Iterator[Effect]:
        """Effects of perturbations (n,) beyond the shared part, one by one, shrunken towards ``expected`` (n, G).

        Where they were measured the rest is kept as far as it stands out of the noise; elsewhere there is none.
        """
        measured = self.table.measured
        for first in range(0, len(numbers), _PERTURBATIONS_AT_ONCE):
            block = slice(first, first + _PERTURBATIONS_AT_ONCE)
            found = [self._of(int(number)) for number in numbers[block]]
            weights = [1 / (noise + self.rest) for _, _, noise in found]
            precision = np.array([each.sum(axis=0) for each in weights])
            mean = np.array([(w * changes).sum(axis=0) for w, (_, changes, _) in zip(weights, found, strict=True)])
            mean = mean / precision - expected[block]
            conserved = shrink_apart(mean, 1 / precision, measured.scales, measured.strata)[0] + expected[block]
            for number, parts, what, centre in zip(numbers[block], found, conserved, expected[block], strict=True):
                yield self._effect(int(number), *parts, what, centre)

    def _effect(
        self,
        number: int,
        observed: NDArray[np.intp],
        changes: NDArray[np.float64],
        noise: NDArray[np.float64],
        conserved: NDArray[np.float64],
        expected: NDArray[np.float64],
    ) -> Effect:
        """Effect of which the conserved part is known."""
        known = self.interactions.of(number) + self.offsets
        everywhere = known + conserved
        n_contexts = len(self.offsets)
        own, spread = posterior_effects(
            (changes - expected).T,
            noise.T,
            observed=observed.tolist(),
            covariances=[
                FactorCovariance(np.full((n_contexts, 1), np.sqrt(share)), np.full(n_contexts, 1 - share))
                for share in _COMMON_SHARES
            ],
            scales=self.table.measured.scales,
            strata=self.table.measured.strata,
        )
        everywhere[observed] = own.T + known[observed] + expected
        # An error of the interactions counts as far as the measured effect does not make up for it.
        unknown = self.interactions.unknown(np.full(len(observed), number), observed)
        kept = np.clip(spread.T / noise, 0, 1)
        return Effect(everywhere, observed, (spread.T + np.square(1 - kept) * unknown).mean(axis=0))


class Told(NamedTuple):
    """Effects of other perturbations in a context, as told by the measured ones."""

    variances: NDArray[np.float64]  # share of that between contexts told in each (C, G), 0 where carried
    spreads: dict[int, NDArray[np.float64]]  # of effects now known better where measured (G,), by level
    groups: NDArray[np.intp]  # of these, each of one level and no other (n,)


def tell_contexts(
    table: EffectTable | None,
    effects: NDArray[np.float32],
    carry: Carry,
    variances: NDArray[np.float64],
    expected: NDArray[np.float64],
) -> Told:
    """Replace effects (L, C, G), in place, by what the measured effects of their contexts tell, where that is better.

    Effects of perturbations differ between contexts along a few factors (:class:`InteractionFactors`); what is left
    without them is much the same in all (:class:`ToldEffects`), is shrunken as that, and the factors' part is added.
    Levels that were measured in combinations only stay as they are where they were not measured. Contexts are left out
    to see whether this is better than to carry: the squared error has to fall by more than two standard errors over
    all.
    """
    told = Told(np.zeros(effects.shape[1:]), {}, np.zeros(0, dtype=np.intp))
    if table is None or not len(table.single.asking):
        return told
    alone = table.single
    contexts = _better_contexts(table, alone.asking, effects, carry)
    if not len(contexts):
        return told
    factors, known, rows = table.known()
    interactions = Interactions(factors, known, table.genes(factors))
    of_level = ToldEffects.fit(table, rows, interactions)
    is_only_alone = np.diff(table.measured.columns.indptr)[alone.levels] == np.diff(rows.by_perturbation.indptr)
    numbers = np.flatnonzero(alone.is_fitted)
    levels = alone.levels[numbers]
    for number, level, found in zip(numbers, levels.tolist(), of_level.effects(numbers, expected[levels]), strict=True):
        missing = contexts[~alone.is_measured[number, contexts]]
        effects[level, missing] = found.everywhere[missing]
        if is_only_alone[number]:
            effects[level, found.observed] = found.everywhere[found.observed]
            told.spreads[level] = found.variance
    told.variances[contexts] = _told(interactions, rows, alone.is_measured, contexts, variances)
    changed = (is_only_alone & alone.is_fitted)[alone.numbers]
    return told._replace(groups=alone.rows[changed])


def _better_contexts(
    table: EffectTable, asking: NDArray[np.intp], effects: NDArray[np.float32], carry: Carry
) -> NDArray[np.intp]:
    """Contexts, of those asking, in which effects that are left out are told better than carried."""
    rows = table.rows
    places = np.unique(rows.contexts)
    gains = {
        context: gain
        for fold in range(_FOLDS)
        for context, gain in _gains(table, places[fold::_FOLDS], asking, effects, carry)
    }
    if not _positive(np.concatenate(list(gains.values())), _SURELY):
        return np.zeros(0, dtype=np.intp)
    return np.array([each for each in asking if _positive(gains[each], _LIKELY)], dtype=np.intp)


def _gains(
    table: EffectTable, contexts: NDArray[np.intp], asking: NDArray[np.intp], effects: NDArray[np.float32], carry: Carry
) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """By how much squared errors fall, effect by effect, in contexts that the factors were learned without."""
    rows = table.rows
    is_left_out = np.isin(rows.contexts, contexts)
    remaining = rows.take(~is_left_out)
    factors = InteractionFactors.fit(remaining)
    known = PerturbationFactors.of(factors, remaining)
    weights = known.precision / known.total[remaining.which]
    genes = table.genes(factors)
    of_perturbation = remaining.by_perturbation
    number_of = np.diff(of_perturbation.indptr)
    for context in contexts:
        own = np.flatnonzero((rows.contexts == context) & (number_of[rows.which] > 0))
        alone = factors.of_new_context(rows.take(own), known, remaining)
        most = _MOST_JUDGED // (len(asking) if context in asking else rows.shape[1])
        step = max(1, len(own) // max(most, FEWEST_IN_CONTEXT))
        found = []
        for row, place in zip(own[::step], alone[::step], strict=True):
            number = rows.which[row]
            others = of_perturbation.indices[slice(*of_perturbation.indptr[number : number + 2])]
            before = effects[table.levels[row], remaining.contexts[others]].astype(np.float64)
            usual = carry.everywhere(remaining.contexts[others], before)[context]
            told = weights[others] @ before + (known.factors[number] * (place - known.centre[number])) @ genes
            errors = np.square(table.changes[row] - np.stack([usual, told])) @ carry.weights
            found.append(errors[0] - errors[1])
        yield int(context), np.array(found)


def _positive(gains: NDArray[np.float64], probability: float) -> bool:
    """Return whether a mean is above 0 by more than its standard error times a quantile of the t-distribution."""
    n = len(gains)
    if n < FEWEST_IN_CONTEXT:
        return False
    return bool(gains.mean() > stdtrit(n - 1, probability) * gains.std(ddof=1) / np.sqrt(n))


def _told(
    interactions: Interactions,
    rows: Rows,
    is_measured: NDArray[np.bool_],
    contexts: NDArray[np.intp],
    variances: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Share of the variance between contexts that the factors explain, less what is not known of them (c, G)."""
    number, known = np.diff(rows.by_perturbation.indptr), interactions.known
    fitted = known.factors[rows.which] * known.apart
    freedom = (number[number > 1] - 1).sum()
    explained = np.clip(quadratic(fitted.T @ fitted / freedom, interactions.genes), 0, _LARGEST_TOLD * variances)
    found = np.empty((len(contexts), len(variances)))
    for place, context in enumerate(contexts):
        missing = np.flatnonzero(~is_measured[:, context] & (number > 0))
        found[place] = explained - interactions.unknown(missing, np.full(len(missing), context))
    return np.maximum(found, 0)
