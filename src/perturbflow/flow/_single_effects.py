"""Measured effects of single perturbations in several contexts, from which it is learned how contexts differ."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from perturbflow.flow._interaction_factors import InteractionFactors, PerturbationFactors, Rows, gene_directions

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from perturbflow.flow._measurements import Measurements

_FEWEST_CONTEXTS = 3  # in which effects were measured
_FEWEST_LEVELS = 8  # that were measured in several
FEWEST_IN_CONTEXT = 3  # effects, that say what a context does
_MOST_LEVELS = 600  # from which the factors are learned
_VALUES_AT_ONCE = 4_000_000


@dataclass(frozen=True, eq=False)
class SingleEffects:
    """Groups of one level and no other, of levels that several contexts have."""

    rows: NDArray[np.intp]  # numbers of the groups (N,)
    numbers: NDArray[np.intp]  # of their levels among `levels` (N,)
    contexts: NDArray[np.intp]  # of the groups (N,)
    levels: NDArray[np.intp]
    is_measured: NDArray[np.bool_]  # whether a level was measured in a context, alone or not (P, C)
    is_fitted: NDArray[np.bool_]  # whether the effects of a level are known (P,)

    @classmethod
    def of(cls, measured: Measurements, fitted: NDArray[np.intp], n_contexts: int) -> SingleEffects | None:
        """Find them; None where they are too few to learn from."""
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
        numbers = np.searchsorted(levels, level)
        return cls(rows, numbers, contexts, levels, is_measured, np.isin(levels, fitted))

    @cached_property
    def is_known(self) -> NDArray[np.bool_]:
        """Return whether enough effects of a context were measured to say how it differs from others (C,)."""
        return np.bincount(self.contexts, minlength=self.is_measured.shape[1]) >= FEWEST_IN_CONTEXT

    @property
    def asking(self) -> NDArray[np.intp]:
        """Contexts of which enough effects were measured, but not all."""
        return np.flatnonzero(self.is_known & ~self.is_measured[self.is_fitted].all(axis=0))

    def some_levels(self) -> NDArray[np.bool_]:
        """Choose levels from which factors are learned: evenly spaced among those of every context (P,)."""
        chosen = np.zeros(len(self.levels), dtype=bool)
        places = np.unique(self.contexts)
        most = max(_MOST_LEVELS // len(places), 1)
        for place in places:
            own = self.numbers[self.contexts == place]
            chosen[own[:: max(1, -(-len(own) // most))]] = True
        return chosen if len(self.levels) > _MOST_LEVELS else np.ones(len(self.levels), dtype=bool)


@dataclass(frozen=True, eq=False)
class EffectTable:
    """Measured effects of some levels beyond the shared part, from which the factors are learned."""

    single: SingleEffects
    rows: Rows  # effects in units of their noise, in directions of genes in which contexts differ
    levels: NDArray[np.intp]  # of the rows (N,)
    changes: NDArray[np.float32]  # effects on all genes (N, G)
    units: NDArray[np.float64]  # noise of every gene (G,)
    directions: NDArray[np.float64]  # of genes (G, R)

    @classmethod
    def of(cls, single: SingleEffects, measured: Measurements, shared: NDArray[np.float64]) -> EffectTable:
        """Collect the effects; ``shared`` is the mean effect of a perturbation (C, G)."""
        which = np.flatnonzero(single.some_levels()[single.numbers])
        groups, numbers, contexts = single.rows[which], single.numbers[which], single.contexts[which]
        variances = measured.variances[groups]
        units = np.sqrt(variances.mean(axis=0, dtype=np.float64))
        noise = 1 / (units**2 / variances).mean(axis=1)
        changes = measured.effects[groups] - shared[contexts].astype(np.float32)
        scaled = changes / units.astype(np.float32)
        directions = gene_directions(scaled, numbers, noise)
        rows = Rows(scaled @ directions, noise, numbers, contexts, single.is_measured.shape)
        return cls(single, rows, single.levels[numbers], changes, units, directions)

    @cached_property
    def factors(self) -> InteractionFactors:
        """Factors of the effects of these levels."""
        return InteractionFactors.fit(self.rows)

    def genes(self, factors: InteractionFactors) -> NDArray[np.float64]:
        """Return what factors do to genes (K, G)."""
        return factors.loadings @ self.directions.T * self.units

    def known(
        self, measured: Measurements, shared: NDArray[np.float64]
    ) -> tuple[InteractionFactors, PerturbationFactors, Rows]:
        """Factors with what the effects of all levels say of contexts and of perturbations, and these effects."""
        factors, rows = self.factors, self._all_rows(measured, shared)
        if rows is not self.rows:
            factors = factors.with_contexts_of(rows)
        return factors, PerturbationFactors.of(factors, rows), rows

    def _all_rows(self, measured: Measurements, shared: NDArray[np.float64]) -> Rows:
        """Effects of all levels, whose genes are not needed, block by block."""
        single = self.single
        if len(self.levels) == len(single.rows):
            return self.rows
        scale = self.directions / self.units[:, None]
        values, noise = np.empty((len(single.rows), self.directions.shape[1])), np.empty(len(single.rows))
        at_once = max(1, _VALUES_AT_ONCE // len(self.units))
        for first in range(0, len(noise), at_once):
            block = slice(first, first + at_once)
            groups = single.rows[block]
            noise[block] = 1 / (self.units**2 / measured.variances[groups]).mean(axis=1)
            values[block] = (measured.effects[groups] - shared[single.contexts[block]]) @ scale
        return Rows(values, noise, single.numbers, single.contexts, self.rows.shape)
