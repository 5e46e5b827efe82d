"""Interactions of perturbations and contexts: from those measured in a context to those measured in others only."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.special import stdtrit

from perturbflow.flow._interaction_factors import InteractionFactors, PerturbationFactors, Rows
from perturbflow.flow._single_effects import FEWEST_IN_CONTEXT, EffectTable
from perturbflow.flow._told_effects import Interactions, ToldEffects, quadratic

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from perturbflow.flow._carry import Carry
    from perturbflow.flow._measurements import Measurements

_FOLDS = 4
_MOST_JUDGED = 120  # effects that are left out, of contexts that ask, and of all
_SURELY = 0.975  # in all contexts together
_LIKELY = 0.5  # in a context, where it is so in all together
_LARGEST_TOLD = 0.9  # of the variance between contexts


class Told(NamedTuple):
    """Effects of other perturbations in a context, as told by the measured ones."""

    variances: NDArray[np.float64]  # share of that between contexts told in each (C, G), 0 where carried
    spreads: dict[int, NDArray[np.float64]]  # of effects now known better where measured (G,), by level
    groups: NDArray[np.intp]  # of these, each of one level and no other (n,)


def tell_contexts(
    table: EffectTable | None,
    measured: Measurements,
    shared: NDArray[np.float64],
    effects: NDArray[np.float32],
    carry: Carry,
    variances: NDArray[np.float64],
    expected: NDArray[np.float64],
    scales: Sequence[float],
) -> Told:
    """Replace effects (L, C, G), in place, by what the measured effects of their contexts tell, where that is better.

    Effects of perturbations differ between contexts along a few factors (:class:`InteractionFactors`); what is left
    without them is much the same in all (:class:`ToldEffects`), is shrunken as that, and the factors' part is added.
    Levels that were measured in combinations only stay as they are where they were not measured. Contexts are left out
    to see whether this is better than to carry: the squared error has to fall by more than two standard errors over
    all.
    """
    told = Told(np.zeros(shared.shape), {}, np.zeros(0, dtype=np.intp))
    if table is None or not len(table.single.asking):
        return told
    alone = table.single
    contexts = _better_contexts(table, alone.asking, effects, carry)
    if not len(contexts):
        return told
    factors, known, rows = table.known(measured, shared)
    interactions = Interactions(factors, known, table.genes(factors))
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
