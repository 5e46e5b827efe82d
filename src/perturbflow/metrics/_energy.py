"""Energy distance between two samples of cells, and PerturBench's half of it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from perturbflow.metrics._cells import Cells
from perturbflow.metrics._distances import pair_means_to
from perturbflow.metrics._families import of_cells

SHORTEST = 1e-4


@of_cells
def energy_distance(x: Cells, y: Cells, *, again: Cells | None = None, unbiased: bool = True) -> float:
    """Energy distance between two samples of cells.

    ::

        E(x, y) = 2 E|X - Y| - E|X - X'| - E|Y - Y'|

    with Euclidean distances between cells in gene space. The unbiased estimate (U-statistic) averages the last two
    terms over pairs of different cells; the biased one (V-statistic) over all pairs, a cell with itself included.

    *Direction*: lower is better. *Range*: the population value is 0 for equal distributions and positive otherwise. The
    V-statistic is never negative, but for two samples of one distribution it is about ``E|X - X'| (1/n + 1/m)`` instead of 0, so
    it favours large samples. The U-statistic has expectation 0 for equal distributions whatever the sizes (halves of a sample
    need no correction) and therefore falls below 0 about as often as above.

    *Weakness*: all genes count with their variance, so what is noisy and highly expressed hides small changes
    elsewhere; in many dimensions distances concentrate and differences of dependence between genes are barely seen.
    It says how far two clouds are apart, not whether the effect has the right direction.

    Parameters
    ----------
    again
        A second, independent prediction from the same source cells (n, G), where the cells of one prediction depend on
        each other, as in stratified sampling: distances within the prediction are then those between the two, of
        different source cells, and both are compared with the reference.

    Returns
    -------
    The energy distance, in the units of the expression values.

    Notes
    -----
    O((n + m)^2 G) time by blocked matrix products; memory does not grow with the numbers of cells. PerturBench's
    "MMD" is half of the V-statistic.

    References
    ----------
    Székely and Rizzo (2013), Energy statistics: a class of statistics based on distances. *J. Stat. Plan. Inference*
    143, 1249-1272.

    Examples
    --------
    >>> import numpy as np
    >>> energy_distance(np.zeros((3, 2)), np.array([[3.0, 4.0], [3.0, 4.0]]))
    10.0
    """
    return energy_distance_to(y, unbiased=unbiased)(x, again)


def energy_distance_to(y: Cells, *, unbiased: bool = True) -> Callable[..., float]:
    """Return the function ``x -> energy_distance(x, y)``, with the term of the reference cells computed once.

    It also takes a second prediction, ``(x, again)``; see :func:`~perturbflow.metrics._distances.pair_means_to`.
    """
    pair_means = pair_means_to(y, root, unbiased=unbiased)

    def energy_distance_from(x: Cells, again: Cells | None = None) -> float:
        means = pair_means(x, again)
        return 2.0 * means.between - means.within_x - means.within_y

    return energy_distance_from


@of_cells
def energy_loss(x: Cells, y: Cells, *, shortest: float = SHORTEST) -> float:
    """Half the energy distance over all pairs of cells, which PerturBench calls MMD.

    ::

        L(x, y) = mean d(x_i, y_j) - 1/2 mean d(x_i, x_j) - 1/2 mean d(y_i, y_j),    d(a, b) = max(|a - b|, shortest)

    with means over all pairs, a cell with itself included (V-statistic). It is the squared maximum mean discrepancy of
    the kernel ``-d``. In gene space it is PerturBench's ``mmd_none``; of cells in the principal components of the
    reference cells, ``mmd_pca``.

    *Direction*: lower is better. *Range*: 0 for two equal samples, otherwise positive, to within ``shortest``.

    *Weakness*: that of :func:`energy_distance`, and the bias of the V-statistic: for two samples of one distribution the value
    is about ``E|X - X'| (1/n + 1/m) / 2``, so it cannot be compared between conditions with different numbers of cells,
    and a prediction with more cells scores better.

    Parameters
    ----------
    shortest
        What shorter distances count as. The default is that of geomloss: a cell is at 1e-4 from itself, which lowers
        the value by ``5e-5 (1/n + 1/m)``. With 0 it is half of :func:`energy_distance` with ``unbiased=False``.

    Returns
    -------
    The loss, in the units of the expression values.

    Notes
    -----
    geomloss computes squared distances in the precision of its input without centring them. PerturBench passes float32,
    in which a cell is not at 1e-4 from itself but at the root of the rounding error of its squared norm: about 0.01 for
    log1p-normalised counts, which lowers the value by ``0.005 (1/n + 1/m)``. Here all is in float64.

    References
    ----------
    Feydy et al. (2019), Interpolating between optimal transport and MMD using Sinkhorn divergences, *AISTATS*; geomloss
    0.3, ``SamplesLoss("energy")``. Wu et al. (2024), PerturBench: benchmarking machine learning models for cellular
    perturbation analysis, arXiv 2408.10609.

    Examples
    --------
    >>> import numpy as np
    >>> round(energy_loss(np.zeros((2, 2)), np.array([[3.0, 4.0], [3.0, 4.0]]), shortest=0.0), 6)
    5.0
    """
    if not shortest >= 0:
        msg = f"Expected `shortest` to be a distance of 0 or more, found {shortest!r}."
        raise ValueError(msg)
    means = pair_means_to(y, lambda squared: root(squared, shortest), unbiased=False, at_zero=shortest)(x, None)
    return means.between - means.within_x / 2.0 - means.within_y / 2.0


def root(squared: NDArray[np.float64], shortest: float = 0.0) -> NDArray[np.float64]:
    """Return distances of at least ``shortest`` in the place of their squares."""
    if shortest > 0:
        np.maximum(squared, shortest**2, out=squared)
    return np.sqrt(squared, out=squared)
