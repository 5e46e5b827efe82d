"""Cells with what several metrics need of them: each is computed once, when it is first asked for.

Distances are in float32: values are off by some 1e-6 of the mean distance from those of :func:`energy_distance`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from perturbflow.metrics._cells import check_cells
from perturbflow.metrics._correlations import MOST_VARIABLE, correlations_of_pairs, most_variable_genes
from perturbflow.metrics._distances import mean_within, pair_blocks, squared_distances
from perturbflow.metrics._energy import SHORTEST, root
from perturbflow.metrics._marginals import expressed_shares
from perturbflow.metrics._moments import Moments
from perturbflow.metrics._principal_components import PrincipalComponents
from perturbflow.metrics._wasserstein import N_PROJECTIONS, directions_of, sorted_by_gene

BLOCK = 1024
MOST_CELLS_KEPT = 2000  # 16 MB of distances; of more cells they are computed again

T = TypeVar("T")


class once(cached_property, Generic[T]):
    """A property that is computed once. That of Python 3.11 has a lock, for which threads with other samples wait."""

    def __get__(self, instance: object, owner: type | None = None) -> T:  # type: ignore[override]
        value: T = self.func(instance)
        return instance.__dict__.setdefault(str(self.attrname), value)


@dataclass(frozen=True, eq=False)
class Space:
    """Samples of a context share a point near the cells (G,), from which float32 loses nothing, and principal components."""

    centre: NDArray[np.float64]
    components: PrincipalComponents | None = None


class Sample:
    """Cells (n, G), predicted or real, dense, at least two, in the space of the samples that they are compared with."""

    def __init__(self, cells: NDArray[np.floating], space: Space) -> None:
        check_cells(cells, name="cells", minimum=2)
        self.cells, self.space = cells, space
        self._parent: Sample | None = None
        self._rows: NDArray[np.intp] | slice = slice(None)
        self._distances: dict[Sample, NDArray[np.float64]] = {}

    @property
    def whole(self) -> Sample:
        """The sample that it is part of."""
        return self if self._parent is None else self._parent

    def part(self, rows: NDArray[np.intp]) -> Sample:
        """Some of the cells; what is known of each cell or pair of cells is not computed again."""
        found = Sample(self.cells[rows], self.space)
        found._parent, found._rows = self, rows
        return found

    def __len__(self) -> int:
        return len(self.cells)

    @once
    def moments(self) -> Moments:
        """Their moments."""
        return Moments.of(self.cells)

    @once
    def expressed(self) -> NDArray[np.float64]:
        """Share of the cells that express a gene (G,)."""
        return expressed_shares(self.cells)

    @once
    def by_gene(self) -> NDArray[np.floating]:
        """Values of every gene, ascending (n, G)."""
        return sorted_by_gene(self.cells)

    @once
    def projected(self) -> NDArray[np.float64]:
        """Cells along random directions (K, n)."""
        if self._parent is not None:
            return self._parent.projected[:, self._rows]
        return (self.cells @ directions_of(self.cells.shape[1], N_PROJECTIONS, 0)).T

    @once
    def sorted_projections(self) -> NDArray[np.float64]:
        """The same, ascending in every direction."""
        return np.sort(self.projected, axis=1)

    @once
    def components(self) -> NDArray[np.float64]:
        """Cells in principal components (n, K)."""
        if self._parent is not None:
            return self._parent.components[self._rows]
        assert self.space.components is not None
        return self.space.components.project(self.cells)

    @once
    def spread_in_components(self) -> float:
        """Mean distance between cells in principal components, a cell with itself included, as for `energy_loss`."""
        centre = np.zeros(self.components.shape[1])
        return mean_within(at_least_shortest, self.components, centre=centre, unbiased=False, at_zero=SHORTEST)

    @once
    def most_variable(self) -> NDArray[np.intp]:
        """Genes whose correlations are compared."""
        return most_variable_genes(self.moments, MOST_VARIABLE)

    @once
    def correlations(self) -> NDArray[np.float64]:
        """Correlations of all pairs of these genes."""
        return correlations_of_pairs(self.cells, self.moments, self.most_variable)

    @once
    def centred(self) -> NDArray[np.float32]:
        """Cells from the centre of the space (n, G)."""
        if self._parent is not None:
            return self._parent.centred[self._rows]
        return np.subtract(self.cells, self.space.centre).astype(np.float32)

    @once
    def squares(self) -> NDArray[np.float32]:
        """Squared lengths of the centred cells (n,)."""
        return np.einsum("ng,ng->n", self.centred, self.centred)

    def block(self, rows: slice) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return some centred cells and their squared lengths."""
        return self.centred[rows], self.squares[rows]

    @once
    def within(self) -> NDArray[np.float32]:
        """Squared distances between all cells (n, n), for up to `MOST_CELLS_KEPT`."""
        everything = self.block(slice(None))
        return squared_distances(*everything, *everything)

    @once
    def distances_within(self) -> NDArray[np.float64]:
        """Mean distance of every cell to all, itself included (n,)."""
        total = np.zeros(len(self))
        for rows, columns, block in blocks_between(self, self, half=True):
            np.sqrt(block, out=block)
            total[rows] += block.sum(axis=1, dtype=np.float64)
            if rows != columns:
                total[columns] += block.sum(axis=0, dtype=np.float64)
        return total / len(self)

    @once
    def mean_distance(self) -> float:
        """Mean distance between different cells."""
        return float(self.distances_within.mean()) * len(self) / (len(self) - 1)

    def distances_to(self, other: Sample) -> NDArray[np.float64]:
        """Mean distance of every cell to those of another sample (n,), which is kept."""
        if other is self:  # not kept beside the others: a sample that holds itself would stay in memory
            return self.distances_within
        if self._parent is not None:
            return self._parent.distances_to(other)[self._rows]
        if other not in self._distances:
            total = np.zeros(len(self))
            for rows, _, block in blocks_between(self, other):
                total[rows] += np.sqrt(block, out=block).sum(axis=1, dtype=np.float64)
            self._distances[other] = total / len(other)
        return self._distances[other]


def blocks_between(x: Sample, y: Sample, *, half: bool = False) -> Iterator[tuple[slice, slice, NDArray[np.float32]]]:
    """Yield squared distances between the cells of two samples, see :func:`~perturbflow.metrics._distances.pair_blocks`.

    Those within a sample are kept, up to `MOST_CELLS_KEPT`.
    """
    whole = x.whole
    if whole is y.whole and len(whole) <= MOST_CELLS_KEPT:
        yield slice(len(x)), slice(len(y)), np.array(whole.within[x._rows][:, y._rows])
        return
    yield from pair_blocks(x, y, block_cells=BLOCK, half=half)


def distances_together(x: Sample, y: Sample) -> NDArray[np.float64]:
    """Distances between all cells of two samples, those of the first before the others (n + m, n + m)."""
    n, found = len(x), np.empty((len(x) + len(y),) * 2)
    for one, other, first, start in ((x, x, 0, 0), (x, y, 0, n), (y, y, n, n)):
        part = found[first : first + len(one), start : start + len(other)]
        for rows, columns, block in blocks_between(one, other):
            part[rows, columns] = np.sqrt(block)
    found[n:, :n] = found[:n, n:].T
    return found


def at_least_shortest(squared: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return distances as geomloss has them in the place of their squares, see :func:`energy_loss`."""
    return root(squared, SHORTEST)
