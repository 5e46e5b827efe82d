"""Energy distances of all predictions to all references at once.

Most of the work is the distances between n predicted and m reference cells of every pair of conditions. Cells of many
conditions are put side by side, so that one matrix product gives the inner products of thousands of pairs of cells. The
products are in float32, sums over rows too, all others in float64: with centred cells the error of a squared distance is about ``1e-7`` of
the squared norms, of either sign, and averages out over the pairs. Where that is not small beside the squared distance
itself (equal cells, tight groups far from the centre), it is computed again in float64.

Time is O(N M G) for N predicted and M reference cells in all; cells that stand for several conditions, one and the
same array, count once. Memory is two blocks of cells and their products.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perturbflow.metrics._cells import Cells, check_cells, gene_means
from perturbflow.metrics._distances import _centred, _squared_distances
from perturbflow.metrics._perturbench_energy import mean_distance_within
from perturbflow.screen._named_arrays import aligned

PREDICTED_CELLS, OBSERVED_CELLS = 8192, 512  # of a block: the latter are prepared once for each of the former
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
    predicted, observed = _aligned(predicted, observed)
    predicted = _check_conditions(predicted, name="predicted", minimum=minimum)
    observed = _check_conditions(observed, name="observed", minimum=minimum)
    centre = _common_centre(predicted, observed)
    (predicted, of_x), (observed, of_y) = _distinct(predicted), _distinct(observed)
    between = _mean_distances(predicted, observed, centre=centre)
    within_x, within_y = (
        np.array([mean_distance_within(cells, centre=centre, unbiased=unbiased) for cells in conditions])
        for conditions in (predicted, observed)
    )
    return (2.0 * between - within_x[:, None] - within_y[None, :])[np.ix_(of_x, of_y)]


def mean_distances(predicted: Sequence[Cells], observed: Sequence[Cells]) -> NDArray[np.float64]:
    """Mean Euclidean distance (P, Q) between the cells of every prediction and those of every reference."""
    predicted = _check_conditions(predicted, name="predicted", minimum=1)
    observed = _check_conditions(observed, name="observed", minimum=1)
    return _mean_distances(predicted, observed, centre=_common_centre(predicted, observed))


def _distinct(conditions: Sequence[Cells]) -> tuple[list[Cells], list[int]]:
    """Arrays that are not one and the same, and which of them each is."""
    first = {id(cells): cells for cells in conditions}
    place = {key: k for k, key in enumerate(first)}
    return list(first.values()), [place[id(cells)] for cells in conditions]


@dataclass(frozen=True)
class _Block:
    """Cells of several conditions side by side, and where each begins."""

    conditions: list[int]
    starts: list[int]
    cells: NDArray[np.float64]
    squares: NDArray[np.float64]

    def factors(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Products of a left and a right one of two blocks are squared distances."""
        ones, squares = np.ones(len(self.cells)), self.squares
        sides = np.column_stack([-2.0 * self.cells, squares, ones]), np.column_stack([self.cells, ones, squares])
        left, right = (side.astype(np.float32) for side in sides)
        return left, right


def _mean_distances(
    predicted: Sequence[Cells], observed: Sequence[Cells], *, centre: NDArray[np.float64]
) -> NDArray[np.float64]:
    total = np.zeros((len(predicted), len(observed)))
    most_x, most_y = (_block_cells(len(centre), most) for most in (PREDICTED_CELLS, OBSERVED_CELLS))
    room = np.empty(most_x * most_y, dtype=np.float32)  # new memory for each would cost as much as they do
    for block_x in _blocks(predicted, centre, most_x):
        left, _ = block_x.factors()
        for block_y in _blocks(observed, centre, most_y):
            _, right = block_y.factors()
            shape = len(left), len(right)
            distances = np.matmul(left, right.T, out=room[: shape[0] * shape[1]].reshape(shape))
            _mend(distances, block_x, block_y)
            np.sqrt(distances, out=distances)
            # Short sums over rows in float32, which NumPy halves recursively, and the sums of those in float64.
            by_row = np.add.reduceat(distances, block_y.starts, axis=1)
            sums = np.add.reduceat(by_row, block_x.starts, axis=0, dtype=np.float64)
            total[np.ix_(block_x.conditions, block_y.conditions)] += sums
    n_pairs = np.outer([cells.shape[0] for cells in predicted], [cells.shape[0] for cells in observed])
    return total / n_pairs


def _mend(squared: NDArray[np.float32], x: _Block, y: _Block) -> None:
    """Compute squared distances that are not large beside the squared norms again, in place."""
    if squared.min() >= CLOSE * (x.squares.max() + y.squares.max()):
        return
    close_x, close_y = np.nonzero(squared <= CLOSE * np.add.outer(x.squares, y.squares))
    if len(close_x) > MAX_SHARE_CLOSE * squared.size:
        squared[:] = _squared_distances(x.cells, y.cells)
        return
    for start in range(0, len(close_x), OBSERVED_CELLS):
        here = close_x[start : start + OBSERVED_CELLS], close_y[start : start + OBSERVED_CELLS]
        difference = x.cells[here[0]] - y.cells[here[1]]
        squared[here] = np.einsum("ig,ig->i", difference, difference)


def _blocks(conditions: Sequence[Cells], centre: NDArray[np.float64], size: int) -> Iterator[_Block]:
    """Cells of all conditions in order, about ``size`` at a time."""
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


def _block_cells(n_genes: int, most: int) -> int:
    return max(1, min(most, BLOCK_BYTES // (8 * n_genes)))


def _block(conditions: Sequence[Cells], parts: list[tuple[int, slice]], centre: NDArray[np.float64]) -> _Block:
    members = [_centred(conditions[index], rows, centre) for index, rows in parts]
    starts = np.cumsum([0, *(len(one) for one in members[:-1])]).tolist()
    cells = np.concatenate(members)
    return _Block([index for index, _ in parts], starts, cells, np.einsum("ng,ng->n", cells, cells))


def _aligned(predicted: Sequence[Cells], observed: Sequence[Cells]) -> tuple[list[Cells], list[Cells]]:
    named = {
        f"{name}[{i}]": cells
        for name, conditions in (("predicted", predicted), ("observed", observed))
        for i, cells in enumerate(conditions)
    }
    found = aligned("genes", **named)
    return found[: len(predicted)], found[len(predicted) :]


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
