"""Energy distance between two clouds of cells."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from perturbflow.metrics._cells import Cells, check_cells, check_predictions, gene_means
from perturbflow.metrics._distances import mean_again, pair_sum, pair_sum_within
from perturbflow.screen._named_arrays import by_name


@by_name("genes", of=("x", "y"))
def energy_distance(x: Cells, y: Cells, *, unbiased: bool = True) -> float:
    """Energy distance between two samples of cells.

    ::

        E(x, y) = 2 E|X - Y| - E|X - X'| - E|Y - Y'|

    with Euclidean distances between cells in gene space. The unbiased estimate (U-statistic) averages the last two
    terms over pairs of different cells; the biased one (V-statistic) over all pairs, a cell with itself included.

    *Direction*: lower is better. *Range*: the population value is 0 for equal laws and positive otherwise. The
    V-statistic is never negative, but for two samples of one law it is about ``E|X - X'| (1/n + 1/m)`` instead of 0, so
    it favours large samples. The U-statistic has expectation 0 for equal laws whatever the sizes (halves of a sample
    need no correction) and therefore falls below 0 about as often as above.

    *Weakness*: all genes count with their variance, so what is noisy and highly expressed hides small changes
    elsewhere; in many dimensions distances concentrate and differences of dependence between genes are barely seen.
    It says how far two clouds are apart, not whether the effect has the right direction.

    Parameters
    ----------
    x
        Predicted cells (n, G).
    y
        Reference cells (m, G), same genes and scale as ``x``.
    unbiased
        Average over pairs of different cells.

    Returns
    -------
    The energy distance, in the units of the expression values.

    Raises
    ------
    ValueError
        If shapes disagree, values are not finite, or the unbiased estimate is asked of a single cell.

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
    return energy_distance_to(y, unbiased=unbiased)(x)


def energy_distance_to(y: Cells, *, unbiased: bool = True) -> Callable[..., float]:
    """Return the function ``x -> energy_distance(x, y)``, with the term of the reference cells computed once.

    Judging k predictions against one reference this way computes k + 1 within-sample terms instead of 2 k. The function
    also takes a second, independent prediction from the same source cells, ``(x, again)``: the distances within the
    prediction are then those between the two (cells of different source), which is unbiased even where the cells of one
    prediction depend on each other, and both are compared with the reference.
    """
    minimum = 2 if unbiased else 1
    y = check_cells(y, name="y", minimum=minimum)
    centre = gene_means(y, name="y")
    within_y = _mean_within(y, centre, unbiased)

    def energy_distance_from(x: Cells, again: Cells | None = None) -> float:
        predictions = check_predictions(x, again, y, minimum=minimum)
        between = np.mean([pair_sum(_root, p, y, centre=centre) / (p.shape[0] * y.shape[0]) for p in predictions])
        if again is None:
            within = _mean_within(predictions[0], centre, unbiased)
        else:
            within = mean_again(_root, *predictions, centre=centre)
        return float(2.0 * between - within - within_y)

    return energy_distance_from


def _mean_within(cells: Cells, centre: NDArray[np.float64], unbiased: bool) -> float:
    n_cells = cells.shape[0]
    return pair_sum_within(_root, cells, centre=centre) / (n_cells * (n_cells - 1 if unbiased else n_cells))


def _root(squared: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.sqrt(squared, out=squared)
