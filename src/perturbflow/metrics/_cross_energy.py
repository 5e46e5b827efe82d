"""Energy distances of all predictions to all references at once.

Cells of many conditions are put side by side, so that one block of distances is of many pairs of conditions. Time is
O(N M G) for N predicted and M reference cells in all; cells that stand for several conditions, one and the same array,
count once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from perturbflow.metrics._distances import Centred, block_size, mean_within, pair_blocks
from perturbflow.metrics._energy import root


def cross_energy(
    predicted: Sequence[NDArray[np.floating]], observed: Sequence[NDArray[np.floating]], *, unbiased: bool = True
) -> NDArray[np.float64]:
    """Return the energy distances (P, Q) of every prediction, a row, to every reference; see :func:`energy_distance`.

    Their normalised rank is that of the energy distance, and with ``unbiased=False`` PerturBench's rank of its "MMD".
    """
    (predicted, of_x), (observed, of_y) = _distinct(predicted), _distinct(observed)
    centre = np.mean([cells.mean(axis=0, dtype=np.float64) for cells in observed], axis=0)
    within_x, within_y = (
        np.array([mean_within(root, cells, centre=centre, unbiased=unbiased) for cells in conditions])
        for conditions in (predicted, observed)
    )
    between = _mean_distances(predicted, observed, centre)
    return (2.0 * between - within_x[:, None] - within_y[None, :])[np.ix_(of_x, of_y)]


def _mean_distances(
    predicted: list[NDArray[np.floating]], observed: list[NDArray[np.floating]], centre: NDArray[np.float64]
) -> NDArray[np.float64]:
    sizes = [np.array([len(cells) for cells in conditions]) for conditions in (predicted, observed)]
    of_x, of_y = (np.repeat(np.arange(len(size)), size) for size in sizes)
    x, y = (np.concatenate(conditions) for conditions in (predicted, observed))
    total = np.zeros((len(predicted), len(observed)))
    pairs = pair_blocks(Centred(x, centre), Centred(y, centre), block_cells=block_size(x))
    for rows, columns, squared in pairs:
        own_x, own_y = of_x[rows], of_y[columns]
        first_x, first_y = (np.flatnonzero(np.diff(own, prepend=-1)) for own in (own_x, own_y))
        by_row = np.add.reduceat(np.sqrt(squared, out=squared), first_y, axis=1)
        total[np.ix_(own_x[first_x], own_y[first_y])] += np.add.reduceat(by_row, first_x, axis=0)
    return total / np.outer(*sizes)


def _distinct(
    conditions: Sequence[NDArray[np.floating]],
) -> tuple[list[NDArray[np.floating]], list[int]]:
    """Arrays that are not one and the same, and which of them each is."""
    first = {id(cells): cells for cells in conditions}
    place = {key: k for k, key in enumerate(first)}
    return list(first.values()), [place[id(cells)] for cells in conditions]
