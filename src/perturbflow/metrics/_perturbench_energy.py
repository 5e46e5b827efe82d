"""PerturBench's "MMD": the energy loss of geomloss."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from perturbflow.metrics._cells import Cells, check_cells, check_predictions, gene_means
from perturbflow.metrics._distances import pair_sum, pair_sum_within
from perturbflow.screen._named_arrays import by_name

SHORTEST = 1e-4


@by_name("genes", of=("x", "y"))
def energy_loss(x: Cells, y: Cells, *, shortest: float = SHORTEST) -> float:
    """Half the energy distance over all pairs of cells, which PerturBench calls MMD.

    ::

        L(x, y) = mean d(x_i, y_j) - 1/2 mean d(x_i, x_j) - 1/2 mean d(y_i, y_j),    d(a, b) = max(|a - b|, shortest)

    with means over all pairs, a cell with itself included (V-statistic). It is the squared maximum mean discrepancy of
    the kernel ``-d``. In gene space it is PerturBench's ``mmd_none``; of cells in the principal components of the
    reference cells, ``mmd_pca``.

    *Direction*: lower is better. *Range*: 0 for two equal samples, otherwise positive, to within ``shortest``.

    *Weakness*: that of :func:`energy_distance`, and the bias of the V-statistic: for two samples of one law the value
    is about ``E|X - X'| (1/n + 1/m) / 2``, so it cannot be compared between conditions with different numbers of cells,
    and a prediction with more cells scores better.

    Parameters
    ----------
    x
        Predicted cells (n, G).
    y
        Reference cells (m, G), same genes and scale as ``x``.
    shortest
        What shorter distances count as. The default is that of geomloss: a cell is at 1e-4 from itself, which lowers
        the value by ``5e-5 (1/n + 1/m)``. With 0 it is half of :func:`energy_distance` with ``unbiased=False``.

    Returns
    -------
    The loss, in the units of the expression values.

    Raises
    ------
    ValueError
        If shapes disagree, values are not finite, or ``shortest`` is negative.

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
    return energy_loss_to(y, shortest=shortest)(x)


def energy_loss_to(y: Cells, *, shortest: float = SHORTEST) -> Callable[[Cells], float]:
    """Return the function ``x -> energy_loss(x, y)``, with the term of the reference cells computed once."""
    if not shortest >= 0:
        msg = f"Expected `shortest` to be a distance of 0 or more, found {shortest!r}."
        raise ValueError(msg)
    y = check_cells(y, name="y")
    centre = gene_means(y, name="y")
    within_y = mean_distance_within(y, centre=centre, unbiased=False, shortest=shortest)

    def distance(squared: NDArray[np.float64]) -> NDArray[np.float64]:
        return _distance(squared, shortest)

    def energy_loss_from(x: Cells) -> float:
        (cells,) = check_predictions(x, None, y, minimum=1)
        between = pair_sum(distance, cells, y, centre=centre) / (cells.shape[0] * y.shape[0])
        within_x = mean_distance_within(cells, centre=centre, unbiased=False, shortest=shortest)
        return float(between - 0.5 * within_x - 0.5 * within_y)

    return energy_loss_from


def mean_distance_within(cells: Cells, *, centre: NDArray[np.float64], unbiased: bool, shortest: float = 0.0) -> float:
    """Mean of ``max(|x_i - x_j|, shortest)`` over pairs of different cells, or with ``unbiased=False`` over all pairs."""
    n_cells = cells.shape[0]
    different = pair_sum_within(lambda squared: _distance(squared, shortest), cells, centre=centre)
    if unbiased:
        return different / (n_cells * (n_cells - 1))
    return (different + n_cells * shortest) / n_cells**2


def _distance(squared: NDArray[np.float64], shortest: float) -> NDArray[np.float64]:
    if shortest > 0:
        np.maximum(squared, shortest**2, out=squared)
    return np.sqrt(squared, out=squared)
