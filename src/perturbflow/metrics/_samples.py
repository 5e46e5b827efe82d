"""Cells with what several metrics need of them: each is computed once, when it is first asked for.

Distances are in float32: values are off by some 1e-6 of the mean distance from those of :func:`energy_distance`. They are
computed by NumPy, or by torch where the space of the samples names a device; what is summed up of them is in NumPy again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from perturbflow.metrics._cells import check_cells
from perturbflow.metrics._distances import as_array, mean_within, pair_blocks, pair_sum, root, squared_distances, sums
from perturbflow.metrics._energy import SHORTEST
from perturbflow.metrics._gene_variation import (
    MOST_VARIABLE,
    correlations_of_pairs,
    expressed_shares,
    most_variable_genes,
)
from perturbflow.metrics._moments import Moments
from perturbflow.metrics._principal_components import PrincipalComponents
from perturbflow.metrics._wasserstein import N_PROJECTIONS, directions_of, sorted_by_gene

if TYPE_CHECKING:
    import torch

    from perturbflow.metrics._clouds import CloudScores
    from perturbflow.metrics._differential_expression import DifferentialExpression

BLOCK, BLOCK_ON_DEVICE = 1024, 4096
MOST_CELLS_KEPT = 2000  # 16 MB of distances; of more cells they are computed again

T = TypeVar("T")


class once(cached_property, Generic[T]):
    """A property that is computed once. That of Python 3.11 has a lock, for which threads with other samples wait."""

    def __get__(self, instance: object, owner: type | None = None) -> T:  # type: ignore[override]
        value: T = self.func(instance)
        return instance.__dict__.setdefault(str(self.attrname), value)


@dataclass(frozen=True, eq=False)
class Space:
    """What the samples of a context share.

    A point near the cells (G,), from which float32 loses nothing, principal components, and the device of torch that
    computes distances; NumPy does without one.
    """

    centre: NDArray[np.float64]
    components: PrincipalComponents | None = None
    device: torch.device | None = None


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

    @once
    def placed(self) -> tuple[Any, ...]:
        """Centred cells (n, G) and their squared lengths (n,) where distances are computed."""
        if self.space.device is None:
            return self.centred, self.squares
        if self._parent is not None:
            whole: tuple[Any, ...] = self._parent.placed
            return tuple(values[self._rows] for values in whole)
        import torch

        device = self.space.device
        return torch.as_tensor(self.centred, device=device), torch.as_tensor(self.squares, device=device)

    def block(self, rows: slice) -> tuple[Any, Any]:
        """Return some centred cells and their squared lengths."""
        placed: tuple[Any, ...] = self.placed
        return placed[0][rows], placed[1][rows]

    @once
    def within(self) -> Any:
        """Squared distances between all cells (n, n), for up to `MOST_CELLS_KEPT`."""
        everything = self.block(slice(None))
        return squared_distances(*everything, *everything)

    @once
    def distances_within(self) -> NDArray[np.float64]:
        """Mean distance of every cell to all, itself included (n,)."""
        total = np.zeros(len(self))
        for rows, columns, block in blocks_between(self, self, half=True):
            distances = root(block)
            total[rows] += sums(distances, 1)
            if rows != columns:
                total[columns] += sums(distances, 0)
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
                total[rows] += sums(root(block), 1)
            self._distances[other] = total / len(other)
        return self._distances[other]


def blocks_between(x: Sample, y: Sample, *, half: bool = False) -> Iterator[tuple[slice, slice, Any]]:
    """Yield squared distances between the cells of two samples, see :func:`~perturbflow.metrics._distances.pair_blocks`.

    Those within a sample are kept, up to `MOST_CELLS_KEPT`.
    """
    whole = x.whole
    if whole is y.whole and len(whole) <= MOST_CELLS_KEPT:
        kept: Any = whole.within[x._rows][:, y._rows]
        yield slice(len(x)), slice(len(y)), kept.copy() if isinstance(kept, np.ndarray) else kept.clone()
        return
    yield from pair_blocks(x, y, block_cells=BLOCK if x.space.device is None else BLOCK_ON_DEVICE, half=half)


def distances_together(x: Sample, y: Sample) -> NDArray[np.float64]:
    """Distances between all cells of two samples, those of the first before the others (n + m, n + m)."""
    n, found = len(x), np.empty((len(x) + len(y),) * 2)
    for one, other, first, start in ((x, x, 0, 0), (x, y, 0, n), (y, y, n, n)):
        part = found[first : first + len(one), start : start + len(other)]
        for rows, columns, block in blocks_between(one, other):
            part[rows, columns] = as_array(root(block))
    found[n:, :n] = found[:n, n:].T
    return found


def at_least_shortest(squared: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return distances as geomloss has them in the place of their squares, see :func:`energy_loss`."""
    return root(squared, SHORTEST)


class Pair:
    """A predicted sample and a real one."""

    def __init__(self, predicted: Sample, real: Sample) -> None:
        self.predicted, self.real = predicted, real

    @once
    def correlations(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Correlations of pairs of genes, predicted and real."""
        x, y = self.predicted, self.real
        return correlations_of_pairs(x.cells, x.moments, y.most_variable), y.correlations

    def energy_loss_in_components(self) -> float:
        """Return the :func:`energy_loss` in principal components."""
        x, y = self.predicted, self.real
        total = pair_sum(at_least_shortest, x.components, y.components, centre=np.zeros(x.components.shape[1]))
        return total / (len(x) * len(y)) - x.spread_in_components / 2 - y.spread_in_components / 2


@dataclass(frozen=True, eq=False)
class Comparison:
    """Data that metrics of one condition are computed from; None where no metric asks for it.

    Moments are of the predicted cells, of the real ones and of the controls, tests of predicted and of real cells. There is a
    pair for the prediction, or for two from the same controls; the cloud is what one pass over all pairs of cells gives.
    """

    moments: tuple[Moments, Moments, Moments]
    control: NDArray[np.floating] | None = None
    pairs: Sequence[Pair] = ()
    tests: tuple[DifferentialExpression, DifferentialExpression] | None = None
    cloud: CloudScores | None = None
