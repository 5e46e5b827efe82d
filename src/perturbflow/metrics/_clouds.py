"""Energy distance and MMD of many predictions against the same real cells, in one pass over the pairs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perturbflow.metrics._energy import SHORTEST
from perturbflow.metrics._mmd import bandwidths_of, median_bandwidths
from perturbflow.metrics._samples import MOST_CELLS_KEPT, Sample, blocks_between


@dataclass(frozen=True)
class CloudScores:
    """Comparison of a predicted cloud with real cells.

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
    """Real cells, at least two, that predictions are compared with."""

    def __init__(self, cells: Sample) -> None:
        self._cells = cells
        # Each default bandwidth is half the next: every kernel value is a power of that of the widest.
        if len(cells) <= MOST_CELLS_KEPT:
            bandwidths = bandwidths_of(np.sqrt(cells.within[np.triu_indices(len(cells), k=1)]))
        else:
            bandwidths = median_bandwidths(cells.cells)
        self._precision = np.float32(-0.5 / bandwidths[-1] ** 2)
        _, distances, kernel = self._means(cells, cells)
        self._factor = len(distances) / (len(distances) - 1)
        self._distances, self._kernel = distances * self._factor, (kernel - 1 / len(distances)) * self._factor

    def scores(self, x: Sample, again: Sample | None = None) -> CloudScores:
        """Compare a prediction, or two of the same source cells (see :func:`energy_distance_to`)."""
        between = [self._means(one, self._cells) for one in dict.fromkeys((x, again or x))]
        from_each = np.mean([one for one, _, _ in between], axis=0)
        distances = np.mean([one for _, one, _ in between], axis=0)
        kernel = float(np.mean([one for _, _, one in between]))
        n_cells = len(x)
        rows, columns, own_kernel = self._means(x, again or x)
        if again is None or again is x:
            within_each = rows
            own_kernel -= 1 / n_cells
        else:
            same = np.square(x.centred - again.centred).sum(axis=1)
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

    def _means(self, x: Sample, y: Sample) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
        """Mean distance of each of ``x`` (n,) and of each of ``y`` (m,), and mean of the kernel over all pairs."""
        from_x, from_y, kernel = np.zeros(len(x)), np.zeros(len(y)), 0.0
        for rows, columns, distances in blocks_between(x, y):
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


def energy_distance_of(x: Sample, y: Sample) -> float:
    """Energy distance of two samples, as :func:`energy_distance`, unbiased."""
    return float(2.0 * x.distances_to(y).mean() - x.mean_distance - y.mean_distance)
