"""Energy distances of all predictions to all references at once.

Most of the work is the distances between n predicted and m reference cells of every pair of conditions. Cells of many
conditions are put side by side, so that one matrix product gives the inner products of thousands of pairs of cells. The
products are in float32, all sums in float64: with centred cells the error of a squared distance is about ``1e-7`` of
the squared norms, of either sign, and averages out over the pairs. Where that is not small beside the squared distance
itself (equal cells, tight groups far from the centre), it is computed again in float64.

Time is O(N M G) for N predicted and M reference cells in all. Memory is two blocks of cells and their products.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perturbflow.metrics._cells import Cells, check_cells, gene_means
from perturbflow.metrics._distances import _centred, _squared_distances
from perturbflow.metrics._perturbench_energy import mean_distance_within

BLOCK_CELLS = 2048
BLOCK_BYTES = 64 * 2**20
CLOSE = 1e-2  # of the squared norms; below, float32 leaves fewer than five digits of a squared distance
MAX_SHARE_CLOSE = 0.05


def cross_energy(
    predicted: Sequence[Cells], observed: Sequence[Cells], *, unbiased: bool = True
) -> NDArray[np.float64]:
    """Energy distance of every prediction to every reference.

    ::

        E_ij = 2 E|X_i - Y_j| - E|X_i - X_i'| - E|Y_j - Y_j'|

    with Euclidean distances between cells; see :func:`energy_distance`. :func:`normalised_rank` of it is the rank of
    the energy distance, and of half of it with ``unbiased=False`` PerturBench's rank of its "MMD".

    *Direction*: lower is better. *Range*: that of :func:`energy_distance`.

    *Weakness*: that of :func:`energy_distance`. With ``unbiased=False`` a prediction with few cells is far from all
    references, so ranks depend on the numbers of cells.

    Parameters
    ----------
    predicted
        Predicted cells of every condition, each (n_i, G).
    observed
        Reference cells of every condition, each (m_j, G), same genes and scale.
    unbiased
        Average over pairs of different cells.

    Returns
    -------
    Energy distances (P, Q): row i is the prediction for condition i, column j the reference of condition j.

    Raises
    ------
    ValueError
        If there is no condition, shapes disagree, values are not finite, or the unbiased estimate is asked of a single
        cell.

    Notes
    -----
    Agrees with :func:`energy_distance` to about 1e-7 of the mean distance between cells.

    References
    ----------
    Székely and Rizzo (2013), Energy statistics: a class of statistics based on distances. *J. Stat. Plan. Inference*
    143, 1249-1272.

    Examples
    --------
    >>> import numpy as np
    >>> a, b = np.zeros((3, 2)), np.array([[3.0, 4.0], [3.0, 4.0]])
    >>> cross_energy([a, b], [a, b])
    array([[ 0., 10.],
           [10.,  0.]])
    """
    minimum = 2 if unbiased else 1
    predicted = _check_conditions(predicted, name="predicted", minimum=minimum)
    observed = _check_conditions(observed, name="observed", minimum=minimum)
    centre = _common_centre(predicted, observed)
    between = _mean_distances(predicted, observed, centre=centre)
    within_x, within_y = (
        np.array([mean_distance_within(cells, centre=centre, unbiased=unbiased) for cells in conditions])
        for conditions in (predicted, observed)
    )
    return 2.0 * between - within_x[:, None] - within_y[None, :]


def mean_distances(predicted: Sequence[Cells], observed: Sequence[Cells]) -> NDArray[np.float64]:
    """Mean Euclidean distance (P, Q) between the cells of every prediction and those of every reference."""
    predicted = _check_conditions(predicted, name="predicted", minimum=1)
    observed = _check_conditions(observed, name="observed", minimum=1)
    return _mean_distances(predicted, observed, centre=_common_centre(predicted, observed))


@dataclass(frozen=True)
class _Block:
    """Cells of several conditions side by side."""

    conditions: list[int]
    slices: list[slice]  # rows of the block that belong to each of them
    cells: NDArray[np.float64]
    single: NDArray[np.float32]
    squares: NDArray[np.float32]


def _mean_distances(
    predicted: Sequence[Cells], observed: Sequence[Cells], *, centre: NDArray[np.float64]
) -> NDArray[np.float64]:
    total = np.zeros((len(predicted), len(observed)))
    room = np.empty(
        _block_cells(len(centre)) ** 2, dtype=np.float32
    )  # new memory for each would cost as much as they do
    for block_x in _blocks(predicted, centre):
        for block_y in _blocks(observed, centre):
            shape = len(block_x.cells), len(block_y.cells)
            products = np.matmul(block_x.single, block_y.single.T, out=room[: shape[0] * shape[1]].reshape(shape))
            for i, rows_x in zip(block_x.conditions, block_x.slices, strict=True):
                for j, rows_y in zip(block_y.conditions, block_y.slices, strict=True):
                    total[i, j] += _distance_sum(products[rows_x, rows_y], block_x, rows_x, block_y, rows_y)
    n_pairs = np.outer([cells.shape[0] for cells in predicted], [cells.shape[0] for cells in observed])
    return total / n_pairs


def _distance_sum(
    products: NDArray[np.float32], block_x: _Block, rows_x: slice, block_y: _Block, rows_y: slice
) -> float:
    """Sum of the distances between the cells of one condition in a block and those of one in another.

    ``products`` are their inner products, and are overwritten.
    """
    squares_x, squares_y = block_x.squares[rows_x], block_y.squares[rows_y]
    squared = products
    squared *= -2.0
    squared += squares_x[:, None]
    squared += squares_y
    if squared.min() < CLOSE * (squares_x.max() + squares_y.max()):
        close_x, close_y = np.nonzero(squared <= CLOSE * np.add.outer(squares_x, squares_y))
        cells_x, cells_y = block_x.cells[rows_x], block_y.cells[rows_y]
        if len(close_x) > MAX_SHARE_CLOSE * squared.size:
            return float(np.sqrt(_squared_distances(cells_x, cells_y)).sum())
        difference = cells_x[close_x] - cells_y[close_y]
        squared[close_x, close_y] = np.einsum("ig,ig->i", difference, difference)
    # Short sums over rows in float32, which NumPy halves recursively, and the sum of those in float64.
    return float(np.sqrt(squared, out=squared).sum(axis=1).sum(dtype=np.float64))


def _blocks(conditions: Sequence[Cells], centre: NDArray[np.float64]) -> Iterator[_Block]:
    """Cells of all conditions in order, about ``BLOCK_CELLS`` at a time."""
    size = _block_cells(len(centre))
    parts: list[tuple[int, slice]] = []
    n_rows = 0
    for index, cells in enumerate(conditions):
        for start in range(0, cells.shape[0], size):
            rows = slice(start, min(start + size, cells.shape[0]))
            if n_rows + rows.stop - rows.start > size:
                yield _block(conditions, parts, centre)
                parts, n_rows = [], 0
            parts.append((index, rows))
            n_rows += rows.stop - rows.start
    yield _block(conditions, parts, centre)


def _block_cells(n_genes: int) -> int:
    return max(1, min(BLOCK_CELLS, BLOCK_BYTES // (8 * n_genes)))


def _block(conditions: Sequence[Cells], parts: list[tuple[int, slice]], centre: NDArray[np.float64]) -> _Block:
    cells = np.concatenate([_centred(conditions[index], rows, centre) for index, rows in parts])
    stops = np.cumsum([rows.stop - rows.start for _, rows in parts]).tolist()
    return _Block(
        conditions=[index for index, _ in parts],
        slices=[slice(start, stop) for start, stop in zip([0, *stops[:-1]], stops, strict=True)],
        cells=cells,
        single=cells.astype(np.float32),
        squares=np.einsum("ng,ng->n", cells, cells).astype(np.float32),
    )


def _check_conditions(conditions: Sequence[Cells], *, name: str, minimum: int) -> list[Cells]:
    if len(conditions) == 0:
        msg = f"Expected the cells of at least one condition in `{name}`, found none."
        raise ValueError(msg)
    return [check_cells(cells, name=f"{name}[{i}]", minimum=minimum) for i, cells in enumerate(conditions)]


def _common_centre(predicted: list[Cells], observed: list[Cells]) -> NDArray[np.float64]:
    """Mean of the means of the references; values and numbers of genes are checked on the way."""
    n_genes = observed[0].shape[1]
    means = []
    for name, conditions in (("observed", observed), ("predicted", predicted)):
        for i, cells in enumerate(conditions):
            if cells.shape[1] != n_genes:
                msg = f"Expected {n_genes} genes in `{name}[{i}]` as in `observed[0]`, found {cells.shape[1]}."
                raise ValueError(msg)
            means.append(gene_means(cells, name=f"{name}[{i}]"))
    return np.mean(means[: len(observed)], axis=0)
