"""What perturbations measured in a context tell of those that were measured in others only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.special import stdtrit

from perturbflow.flow._interaction_factors import InteractionFactors, PerturbationFactors, Rows, gene_directions
from perturbflow.flow._told_effects import Interactions, ToldEffects, quadratic

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from perturbflow.flow._carry import Carry
    from perturbflow.flow._measurements import Measurements

_FEWEST_CONTEXTS = 3  # in which effects were measured
_FEWEST_LEVELS = 8  # that were measured in several
_FEWEST_JUDGED = 3  # effects measured in a context, each predicted from the others
_FOLDS = 4
_MOST_JUDGED = 120  # effects that are left out, of contexts that ask, and of all
_MOST_LEVELS = 600  # from which the factors are learned
_SURELY = 0.975  # in all contexts together
_LIKELY = 0.5  # in a context, where it is so in all together
_LARGEST_TOLD = 0.9  # of the variance between contexts
_VALUES_AT_ONCE = 4_000_000


class Told(NamedTuple):
    """What measured effects tell of those of other perturbations in their contexts.

    Parameters
    ----------
    variances
        How much of the variance of an effect between contexts is told in every context (C, G), 0 where effects are carried.
    spreads
        Variances of effects that are now known better where they were measured (G,), by their levels.
    groups
        Groups of these, each of one level and no other (n,).
    """

    variances: NDArray[np.float64]
    spreads: dict[int, NDArray[np.float64]]
    groups: NDArray[np.intp]


def tell_contexts(
    measured: Measurements,
    shared: NDArray[np.float64],
    effects: NDArray[np.float32],
    carry: Carry,
    levels: NDArray[np.intp],
    variances: NDArray[np.float64],
    expected: NDArray[np.float64],
    scales: Sequence[float],
) -> Told:
    r"""Replace effects by what the measured effects of their contexts tell, where that is surely better than to carry them.

    Effects of perturbations differ between contexts along a few factors (:class:`InteractionFactors`). Those of a context
    follow from the perturbations that were measured in it, those of a perturbation from the contexts in which it was.
    Where both are known, what is left without interactions is much the same in all contexts (:class:`ToldEffects`): it is
    shrunken as that, where effects were measured as well as where they were not, and the interactions are added.

    Whether this is better is seen by leaving contexts out: factors are learned from the others, and those of the context from
    all effects that were measured in it but the one that is predicted. It is done where the squared error falls, in all contexts
    together by more than two standard errors.

    Parameters
    ----------
    measured
        Measured effects.
    shared
        Mean effect of a perturbation (C, G).
    effects
        What every level adds to it (L, C, G); changed in place, but those of levels that were measured in combinations only
        where they were not measured.
    carry
        How effects are carried without this.
    levels
        Levels whose effects are known.
    variances
        Variance of an effect between contexts (G,).
    expected
        What every level is expected to do (L, G).
    scales
        Candidate standard deviations of true effects.

    Returns
    -------
    What is told.
    """
    told = Told(np.zeros(shared.shape), {}, np.zeros(0, dtype=np.intp))
    alone = _Alone.of(measured, levels, carry.n_contexts)
    if alone is None:
        return told
    table = _Table.of(alone, measured, shared)
    contexts = _better_contexts(table, alone.asking, effects, carry)
    if not len(contexts):
        return told
    factors, rows = InteractionFactors.fit(table.rows), table.all_rows(alone, measured, shared)
    if rows is not table.rows:
        factors = factors.with_contexts_of(rows)
    known = PerturbationFactors.of(factors, rows)
    interactions = Interactions(factors, known, factors.loadings @ table.directions.T * table.units)
    of_level = ToldEffects.fit(measured, shared, alone.rows, rows, interactions, scales)
    is_only_alone = np.diff(measured.columns.indptr)[alone.levels] == np.diff(rows.by_perturbation.indptr)
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


@dataclass(frozen=True, eq=False)
class _Alone:
    """Groups of one level and no other, of levels that several contexts have.

    ``rows`` are their numbers, ``numbers`` those of their levels among ``levels``, ``contexts`` their contexts (N,);
    ``is_measured`` says whether a level was measured in a context, alone or not (P, C), ``is_fitted`` whether its
    effects are known (P,), and ``asking`` in which contexts some of these were not measured and others were.
    """

    rows: NDArray[np.intp]
    numbers: NDArray[np.intp]
    contexts: NDArray[np.intp]
    levels: NDArray[np.intp]
    is_measured: NDArray[np.bool_]
    is_fitted: NDArray[np.bool_]
    asking: NDArray[np.intp]

    @classmethod
    def of(cls, measured: Measurements, fitted: NDArray[np.intp], n_contexts: int) -> _Alone | None:
        """They, unless there is nothing to learn or nothing to tell."""
        design = measured.design
        if len(np.unique(measured.which)) < _FEWEST_CONTEXTS:
            return None
        rows = np.flatnonzero(np.diff(design.indptr) == 1)
        rows = rows[design.data[design.indptr[rows]] == 1]
        level = design.indices[design.indptr[rows]]
        contexts = measured.which[rows]
        several = np.bincount(level, minlength=design.shape[1]) > 1  # a group is a level in a context
        levels = np.flatnonzero(several)
        if len(levels) < _FEWEST_LEVELS:
            return None
        kept = several[level]
        rows, level, contexts = rows[kept], level[kept], contexts[kept]
        if len(np.unique(contexts)) < _FEWEST_CONTEXTS:
            return None
        is_measured = np.zeros((len(levels), n_contexts), dtype=bool)
        for number, each in enumerate(levels):
            is_measured[number, measured.which[measured.of_level(int(each))[0]]] = True
        enough = np.bincount(contexts, minlength=n_contexts) >= _FEWEST_JUDGED
        known = np.isin(levels, fitted)
        asking = np.flatnonzero(enough & ~is_measured[known].all(axis=0))
        if not len(asking):
            return None
        numbers = np.searchsorted(levels, level)
        return cls(rows, numbers, contexts, levels, is_measured, known, asking)

    def some_levels(self) -> NDArray[np.bool_]:
        """Whether a level is among those from which factors are learned: evenly spaced among those of every context (P,)."""
        chosen = np.zeros(len(self.levels), dtype=bool)
        places = np.unique(self.contexts)
        most = max(_MOST_LEVELS // len(places), 1)
        for place in places:
            own = self.numbers[self.contexts == place]
            chosen[own[:: max(1, -(-len(own) // most))]] = True
        return chosen if len(self.levels) > _MOST_LEVELS else np.ones(len(self.levels), dtype=bool)


@dataclass(frozen=True, eq=False)
class _Table:
    """Measured effects of some levels beyond the shared part, from which the factors are learned.

    ``rows`` has them in units of their noise (G,) and in the directions of genes in which contexts differ (G, R), ``levels`` their
    levels (N,), and ``changes`` all of their genes (N, G).
    """

    rows: Rows
    levels: NDArray[np.intp]
    changes: NDArray[np.float32]
    units: NDArray[np.float64]
    directions: NDArray[np.float64]

    @classmethod
    def of(cls, alone: _Alone, measured: Measurements, shared: NDArray[np.float64]) -> _Table:
        which = np.flatnonzero(alone.some_levels()[alone.numbers])
        groups, numbers, contexts = alone.rows[which], alone.numbers[which], alone.contexts[which]
        variances = measured.variances[groups]
        units = np.sqrt(variances.mean(axis=0, dtype=np.float64))
        noise = 1 / (units**2 / variances).mean(axis=1)
        changes = measured.effects[groups] - shared[contexts].astype(np.float32)
        scaled = changes / units.astype(np.float32)
        directions = gene_directions(scaled, numbers, noise)
        rows = Rows(scaled @ directions, noise, numbers, contexts, alone.is_measured.shape)
        return cls(rows, alone.levels[numbers], changes, units, directions)

    def all_rows(self, alone: _Alone, measured: Measurements, shared: NDArray[np.float64]) -> Rows:
        """The same of all levels, whose genes are not needed, block by block."""
        if len(self.levels) == len(alone.rows):
            return self.rows
        scale = self.directions / self.units[:, None]
        values, noise = np.empty((len(alone.rows), self.directions.shape[1])), np.empty(len(alone.rows))
        at_once = max(1, _VALUES_AT_ONCE // len(self.units))
        for first in range(0, len(noise), at_once):
            block = slice(first, first + at_once)
            groups = alone.rows[block]
            noise[block] = 1 / (self.units**2 / measured.variances[groups]).mean(axis=1)
            values[block] = (measured.effects[groups] - shared[alone.contexts[block]]) @ scale
        return Rows(values, noise, alone.numbers, alone.contexts, self.rows.shape)


def _better_contexts(
    table: _Table, asking: NDArray[np.intp], effects: NDArray[np.float32], carry: Carry
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
    table: _Table, contexts: NDArray[np.intp], asking: NDArray[np.intp], effects: NDArray[np.float32], carry: Carry
) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """By how much squared errors fall, effect by effect, in contexts that the factors were learned without."""
    rows = table.rows
    is_left_out = np.isin(rows.contexts, contexts)
    remaining = rows.take(~is_left_out)
    factors = InteractionFactors.fit(remaining)
    known = PerturbationFactors.of(factors, remaining)
    weights = known.precision / known.total[remaining.which]
    genes = factors.loadings @ table.directions.T * table.units
    of_perturbation = remaining.by_perturbation
    number_of = np.diff(of_perturbation.indptr)
    for context in contexts:
        own = np.flatnonzero((rows.contexts == context) & (number_of[rows.which] > 0))
        alone = factors.of_new_context(rows.take(own), known, remaining)
        most = _MOST_JUDGED // (len(asking) if context in asking else rows.shape[1])
        step = max(1, len(own) // max(most, _FEWEST_JUDGED))
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
    """Whether a mean is above 0 by more than its standard error times a quantile of the t-distribution."""
    n = len(gains)
    if n < _FEWEST_JUDGED:
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
