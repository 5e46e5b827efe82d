"""Distances of whole distributions from all pairs of cells: energy distance, PerturBench's half of it, and MMD."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from perturbflow.metrics._cells import Cells, check_cells, gene_means
from perturbflow.metrics._distances import (
    Centred,
    block_size,
    distances_within,
    mean_within,
    pair_blocks,
    pair_means_to,
    root,
)
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

    Notes
    -----
    O((n + m)^2 G) time by blocked matrix products; memory does not grow with the numbers of cells.

    References
    ----------
    Székely and Rizzo (2013), Energy statistics: a class of statistics based on distances. *J. Stat. Plan. Inference*
    143, 1249-1272.

    Examples
    --------
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

    Notes
    -----
    geomloss computes squared distances in the precision of its input without centring them. PerturBench passes float32,
    in which a cell is not at 1e-4 from itself but at the root of the rounding error of its squared norm: about 0.01 for
    log1p-normalised counts, which lowers the value by ``0.005 (1/n + 1/m)``. Here all is in float64.

    References
    ----------
    Feydy et al. (2019), Interpolating between optimal transport and MMD using Sinkhorn divergences, *AISTATS*; geomloss
    0.3, ``SamplesLoss("energy")``.

    Examples
    --------
    >>> round(energy_loss(np.zeros((2, 2)), np.array([[3.0, 4.0], [3.0, 4.0]]), shortest=0.0), 6)
    5.0
    """
    if not shortest >= 0:
        msg = f"Expected `shortest` to be a distance of 0 or more, found {shortest!r}."
        raise ValueError(msg)
    means = pair_means_to(y, lambda squared: root(squared, shortest), unbiased=False, at_zero=shortest)(x, None)
    return means.between - means.within_x / 2.0 - means.within_y / 2.0


def cross_energy(
    predicted: Sequence[NDArray[np.floating]], observed: Sequence[NDArray[np.floating]], *, unbiased: bool = True
) -> NDArray[np.float64]:
    """Return the energy distances (P, Q) of every prediction, a row, to every reference; see :func:`energy_distance`.

    Their normalised rank is that of the energy distance, and with ``unbiased=False`` PerturBench's rank of its "MMD".
    """
    (predicted, of_x), (observed, of_y) = _distinct(predicted), _distinct(observed)
    centre = np.mean([cells.mean(axis=0) for cells in observed], axis=0)
    within_x, within_y = (
        np.array([mean_within(root, cells, centre=centre, unbiased=unbiased) for cells in conditions])
        for conditions in (predicted, observed)
    )
    between = _mean_distances(predicted, observed, centre)
    return (2.0 * between - within_x[:, None] - within_y[None, :])[np.ix_(of_x, of_y)]


def _mean_distances(
    predicted: list[NDArray[np.floating]], observed: list[NDArray[np.floating]], centre: NDArray[np.float64]
) -> NDArray[np.float64]:
    sizes = [np.array([len(cells) for cells in conditions]) for conditions in (predicted, observed)]
    of_x, of_y = (np.repeat(np.arange(len(size)), size) for size in sizes)
    x, y = (np.concatenate(conditions) for conditions in (predicted, observed))
    total = np.zeros((len(predicted), len(observed)))
    pairs = pair_blocks(Centred(x, centre), Centred(y, centre), block_cells=block_size(x))
    for rows, columns, squared in pairs:
        own_x, own_y = of_x[rows], of_y[columns]
        first_x, first_y = (np.flatnonzero(np.diff(own, prepend=-1)) for own in (own_x, own_y))
        by_row = np.add.reduceat(np.sqrt(squared, out=squared), first_y, axis=1)
        total[np.ix_(own_x[first_x], own_y[first_y])] += np.add.reduceat(by_row, first_x, axis=0)
    return total / np.outer(*sizes)


def _distinct(
    conditions: Sequence[NDArray[np.floating]],
) -> tuple[list[NDArray[np.floating]], list[int]]:
    """Arrays that are not one and the same, and which of them each is."""
    first = {id(cells): cells for cells in conditions}
    place = {key: k for k, key in enumerate(first)}
    return list(first.values()), [place[id(cells)] for cells in conditions]


BANDWIDTH_FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)
MAX_MEDIAN_CELLS = 2000


@of_cells
def mmd(
    x: Cells,
    y: Cells,
    *,
    again: Cells | None = None,
    bandwidths: Sequence[float] | None = None,
    unbiased: bool = True,
) -> float:
    """Squared maximum mean discrepancy between two samples of cells.

    ::

        MMD^2(x, y) = E k(X, X') + E k(Y, Y') - 2 E k(X, Y)
        k(a, b)     = mean over s in bandwidths of exp(-|a - b|^2 / (2 s^2))

    The unbiased estimate (U-statistic) averages the first two terms over pairs of different cells, the biased one
    (V-statistic) over all pairs.

    *Direction*: lower is better. *Range*: 0 for equal distributions, at most 2; the V-statistic is never negative, the
    U-statistic has expectation 0 for equal distributions and falls below 0 about as often as above.

    *Weakness*: depends on the bandwidths. The default is set by the reference cells alone, so that all predictions of
    one condition are judged with one kernel, but values of different conditions are not on one scale. Far away clouds
    all look equally bad (the kernel is flat there). Not the "MMD" of PerturBench, which is half an energy distance.

    Parameters
    ----------
    again
        A second prediction from the same source cells, as in :func:`energy_distance`, whose notes hold here too.
    bandwidths
        Standard deviations of the Gaussian kernels. By default the median distance between reference cells times
        0.25, 0.5, 1, 2 and 4; beyond 2,000 reference cells the median is that of 2,000 evenly spaced rows.

    References
    ----------
    Gretton et al. (2012), A kernel two-sample test. *JMLR* 13, 723-773.

    Examples
    --------
    >>> value = mmd(np.zeros((3, 2)), np.ones((2, 2)), bandwidths=[1.0])
    >>> bool(np.isclose(value, 2 - 2 * np.exp(-1)))
    True
    """
    y = check_cells(y, name="y", minimum=2 if unbiased else 1)
    precisions = 0.5 / np.square(median_bandwidths(y) if bandwidths is None else _check_bandwidths(bandwidths))

    def kernel(squared: NDArray[np.float64]) -> NDArray[np.float64]:
        values = np.zeros_like(squared)
        for precision in precisions:
            term = squared * -precision
            values += np.exp(term, out=term)
        values /= len(precisions)
        return values

    means = pair_means_to(y, kernel, unbiased=unbiased, at_zero=1.0)(x, again)
    return means.within_x + means.within_y - 2.0 * means.between


def median_bandwidths(y: Cells) -> NDArray[np.float64]:
    """Compute the default bandwidths (5,): multiples of the median distance between reference cells ``y`` (m, G)."""
    y = check_cells(y, name="y", minimum=2)
    rows = np.linspace(0, y.shape[0] - 1, min(y.shape[0], MAX_MEDIAN_CELLS)).round().astype(int)
    return bandwidths_of(distances_within(y[rows], centre=gene_means(y, name="y")))


def bandwidths_of(distances: NDArray[np.floating]) -> NDArray[np.float64]:
    """Multiples (5,) of the median of distances between reference cells."""
    median = float(np.median(distances))
    if median == 0:
        msg = "Expected different reference cells in `y`, found a median distance of 0. Pass `bandwidths`."
        raise ValueError(msg)
    return median * np.array(BANDWIDTH_FACTORS)


def _check_bandwidths(bandwidths: Sequence[float]) -> NDArray[np.float64]:
    scales = np.asarray(bandwidths, dtype=np.float64)
    if scales.ndim != 1 or scales.size == 0 or not np.all(np.isfinite(scales) & (scales > 0)):
        msg = f"Expected `bandwidths` to be a sequence of positive numbers, found {bandwidths!r}."
        raise ValueError(msg)
    return scales
