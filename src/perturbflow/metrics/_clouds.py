"""Energy distance and MMD of many predictions against the same real cells, and a test whether cells differ at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perturbflow.metrics._distances import as_array, exp, root, sums
from perturbflow.metrics._energy import SHORTEST, bandwidths_of, median_bandwidths
from perturbflow.metrics._samples import MOST_CELLS_KEPT, Sample, blocks_between


@dataclass(frozen=True)
class CloudScores:
    """Comparison of a predicted cloud with real cells; distances as the metrics of the same names, unbiased.

    The energy score of a real cell, ``mean_i |x_i - y_j| - E|X - X'| / 2``, is proper (Gneiting and Raftery 2007), and twice
    its mean is the energy distance plus what the real cells alone decide: differences between models are means over cells.
    The sampling variance, ``4 var_i(mean_j |x_i - y_j| - mean_k |x_i - x_k|) / n``, is the first term of the Hoeffding
    decomposition.
    """

    energy_distance: float
    mmd: float
    energy_loss: float
    energy_scores: NDArray[np.float64]  # of every real cell (m,)
    sampling_variance: float  # of the energy distance, by the number of predicted cells


class Cloud:
    """Real cells, at least two, that predictions are compared with."""

    def __init__(self, cells: Sample) -> None:
        self._cells = cells
        # Each default bandwidth is half the next: every kernel value is a power of that of the widest.
        self._precision = float(np.float32(-0.5 / _widest(cells) ** 2))
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
        for rows, columns, squared in blocks_between(x, y):
            kernel += self._kernel_sum(squared)
            distances = root(squared)
            from_y[columns] += sums(distances, 0)
            from_x[rows] += sums(distances, 1)
        return from_x / len(from_y), from_y / len(from_x), kernel / (len(from_x) * len(from_y))

    def _kernel_sum(self, squared: Any) -> float:
        power, total = exp(squared * self._precision), 0.0
        for k in range(5):
            total += float(sums(power))
            if k < 4:  # half the bandwidth is the fourth power
                power *= power
                power *= power
        return total / 5


def _widest(cells: Sample) -> float:
    """Widest of the default bandwidths; NaN, and MMD with it, if most cells are equal, as where few genes are measured."""
    try:
        if len(cells) > MOST_CELLS_KEPT:
            return float(median_bandwidths(cells.cells)[-1])
        return float(bandwidths_of(np.sqrt(as_array(cells.within)[np.triu_indices(len(cells), k=1)]))[-1])
    except ValueError:
        return np.nan


def energy_distance_of(x: Sample, y: Sample) -> float:
    """Energy distance of two samples, as :func:`energy_distance`, unbiased."""
    return float(2.0 * x.distances_to(y).mean() - x.mean_distance - y.mean_distance)


LEVEL_QUANTILE = 1.645  # of the normal distribution: one-sided, 5 %


@dataclass(frozen=True)
class EnergyTest:
    """Result of :func:`energy_test_of`: unbiased energy distance, p-value, and standard deviation over permutations."""

    energy_distance: float
    p_value: float
    null_sd: float

    def cells_needed(self, n_cells: int) -> float:
        """Number of cells at which a true distance of this size would be told from 0 (one-sided 5 % level), of a test of n cells.

        The standard deviation of the distance falls as one over the number of cells where there is no difference, so
        that ``n 1.645 sd / distance`` cells are about enough; infinite where the distance is not positive.
        """
        if self.energy_distance <= 0:
            return float("inf")
        return float(np.ceil(n_cells * LEVEL_QUANTILE * self.null_sd / self.energy_distance))


def energy_test_of(
    distances: NDArray[np.float64], n: int, *, n_permutations: int, rng: np.random.Generator
) -> EnergyTest:
    """Test whether the first ``n`` cells and the others are of one distribution, by permuting which sample a cell is of.

    ``p = (1 + #{permutations with E* >= E(x, y)}) / (1 + number of permutations)`` with the unbiased energy distance E of all
    ``distances`` (n + m, n + m). The p-value is exact: under exchangeability it is at most ``a`` with probability
    at most ``a``, whatever the distribution, the number of genes and the number of cells (Székely and Rizzo 2004, *InterStat* 5).
    """
    m = len(distances) - n
    member = np.zeros((n_permutations + 1, n + m))
    member[0, :n] = 1.0
    for row in member[1:]:
        row[rng.permutation(n + m)[:n]] = 1.0
    from_first = member @ distances
    total = distances.sum()
    within_x = np.einsum("pi,pi->p", from_first, member)
    between = from_first.sum(axis=1) - within_x
    within_y = total - within_x - 2.0 * between
    values = 2.0 * between / (n * m) - within_x / (n * (n - 1)) - within_y / (m * (m - 1))
    # The order of summation must not decide between equal values.
    reached = values[1:] >= values[0] - 1e-12 * abs(distances).max()
    return EnergyTest(float(values[0]), float((1 + reached.sum()) / (1 + n_permutations)), float(values[1:].std()))
