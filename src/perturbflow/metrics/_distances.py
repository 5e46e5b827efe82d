"""Squared distances between cells, a block at a time: the engine of every metric of whole distributions.

Squared Euclidean distances come from one matrix product a block, ``|x - y|^2 = |x|^2 + |y|^2 - 2 x.y``, of cells that
are centred first (distances do not change), which keeps the cancellation harmless. Functions of arrays take them in
float64: their values are small differences of nearly equal means. Samples take them in float32, see :class:`Sample`.
What rounding leaves of equal cells counts as zero, so that these are at distance 0 exactly, and in float64 cells closer
than about a millionth of their distance from the centre count as equal.

Time is O(n m G). Memory is a few blocks, whatever the numbers of cells; sparse cells are made dense a block at a time.

Blocks are arrays of NumPy, or tensors of torch where samples are on a GPU: both have the operators that are used here,
and what differs between them is in :func:`root`, :func:`exp` and :func:`sums`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from perturbflow.metrics._cells import Cells, check_cells, check_predictions, dense, gene_means

MAX_BLOCK_CELLS = 1024
BLOCK_BYTES = 64 * 2**20

Kernel = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""Maps squared distances to values elementwise; may work in place."""


class Points(Protocol):
    """Cells from a common centre, some rows at a time."""

    def __len__(self) -> int: ...

    def block(self, rows: slice) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return some cells (n, G) and their squared lengths (n,)."""
        ...


@dataclass(frozen=True, eq=False)
class Centred:
    """Cells (n, G), dense or sparse, from any point near them (G,)."""

    cells: Cells
    centre: NDArray[np.float64]

    def __len__(self) -> int:
        return int(self.cells.shape[0])

    def block(self, rows: slice) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return some cells, dense, and their squared lengths."""
        values = dense(self.cells[rows]) - self.centre
        return values, np.einsum("ng,ng->n", values, values)


def pair_blocks(
    x: Points, y: Points, *, block_cells: int, half: bool = False
) -> Iterator[tuple[slice, slice, NDArray[Any]]]:
    """Yield squared distances of blocks of cells, which may be overwritten, with their rows in ``x`` and in ``y``.

    ``half`` leaves out the blocks below the diagonal, which are those above it where both are the same cells.
    """
    for first in range(0, len(x), block_cells):
        rows = slice(first, min(first + block_cells, len(x)))
        block_x = x.block(rows)
        for start in range(first if half else 0, len(y), block_cells):
            columns = slice(start, min(start + block_cells, len(y)))
            block_y = block_x if half and start == first else y.block(columns)
            yield rows, columns, squared_distances(*block_x, *block_y)


def squared_distances(
    x: NDArray[Any], squares_x: NDArray[Any], y: NDArray[Any], squares_y: NDArray[Any]
) -> NDArray[Any]:
    """Return squared distances (n, m) between centred cells whose squared lengths are known."""
    squared = x @ y.T
    squared *= -2.0
    squared += squares_x[:, None]
    squared += squares_y
    if 0 in squared.shape:
        return squared
    # Products in float32 are summed in many lanes, so that their error does not grow with the number of genes.
    is_single = squared.dtype.itemsize == 4
    rounding = float(np.finfo(np.float32 if is_single else np.float64).eps) * (8 if is_single else x.shape[1] + 4)
    if squared.min() <= rounding * (squares_x.max() + squares_y.max()):
        squared[squared <= rounding * (squares_x[:, None] + squares_y)] = 0.0
    return squared


def root(squared: Any, shortest: float = 0.0) -> Any:
    """Return distances of at least ``shortest`` in the place of their squares."""
    if not isinstance(squared, np.ndarray):
        return squared.clamp_(min=shortest**2).sqrt_()
    if shortest > 0:
        np.maximum(squared, shortest**2, out=squared)
    return np.sqrt(squared, out=squared)


def exp(values: Any) -> Any:
    """Return exponentials in the place of the values."""
    return np.exp(values, out=values) if isinstance(values, np.ndarray) else values.exp_()


def sums(values: Any, axis: int | None = None) -> Any:
    """Return sums in float64, over everything or along an axis, as a number or an array of NumPy."""
    if isinstance(values, np.ndarray):
        return values.sum(axis=axis, dtype=np.float64)
    return as_array(values.double().sum(axis))


def as_array(values: Any) -> NDArray[Any]:
    """Return a block as an array of NumPy."""
    return values if isinstance(values, np.ndarray) else np.asarray(values.cpu())


def pair_sum(kernel: Kernel, x: Cells, y: Cells, *, centre: NDArray[np.float64]) -> float:
    """Return the sum over i and j of ``kernel(|x_i - y_j|^2)``; the centre (G,) is any point near the cells."""
    pairs = pair_blocks(Centred(x, centre), Centred(y, centre), block_cells=block_size(x))
    return sum(float(kernel(squared).sum()) for _, _, squared in pairs)


def pair_sum_within(kernel: Kernel, x: Cells, *, centre: NDArray[np.float64]) -> float:
    """Return the sum over i != j of ``kernel(|x_i - x_j|^2)``; every unordered pair of blocks is computed once."""
    cells, total = Centred(x, centre), 0.0
    for rows, columns, squared in pair_blocks(cells, cells, block_cells=block_size(x), half=True):
        values = kernel(squared)
        if rows == columns:
            np.fill_diagonal(values, 0.0)
        total += float(values.sum()) * (1.0 if rows == columns else 2.0)
    return total


def mean_within(
    kernel: Kernel, x: Cells, *, centre: NDArray[np.float64], unbiased: bool, at_zero: float = 0.0
) -> float:
    """Return the mean of ``kernel(|x_i - x_j|^2)`` over pairs of different cells, or with ``unbiased=False`` over all.

    ``at_zero`` is the value of a cell with itself.
    """
    n_cells, different = x.shape[0], pair_sum_within(kernel, x, centre=centre)
    return different / (n_cells * (n_cells - 1)) if unbiased else (different + n_cells * at_zero) / n_cells**2


def mean_again(kernel: Kernel, x: Cells, again: Cells, *, centre: NDArray[np.float64]) -> float:
    """Return the mean over i != j of ``kernel(|x_i - x'_j|^2)`` for two predictions (n, G) from the same n cells.

    Where the cells of one prediction depend on each other, as in stratified sampling, pairs within it are no pairs of
    independent cells; those between two predictions are, but for cells that come from the same one.
    """
    zero, n_cells = np.zeros(x.shape[1]), x.shape[0]
    one, other = Centred(x, zero), Centred(again, zero)
    rows = [slice(start, start + MAX_BLOCK_CELLS) for start in range(0, n_cells, MAX_BLOCK_CELLS)]
    same = [np.square(one.block(some)[0] - other.block(some)[0]).sum(axis=1) for some in rows]
    of_same = sum(float(kernel(some).sum()) for some in same)
    return (pair_sum(kernel, x, again, centre=centre) - of_same) / (n_cells * (n_cells - 1))


@dataclass(frozen=True)
class PairMeans:
    """Mean of a kernel over the pairs between two samples and within each."""

    between: float
    within_x: float
    within_y: float


def pair_means_to(
    y: Cells, kernel: Kernel, *, unbiased: bool, at_zero: float = 0.0
) -> Callable[[Cells, Cells | None], PairMeans]:
    """Return the function of predicted cells that has their means with ``y``, whose own is computed once.

    Judging k predictions against one reference this way computes k + 1 means within a sample instead of 2 k. The function
    also takes a second, independent prediction from the same source cells, ``(x, again)``: the pairs within the
    prediction are then those between the two (cells of different source), which is unbiased even where the cells of one
    prediction depend on each other, and both are compared with the reference.
    """
    minimum = 2 if unbiased else 1
    y = check_cells(y, name="y", minimum=minimum)
    centre = gene_means(y, name="y")
    within_y = mean_within(kernel, y, centre=centre, unbiased=unbiased, at_zero=at_zero)

    def pair_means(x: Cells, again: Cells | None) -> PairMeans:
        predictions = check_predictions(x, again, y, minimum=minimum)
        between = [pair_sum(kernel, one, y, centre=centre) / (one.shape[0] * y.shape[0]) for one in predictions]
        if again is None:
            within = mean_within(kernel, predictions[0], centre=centre, unbiased=unbiased, at_zero=at_zero)
        else:
            within = mean_again(kernel, *predictions, centre=centre)
        return PairMeans(float(np.mean(between)), within, within_y)

    return pair_means


def distances_within(x: Cells, *, centre: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the distances of all unordered pairs of cells, (n (n - 1) / 2,): O(n^2) memory, for small n."""
    everything = Centred(x, centre).block(slice(0, x.shape[0]))
    return np.sqrt(squared_distances(*everything, *everything)[np.triu_indices(x.shape[0], k=1)])


def block_size(cells: Cells) -> int:
    """Return how many cells (n, G) a block has."""
    return max(1, min(MAX_BLOCK_CELLS, BLOCK_BYTES // (8 * cells.shape[1])))
