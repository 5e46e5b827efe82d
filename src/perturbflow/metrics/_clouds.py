"""Energy distance and MMD of many predictions against the same real cells, in one pass over the pairs.

Products are in float32: values are off by some 1e-6 of the mean distance from those of :func:`energy_distance`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perturbflow.metrics._cells import Cells, check_cells, check_predictions, gene_means
from perturbflow.metrics._distances import squared_distances_of_rows
from perturbflow.metrics._mmd import median_bandwidths
from perturbflow.metrics._perturbench_energy import SHORTEST

BLOCK = 1024
ROUNDING = np.float32(8 * np.finfo(np.float32).eps)  # what rounding leaves of equal cells, next to their size


@dataclass(frozen=True)
class CloudScores:
    """How a predicted cloud compares with real cells.

    Attributes
    ----------
    energy_distance, mmd
        As :func:`energy_distance` and :func:`mmd`, unbiased.
    energy_loss
        As :func:`energy_loss`.
    energy_scores
        Energy score of every real cell, ``mean_i |x_i - y_j| - E|X - X'| / 2`` (m,). It is proper (Gneiting and Raftery
        2007), and twice its mean is the energy distance plus what the real cells alone decide: differences between
        models are means over cells.
    sampling_variance
        Variance that the finite number of predicted cells gives the energy distance, ``4 var_i(mean_j |x_i - y_j| - mean_k
        |x_i - x_k|) / n``, the first term of its Hoeffding decomposition.
    """

    energy_distance: float
    mmd: float
    energy_loss: float
    energy_scores: NDArray[np.float64]
    sampling_variance: float


class Cloud:
    """Real cells that predictions are compared with.

    Parameters
    ----------
    cells
        Real cells (m, G), at least two.
    """

    def __init__(self, cells: Cells) -> None:
        self._cells = check_cells(cells, name="y", minimum=2)
        self._centre = gene_means(self._cells, name="y")
        self._centred = _Centred.of(self._cells, self._centre)
        # Each default bandwidth is half the next: every kernel value is a power of that of the widest.
        self._precision = np.float32(-0.5 / median_bandwidths(self._cells)[-1] ** 2)
        _, distances, kernel = self._means(self._centred, self._centred)
        self._factor = len(distances) / (len(distances) - 1)
        self._distances, self._kernel = distances * self._factor, (kernel - 1 / len(distances)) * self._factor

    def scores(self, x: Cells, again: Cells | None = None) -> CloudScores:
        """Compare a prediction, or two of the same source cells (see :func:`energy_distance_to`).

        Parameters
        ----------
        x
            Predicted cells (n, G), at least two.
        again
            A second prediction from the same source cells.

        Returns
        -------
        The scores.
        """
        predictions = check_predictions(x, again, self._cells, minimum=2)
        centred = [_Centred.of(prediction, self._centre) for prediction in predictions]
        between = [self._means(one, self._centred) for one in centred]
        from_each = np.mean([one for one, _, _ in between], axis=0)
        distances = np.mean([one for _, one, _ in between], axis=0)
        kernel = float(np.mean([one for _, _, one in between]))
        n_cells = x.shape[0]
        if again is None:
            within_each, _, own_kernel = self._means(centred[0], centred[0])
            own_kernel -= 1 / n_cells
        else:
            rows, columns, own_kernel = self._means(*centred)
            same = squared_distances_of_rows(x, again)
            within_each = (rows + columns) / 2 - np.sqrt(same) / n_cells
            own_kernel -= self._kernel_sum(same) / n_cells**2
        factor = n_cells / (n_cells - 1)
        itself = SHORTEST / 2 * (1 / n_cells + 1 / len(self._distances))  # what geomloss has for a cell and itself
        own_distance = within_each.mean() * factor
        return CloudScores(
            float(2.0 * distances.mean() - own_distance - self._distances.mean()),
            float(own_kernel * factor + self._kernel - 2.0 * kernel),
            float(distances.mean() - own_distance / factor / 2 - self._distances.mean() / self._factor / 2 - itself),
            distances - own_distance / 2,
            float(4.0 * (from_each - within_each * factor).var(ddof=1) / n_cells),
        )

    def own_scores(self) -> NDArray[np.float64]:
        """Energy scores (m,) of every real cell under the others: what a perfect prediction gets."""
        return self._distances - self._distances.mean() / 2

    def _means(self, x: _Centred, y: _Centred) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
        """Mean distance of each of ``x`` (n,) and of each of ``y`` (m,), and mean of the kernel over all pairs."""
        from_x, from_y, kernel = np.zeros(len(x.cells)), np.zeros(len(y.cells)), 0.0
        for first in range(0, len(from_x), BLOCK):
            rows = slice(first, first + BLOCK)
            for start in range(0, len(from_y), BLOCK):
                columns = slice(start, start + BLOCK)
                distances = _squared_distances(x, rows, y, columns)
                kernel += self._kernel_sum(distances)
                np.sqrt(distances, out=distances)
                from_y[columns] += distances.sum(axis=0, dtype=np.float64)
                from_x[rows] += distances.sum(axis=1, dtype=np.float64)
        return from_x / len(from_y), from_y / len(from_x), kernel / (len(from_x) * len(from_y))

    def _kernel_sum(self, squared: NDArray[np.floating]) -> float:
        power, total = squared * self._precision, 0.0
        np.exp(power, out=power)
        for k in range(5):
            total += float(power.sum(dtype=np.float64))
            if k < 4:  # half the bandwidth is the fourth power
                np.square(power, out=power)
                np.square(power, out=power)
        return total / 5


@dataclass(frozen=True)
class _Centred:
    """Cells minus the centre of the real ones (n, G), and their squared lengths (n,)."""

    cells: NDArray[np.float32]
    squares: NDArray[np.float32]

    @classmethod
    def of(cls, cells: Cells, centre: NDArray[np.float64]) -> _Centred:
        dense = cells if isinstance(cells, np.ndarray) else cells.toarray()
        centred = dense - centre
        return cls(centred.astype(np.float32), np.einsum("ng,ng->n", centred, centred).astype(np.float32))


def _squared_distances(x: _Centred, rows: slice, y: _Centred, columns: slice) -> NDArray[np.float32]:
    sizes = np.add.outer(x.squares[rows], y.squares[columns])
    squared = x.cells[rows] @ y.cells[columns].T
    squared *= -2.0
    squared += sizes
    sizes *= ROUNDING
    squared[squared <= sizes] = 0.0
    return squared
