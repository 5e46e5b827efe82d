"""Sums over all pairs of cells, a block of cells at a time.

Squared Euclidean distances come from one matrix product a block, ``|x - y|^2 = |x|^2 + |y|^2 - 2 x.y``, in float64: the
metrics are small differences of nearly equal means, so float32 would lose them. Cells are centred first (distances do
not change), which keeps the cancellation harmless. What rounding leaves of it, at most ``(G + 4) eps (|x|^2 + |y|^2)``,
counts as zero: equal cells are at distance 0 exactly, and cells closer than about a millionth of their distance from
the centre count as equal.

Time is O(n m G). Memory is a few blocks, whatever the numbers of cells; sparse cells are made dense a block at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from perturbflow.metrics._cells import Cells

MAX_BLOCK_CELLS = 1024
BLOCK_BYTES = 64 * 2**20

Kernel = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""Maps squared distances to values elementwise; may work in place."""


def pair_sum(
    kernel: Kernel, x: Cells, y: Cells, *, centre: NDArray[np.float64], block_cells: int | None = None
) -> float:
    """Sum over i and j of ``kernel(|x_i - y_j|^2)``.

    ``x`` is (n, G), ``y`` (m, G) and ``centre`` (G,) any point near the cells.
    """
    return sum(float(kernel(squared).sum()) for _, squared in pair_blocks(x, y, centre=centre, block_cells=block_cells))


def pair_blocks(
    x: Cells, y: Cells, *, centre: NDArray[np.float64], block_cells: int | None = None
) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """Yield squared distances of blocks of cells, with the rows of ``y`` that are the columns of the block."""
    for rows_x in _row_blocks(x, block_cells):
        block_x = _centred(x, rows_x, centre)
        for rows_y in _row_blocks(y, block_cells):
            yield rows_y, _squared_distances(block_x, _centred(y, rows_y, centre))


def pair_sum_within(kernel: Kernel, x: Cells, *, centre: NDArray[np.float64], block_cells: int | None = None) -> float:
    """Sum over i != j of ``kernel(|x_i - x_j|^2)``; every unordered pair of blocks is computed once."""
    total = 0.0
    for rows_i in _row_blocks(x, block_cells):
        block_i = _centred(x, rows_i, centre)
        for rows_j in _row_blocks(x, block_cells):
            if rows_j.start < rows_i.start:
                continue
            if rows_j.start > rows_i.start:
                total += 2.0 * float(kernel(_squared_distances(block_i, _centred(x, rows_j, centre))).sum())
                continue
            values = kernel(_squared_distances(block_i, block_i))
            np.fill_diagonal(values, 0.0)
            total += float(values.sum())
    return total


def mean_again(kernel: Kernel, x: Cells, again: Cells, *, centre: NDArray[np.float64]) -> float:
    """Mean over i != j of ``kernel(|x_i - x'_j|^2)`` for two predictions (n, G) from the same n cells.

    Where the cells of one prediction depend on each other, as in stratified sampling, pairs within it are no pairs of
    independent cells; those between two predictions are, but for cells that come from the same one.
    """
    same, n_cells = squared_distances_of_rows(x, again), x.shape[0]
    return (pair_sum(kernel, x, again, centre=centre) - float(kernel(same).sum())) / (n_cells * (n_cells - 1))


def squared_distances_of_rows(x: Cells, again: Cells) -> NDArray[np.float64]:
    """Squared distance of every cell to the one in the same row of another matrix, (n,)."""
    zero = np.zeros(x.shape[1])
    blocks = (_centred(x, rows, zero) - _centred(again, rows, zero) for rows in _row_blocks(x, None))
    return np.concatenate([np.square(block).sum(axis=1) for block in blocks])


def distances_within(x: Cells, *, centre: NDArray[np.float64]) -> NDArray[np.float64]:
    """Euclidean distances of all unordered pairs of cells, (n (n - 1) / 2,): O(n^2) memory, for small n."""
    everything = _centred(x, slice(0, x.shape[0]), centre)
    squared = _squared_distances(everything, everything)
    return np.sqrt(squared[np.triu_indices(x.shape[0], k=1)])


def _row_blocks(cells: Cells, block_cells: int | None) -> Iterator[slice]:
    n_cells, n_genes = cells.shape
    size = block_cells or max(1, min(MAX_BLOCK_CELLS, BLOCK_BYTES // (8 * n_genes)))
    for start in range(0, n_cells, size):
        yield slice(start, min(start + size, n_cells))


def _centred(cells: Cells, rows: slice, centre: NDArray[np.float64]) -> NDArray[np.float64]:
    block = cells[rows]
    return (block if isinstance(block, np.ndarray) else block.toarray()) - centre


def _squared_distances(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    squares_x = np.einsum("ng,ng->n", x, x)
    squares_y = np.einsum("ng,ng->n", y, y)
    sizes = np.add.outer(squares_x, squares_y)
    squared = x @ y.T
    squared *= -2.0
    squared += sizes
    sizes *= (x.shape[1] + 4) * np.finfo(np.float64).eps
    squared[squared <= sizes] = 0.0
    return squared
