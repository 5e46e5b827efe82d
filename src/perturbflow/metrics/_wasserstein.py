"""Wasserstein distances in one dimension: of every gene, and of random projections.

In one dimension the distance is that of the sorted values: ``W_p^p = integral over u in (0, 1) of |F^-1(u) - G^-1(u)|^p``
with the quantile functions, which are steps at multiples of 1/n and 1/m. The steps are the same for all genes, so all
are compared at once, whatever the two numbers of cells.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from perturbflow._checks import check_whole_number
from perturbflow.metrics._cells import Cells, check_samples
from perturbflow.metrics._families import of_cells

BLOCK_BYTES = 2**20  # of differences: what stays in the cache
N_PROJECTIONS = 100


@of_cells
def wasserstein_of_genes(x: Cells, y: Cells) -> float:
    """Mean over genes of the Wasserstein distance between predicted and real values of a gene.

    ``mean over genes of W_1(x_g, y_g)``, ``W_1 = integral of |F_x(t) - F_y(t)| dt`` with the distribution functions.

    *Direction*: lower is better. *Range*: 0 to infinity, in the units of expression; 0 only if every gene has the same
    values in both samples.

    *Weakness*: says nothing about dependence between genes. The distance between two samples of one distribution is not 0 but
    of the order of the standard deviation times ``sqrt(1/n + 1/m)``, so conditions with few cells look worse, a
    prediction with more cells scores better, and most of the value can be sampling noise: compare it with that of two
    halves of the reference cells.

    Notes
    -----
    Exact, in O((n + m) G log(n + m)) time. Sparse cells are made dense some genes at a time.

    References
    ----------
    Ramdas, García Trillos and Cuturi (2017), On Wasserstein two-sample testing and related families of nonparametric
    tests. *Entropy* 19, 47.

    Examples
    --------
    >>> wasserstein_of_genes(np.array([[0.0, 1.0], [2.0, 1.0]]), np.array([[3.0, 1.0]]))
    1.0
    """
    x, y = check_samples(x=x, y=y)
    total, size = 0.0, max(1, 32 * BLOCK_BYTES // (8 * (x.shape[0] + y.shape[0])))
    for start in range(0, x.shape[1], size):
        genes = slice(start, start + size)
        total += sum_of_distances(*(sorted_by_gene(_dense(cells[:, genes])) for cells in (x, y)))
    return total / x.shape[1]


@of_cells
def sliced_wasserstein(x: Cells, y: Cells, *, n_projections: int = N_PROJECTIONS, seed: int = 0) -> float:
    """Sliced Wasserstein distance of order 2 between two samples of cells.

    ``sqrt( mean over directions of W_2(x w, y w)^2 )`` with directions w uniform on the sphere.

    *Direction*: lower is better. *Range*: 0 to infinity, in the units of expression. For a shift of all cells by d it
    is about ``|d| / sqrt(G)``: a root mean square over genes, not a distance between cells.

    *Weakness*: in many dimensions nearly all projections are sums over all genes and close to normal, so it sees
    little but means and variances of such sums, and hardly the dependence between genes. Two samples of one distribution are at
    a distance of the order of ``(1/n + 1/m)^(1/2)`` times the spread, not at 0: compare it with two halves of the
    reference cells. It depends on the directions, with a relative error of about ``1 / sqrt(n_projections)``: compare
    predictions with the same seed.

    Parameters
    ----------
    n_projections
        Number of directions.
    seed
        Of the directions, which depend on it and on the number of genes alone.

    References
    ----------
    Bonneel et al. (2015), Sliced and Radon Wasserstein barycenters of measures. *J. Math. Imaging Vis.* 51, 22-45.

    Examples
    --------
    >>> sliced_wasserstein(np.array([[0.0], [1.0]]), np.array([[3.0], [5.0]])).__round__(4)
    3.5355
    """
    check_whole_number(n_projections, name="n_projections", least=1)
    x, y = check_samples(x=x, y=y)
    directions = directions_of(x.shape[1], n_projections, seed)
    return root_mean_square_distance(*(np.sort(np.asarray(cells @ directions).T, axis=1) for cells in (x, y)))


@lru_cache(maxsize=2)
def directions_of(n_genes: int, n_projections: int, seed: int) -> NDArray[np.float64]:
    """Directions that are uniform on the sphere (G, K)."""
    directions = np.random.default_rng(seed).normal(size=(n_genes, n_projections))
    directions /= np.linalg.norm(directions, axis=0)
    directions.flags.writeable = False
    return directions


def sorted_by_gene(cells: NDArray[np.floating]) -> NDArray[np.floating]:
    """Values of every gene, ascending (n, G)."""
    # Sorted where they lie side by side, and then again row by row: rows of equal rank are compared as a whole.
    return np.ascontiguousarray(np.sort(np.ascontiguousarray(cells.T), axis=1).T)


def sum_of_distances(x: NDArray[np.floating], y: NDArray[np.floating]) -> float:
    """Sum over genes of the distances of order 1 of sorted values (n, G) and (m, G)."""
    steps, total, kind = _Steps(len(x), len(y)), 0.0, np.result_type(x, y, np.float32)
    size = max(1, BLOCK_BYTES // (8 * x.shape[1]))
    for start in range(0, len(steps.widths), size):
        part = slice(start, start + size)
        differences = np.subtract(x[steps.rank_x[part]], y[steps.rank_y[part]], dtype=kind)
        total += float(steps.widths[part] @ np.abs(differences, out=differences).sum(axis=1, dtype=np.float64))
    return total


def root_mean_square_distance(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Root mean square over rows of the distances of order 2 of sorted values (K, n) and (K, m)."""
    steps = _Steps(x.shape[1], y.shape[1])
    return float(np.sqrt((np.square(x[:, steps.rank_x] - y[:, steps.rank_y]) @ steps.widths).mean()))


class _Steps:
    """Intervals on which the quantile functions of samples of n and m values are both constant."""

    def __init__(self, n: int, m: int) -> None:
        # In units of 1 / (n m), so that common steps are found exactly.
        ends = np.union1d(np.arange(1, n + 1) * m, np.arange(1, m + 1) * n)
        starts = np.concatenate([[0], ends[:-1]])
        self.widths: NDArray[np.float64] = (ends - starts) / (n * m)
        self.rank_x, self.rank_y = starts // m, starts // n


def _dense(cells: Cells) -> NDArray[np.floating]:
    return cells if isinstance(cells, np.ndarray) else cells.toarray()
