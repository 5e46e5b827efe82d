"""Whether two samples of cells can be told apart at all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perturbflow.metrics._cells import Cells, check_cells, check_same_genes, gene_means
from perturbflow.metrics._distances import pair_blocks
from perturbflow.screen._named_arrays import by_name

LEVEL_QUANTILE = 1.645  # of the normal law: one-sided, 5 %


@dataclass(frozen=True)
class EnergyTest:
    """Result of :func:`energy_test`.

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
    >>> import perturbflow as pf
    >>> found = pf.metrics.EnergyTest(energy_distance=0.1, p_value=0.2, null_sd=0.1)
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


@by_name("genes", of=("x", "y"))
def energy_test(x: Cells, y: Cells, *, n_permutations: int = 200, rng: np.random.Generator) -> EnergyTest:
    """Test whether two samples of cells are of one law, by permuting which sample a cell belongs to.

    ::

        p = (1 + #{permutations with E* >= E(x, y)}) / (1 + number of permutations)

    with the unbiased energy distance E. The p-value is exact: under exchangeability it is at most ``a`` with
    probability at most ``a``, whatever the law, the number of genes and the number of cells.

    *Weakness*: sees what the energy distance sees; needs all distances at once (8 bytes a pair of cells).

    Parameters
    ----------
    x, y
        Cells (n, G) and (m, G), at least two of each.
    n_permutations
        Number of permutations, at least 19 to reach 5 %.
    rng
        Random generator.

    Returns
    -------
    Distance, p-value and standard deviation of the distance under permutation.

    Raises
    ------
    ValueError
        If shapes disagree, values are not finite, or there are too few cells or permutations.

    References
    ----------
    Székely and Rizzo (2004), Testing for equal distributions in high dimension. *InterStat* 5.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> found = energy_test(rng.normal(size=(20, 3)), rng.normal(2.0, size=(20, 3)), rng=rng)
    >>> round(found.p_value, 3)
    0.005
    """
    if n_permutations < 1:
        msg = f"Expected at least 1 permutation, found {n_permutations}."
        raise ValueError(msg)
    x, y = check_cells(x, name="x", minimum=2), check_cells(y, name="y", minimum=2)
    check_same_genes(x=x, y=y)
    gene_means(x, name="x")
    n, m, centre = x.shape[0], y.shape[0], gene_means(y, name="y")
    distances = np.zeros((n + m, n + m))
    parts = ((x, x, 0, 0), (x, y, 0, n), (y, y, n, n))
    for one, other, row, column in parts:
        distances[row : row + one.shape[0], column : column + other.shape[0]] = _distances(one, other, centre)
    distances[n:, :n] = distances[:n, n:].T
    return energy_test_of(distances, n, n_permutations=n_permutations, rng=rng)


def energy_test_of(
    distances: NDArray[np.float64], n: int, *, n_permutations: int, rng: np.random.Generator
) -> EnergyTest:
    """Test the first ``n`` cells against the others, given the distances of all (n + m, n + m)."""
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


def _distances(x: Cells, y: Cells, centre: NDArray[np.float64]) -> NDArray[np.float64]:
    found = np.zeros((x.shape[0], y.shape[0]))
    first = 0
    for rows, squared in pair_blocks(x, y, centre=centre):
        found[first : first + len(squared), rows] = np.sqrt(squared)
        if rows.stop == y.shape[0]:
            first += len(squared)
    return found
