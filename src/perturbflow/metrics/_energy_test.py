"""Test whether two samples of cells can be told apart at all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
