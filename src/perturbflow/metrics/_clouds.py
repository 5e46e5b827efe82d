"""Energy distance and MMD of many predictions against the same real cells, in one pass over the pairs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perturbflow.metrics._cells import Cells, check_cells, check_predictions, gene_means
from perturbflow.metrics._distances import pair_blocks, squared_distances_of_rows
from perturbflow.metrics._mmd import median_bandwidths


@dataclass(frozen=True)
class CloudScores:
    """How a predicted cloud compares with real cells.

    Attributes
    ----------
    energy_distance, mmd
        As :func:`energy_distance` and :func:`mmd`, unbiased.
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
        # Each default bandwidth is half the next: every kernel value is a power of that of the widest.
        self._precision = 0.5 / median_bandwidths(self._cells)[-1] ** 2
        _, distances, kernel = self._means(self._cells, self._cells)
        factor = len(distances) / (len(distances) - 1)
        self._distances, self._kernel = distances * factor, (kernel - 1 / len(distances)) * factor

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
        between = [self._means(prediction, self._cells) for prediction in predictions]
        from_each = np.mean([one for one, _, _ in between], axis=0)
        distances = np.mean([one for _, one, _ in between], axis=0)
        kernel = float(np.mean([one for _, _, one in between]))
        n_cells = x.shape[0]
        if again is None:
            within_each, _, own_kernel = self._means(x, x)
            own_kernel -= 1 / n_cells
        else:
            rows, columns, own_kernel = self._means(x, again)
            same = squared_distances_of_rows(x, again)
            within_each = (rows + columns) / 2 - np.sqrt(same) / n_cells
            own_kernel -= self._kernel_sum(same) / n_cells**2
        factor = n_cells / (n_cells - 1)
        own_distance = within_each.mean() * factor
        return CloudScores(
            float(2.0 * distances.mean() - own_distance - self._distances.mean()),
            float(own_kernel * factor + self._kernel - 2.0 * kernel),
            distances - own_distance / 2,
            float(4.0 * (from_each - within_each * factor).var(ddof=1) / n_cells),
        )

    def own_scores(self) -> NDArray[np.float64]:
        """Energy scores (m,) of every real cell under the others: what a perfect prediction gets."""
        return self._distances - self._distances.mean() / 2

    def _means(self, x: Cells, y: Cells) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
        """Mean distance of each of ``x`` (n,) and of each of ``y`` (m,), and mean of the kernel over all pairs."""
        from_x, from_y, kernel, first = np.zeros(x.shape[0]), np.zeros(y.shape[0]), 0.0, 0
        for rows, squared in pair_blocks(x, y, centre=self._centre):
            kernel += self._kernel_sum(squared)
            distances = np.sqrt(squared, out=squared)
            from_y[rows] += distances.sum(axis=0)
            from_x[first : first + len(squared)] += distances.sum(axis=1)
            first += len(squared) if rows.stop == y.shape[0] else 0
        return from_x / y.shape[0], from_y / x.shape[0], kernel / (x.shape[0] * y.shape[0])

    def _kernel_sum(self, squared: NDArray[np.float64]) -> float:
        power, total = np.exp(squared * -self._precision), 0.0
        for k in range(5):
            total += float(power.sum())
            if k < 4:  # half the bandwidth is the fourth power
                np.square(power, out=power)
                np.square(power, out=power)
        return total / 5
