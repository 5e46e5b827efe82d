"""Test whether two samples of cells can be told apart at all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEVEL_QUANTILE = 1.645  # of the normal distribution: one-sided, 5 %


@dataclass(frozen=True)
class EnergyTest:
    """Result of :func:`energy_test_of`.

    Attributes
    ----------
    energy_distance
        Unbiased energy distance of the two samples.
    p_value
        Share of permutations, the observed one among them, with at least this distance.
    null_sd
        Standard deviation of the distance over permutations.

    Examples
    --------
    >>> found = EnergyTest(energy_distance=0.1, p_value=0.2, null_sd=0.1)
    >>> found.cells_needed(50)  # 50 * 1.645 * 0.1 / 0.1
    83.0
    """

    energy_distance: float
    p_value: float
    null_sd: float

    def cells_needed(self, n_cells: int) -> float:
        """Number of cells at which a true distance of this size would be told from 0 (one-sided 5 % level).

        The standard deviation of the distance falls as one over the number of cells where there is no difference, so
        that ``n 1.645 sd / distance`` cells are about enough.

        Parameters
        ----------
        n_cells
            Number of cells that the test had.

        Returns
        -------
        The number, infinite where the distance is not positive.
        """
        if self.energy_distance <= 0:
            return float("inf")
        return float(np.ceil(n_cells * LEVEL_QUANTILE * self.null_sd / self.energy_distance))


def energy_test_of(
    distances: NDArray[np.float64], n: int, *, n_permutations: int, rng: np.random.Generator
) -> EnergyTest:
    """Test whether the first ``n`` cells and the others are of one distribution, by permuting which sample a cell is of.

    ::

        p = (1 + #{permutations with E* >= E(x, y)}) / (1 + number of permutations)

    with the unbiased energy distance E. The p-value is exact: under exchangeability it is at most ``a`` with probability
    at most ``a``, whatever the distribution, the number of genes and the number of cells (Székely and Rizzo 2004, *InterStat* 5).

    Parameters
    ----------
    distances
        Distances between all cells of both samples (n + m, n + m).
    n
        Number of cells of the first.
    n_permutations
        Number of permutations, at least 19 to reach 5 %.
    rng
        Random generator.

    Returns
    -------
    Distance, p-value and standard deviation of the distance under permutation.
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
