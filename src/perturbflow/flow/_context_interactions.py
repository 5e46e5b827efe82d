"""What perturbations measured in a context tell of those that were measured in others only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import stdtrit

from perturbflow.flow._interaction_factors import InteractionFactors, PerturbationFactors, Rows, gene_directions

if TYPE_CHECKING:
    from collections.abc import Iterator

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


def tell_contexts(
    measured: Measurements,
    shared: NDArray[np.float64],
    effects: NDArray[np.float32],
    carry: Carry,
    levels: NDArray[np.intp],
    variances: NDArray[np.float64],
) -> NDArray[np.float64]:
    r"""Replace carried effects by what the measured effects of their contexts tell, where that is surely better.

    Effects of perturbations differ between contexts along a few factors (:class:`InteractionFactors`). Those of a context
    follow from the perturbations that were measured in it, those of a perturbation from the contexts in which it was.
    Where both are known the effect e in another context is :math:`\sum_c w_c (e_c - i_c) + i`, with the interactions i
    and weights w by precision.

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
        What every level adds to it (L, C, G); changed in place where levels were not measured.
    carry
        How effects are carried without this.
    levels
        Levels whose effects are known.
    variances
        Variance of an effect between contexts (G,).

    Returns
    -------
    How much of it is told in every context (C, G), 0 where effects are carried.
    """
    told = np.zeros(shared.shape)
    alone = _Alone.of(measured, levels, carry.n_contexts)
    if alone is None:
        return told
    table = _Table.of(alone, measured, shared, alone.some_levels())
    contexts = _better_contexts(table, alone.asking, effects, carry)
    if not len(contexts):
        return told
    factors = InteractionFactors.fit(table.rows)
    everything = table if len(table.which) == len(alone.rows) else _Table.of(alone, measured, shared, None, like=table)
    if everything is not table:
        factors = factors.with_contexts_of(everything.rows)
    known = PerturbationFactors.of(factors, everything.rows)
    weights = known.precision / known.total[everything.rows.which]
    fitted = everything.rows.by_perturbation
    genes = factors.loadings @ everything.directions.T * everything.units  # (K, G)
    for number, level in enumerate(alone.levels):
        if level not in alone.fitted:
            continue
        missing = contexts[~alone.is_measured[number, contexts]]
        own = fitted.indices[slice(*fitted.indptr[number : number + 2])]
        if not len(missing) or not len(own):
            continue
        mean = weights[own] @ effects[level, alone.contexts[own]]
        apart = factors.contexts[missing] - known.centre[number]
        effects[level, missing] = mean + (known.factors[number] * apart) @ genes
    told[contexts] = _told(factors, known, everything.rows, alone.is_measured, contexts, genes, variances)
    return told


@dataclass(frozen=True, eq=False)
class _Alone:
    """Groups of one level and no other, of levels that several contexts have.

    ``rows`` are their numbers, ``numbers`` those of their levels among ``levels``, ``contexts`` their contexts (N,);
    ``is_measured`` says whether a level was measured in a context, alone or not (P, C), ``fitted`` of which
    levels effects are known, and ``asking`` in which contexts some of these were not measured and others were.
    """

    rows: NDArray[np.intp]
    numbers: NDArray[np.intp]
    contexts: NDArray[np.intp]
    levels: NDArray[np.intp]
    is_measured: NDArray[np.bool_]
    fitted: frozenset[int]
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
        return cls(rows, numbers, contexts, levels, is_measured, frozenset(levels[known].tolist()), asking)

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
    """Measured effects beyond the shared part, in units of their noise, and in the directions of genes in which contexts differ.

    ``which`` are the places of its rows among those of ``_Alone`` (N,), ``changes`` the effects of known levels.
    """

    rows: Rows
    which: NDArray[np.intp]
    levels: NDArray[np.intp]
    changes: NDArray[np.float32]
    units: NDArray[np.float64]
    directions: NDArray[np.float64]

    @classmethod
    def of(
        cls,
        alone: _Alone,
        measured: Measurements,
        shared: NDArray[np.float64],
        levels: NDArray[np.bool_] | None,
        like: _Table | None = None,
    ) -> _Table:
        which = np.arange(len(alone.rows)) if levels is None else np.flatnonzero(levels[alone.numbers])
        groups, contexts = alone.rows[which], alone.contexts[which]
        variances = measured.variances[groups]
        units = np.sqrt(variances.mean(axis=0, dtype=np.float64)) if like is None else like.units
        noise = 1 / (units**2 / variances).mean(axis=1)
        changes = measured.effects[groups] - shared[contexts].astype(np.float32)
        scaled = changes / units.astype(np.float32)
        directions = gene_directions(scaled, alone.numbers[which], noise) if like is None else like.directions
        shape = alone.is_measured.shape
        rows = Rows(scaled @ directions, noise, alone.numbers[which], contexts, shape)
        return cls(rows, which, alone.levels[alone.numbers[which]], changes, units, directions)


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
    factors: InteractionFactors,
    known: PerturbationFactors,
    rows: Rows,
    is_measured: NDArray[np.bool_],
    contexts: NDArray[np.intp],
    genes: NDArray[np.float64],
    variances: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Share of the variance between contexts that the factors explain, less what is not known of them (c, G)."""
    of_perturbation = rows.by_perturbation
    number = np.diff(of_perturbation.indptr)
    fitted = known.factors[rows.which] * known.apart
    freedom = (number[number > 1] - 1).sum()
    explained = _quadratic(fitted.T @ fitted / freedom, genes)
    found = np.empty((len(contexts), len(variances)))
    for place, context in enumerate(contexts):
        missing = ~is_measured[:, context] & (number > 0)
        apart = factors.contexts[context] - known.centre[missing]
        unknown = known.covariances[missing] * apart[:, :, None] * apart[:, None]
        unknown += known.squares[missing] * factors.context_covariances[context]
        uncertain = _quadratic(unknown.mean(axis=0), genes)
        found[place] = np.clip(explained, 0, _LARGEST_TOLD * variances) - uncertain
    return np.maximum(found, 0)


def _quadratic(matrix: NDArray[np.float64], genes: NDArray[np.float64]) -> NDArray[np.float64]:
    return (genes * (matrix @ genes)).sum(axis=0)
