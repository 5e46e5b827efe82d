"""Doses of components as weights of the doses that were measured."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

_MOST_LEVELS = 8  # of a component; more doses share levels
_DECADE = 10.0  # doses that span it are compared by their logarithms


@dataclass(frozen=True, eq=False)
class DoseLevels:
    """The measured doses of every component, and where other doses lie between them.

    A dose between two levels has both in part, by where it lies between them, on a logarithmic scale where the doses of
    its component span a decade; below the lowest it has that in part; above the highest it is the highest.
    """

    components: NDArray[np.int64]  # component of every level (L,), ascending
    doses: NDArray[np.float64]  # dose of every level (L,), ascending within a component

    @classmethod
    def of(cls, doses: NDArray[np.floating] | sparse.csr_matrix) -> Self:
        """One level a measured dose of the groups (g, P), at most 8 a component; the dose 1 if no group has it."""
        doses = sparse.csc_matrix(doses, dtype=np.float64)
        component = np.repeat(np.arange(doses.shape[1]), np.diff(doses.indptr))
        is_dose = doses.data > 0
        # A component that no group has gets the dose 1, which changes nothing for the others.
        unseen = np.setdiff1d(np.arange(doses.shape[1]), component[is_dose])
        pairs = np.stack(
            [np.append(component[is_dose], unseen), np.append(doses.data[is_dose], np.ones(len(unseen)))], axis=1
        )
        components, levels = np.unique(pairs, axis=0).T
        counts = np.bincount(components.astype(np.int64), minlength=doses.shape[1])
        keep = np.ones(len(levels), dtype=bool)
        ends = np.cumsum(counts)
        for j in np.flatnonzero(counts > _MOST_LEVELS):
            keep[ends[j] - counts[j] : ends[j]] = False
            keep[ends[j] - counts[j] + np.rint(np.linspace(0, counts[j] - 1, _MOST_LEVELS)).astype(int)] = True
        return cls(components[keep].astype(np.int64), levels[keep])

    def of_component(self, component: int) -> slice:
        """Return where the levels of a component are."""
        first, last = np.searchsorted(self.components, [component, component + 1])
        return slice(int(first), int(last))

    @cached_property
    def _starts(self) -> NDArray[np.intp]:
        """Return where the levels of every component begin, and the end of the last (P + 1,)."""
        n_components = int(self.components[-1]) + 1 if len(self.components) else 0
        return np.searchsorted(self.components, np.arange(n_components + 1))

    def design(self, doses: NDArray[np.floating] | sparse.csr_matrix) -> sparse.csr_matrix:
        """Weight of every level in doses (n, P), as (n, L); those of a component are from 0 to 1 together."""
        if not isinstance(doses, sparse.csr_matrix):
            doses = sparse.csr_matrix(doses)
        if not doses.has_sorted_indices:
            doses = doses.sorted_indices()
        is_dose = doses.data > 0
        row = np.repeat(np.arange(doses.shape[0]), np.diff(doses.indptr))[is_dose]
        component, dose = doses.indices[is_dose], doses.data[is_dose].astype(np.float64)
        first, last = self._starts[component], self._starts[component + 1] - 1
        lowest, highest = self.doses[first], self.doses[last]
        asked = np.clip(dose, lowest, highest)
        upper = first.copy()
        for step in range(int((last - first).max(initial=0))):
            level = np.minimum(first + step, last)
            upper += (self.doses[level] < asked) & (level < last)
        upper = np.where((upper == first) & (first < last), first + 1, upper)
        lower = np.where(upper > first, upper - 1, upper)
        # Of doses that span a decade the logarithms are compared.
        spans = highest >= _DECADE * lowest
        at, above, below = asked, self.doses[upper], self.doses[lower]
        if spans.any():
            at, above, below = (np.where(spans, np.log(values), values) for values in (at, above, below))
        share = (at - below) / np.where(upper > lower, above - below, 1.0)
        size = np.minimum(dose / lowest, 1.0)
        # Of every dose the level below it before that above it, row by row: what CSR stores, without sorting.
        weights, levels = np.empty((len(dose), 2)), np.empty((len(dose), 2), dtype=doses.indices.dtype)
        weights[:, 0], weights[:, 1] = size * (1 - share), size * share
        levels[:, 0], levels[:, 1] = lower, upper
        is_weight = weights != 0
        starts = np.zeros(doses.shape[0] + 1, dtype=doses.indptr.dtype)
        np.cumsum(np.bincount(row.repeat(2)[is_weight.ravel()], minlength=doses.shape[0]), out=starts[1:])
        return sparse.csr_matrix(
            (weights[is_weight], levels[is_weight], starts), shape=(doses.shape[0], len(self.doses))
        )

    def positions(self, doses: NDArray[np.floating] | sparse.csr_matrix) -> NDArray[np.float32]:
        """Doses (n, P) on a scale on which the levels of a component are evenly spaced up to 1."""
        return self.sparse_positions(doses).toarray()

    def sparse_positions(self, doses: NDArray[np.floating] | sparse.csr_matrix) -> sparse.csr_matrix:
        """Positions as of :meth:`positions`, as CSR without the zeros."""
        counts = np.diff(self._starts)
        rank = (np.arange(len(self.components)) - self._starts[self.components] + 1) / counts[self.components]
        of_component = sparse.csr_matrix(
            (rank, (np.arange(len(rank)), self.components)), shape=(len(rank), len(counts))
        )
        return sparse.csr_matrix(self.design(doses) @ of_component, dtype=np.float32)

    def factor_from(self, earlier: DoseLevels, before: int, after: int) -> float:
        """Factor with which a component's positions are nearest to those among other levels, at doses both know."""
        pairs = ((earlier, before), (self, after))
        measured = [levels.doses[levels.of_component(number)] for levels, number in pairs]
        doses = np.unique(np.concatenate(measured))
        doses = doses[doses <= min(own[-1] for own in measured)]
        old, new = (
            levels.positions(np.outer(doses, np.arange(levels.components[-1] + 1) == number))[:, number]
            for levels, number in pairs
        )
        return float(old @ new / (new @ new))
