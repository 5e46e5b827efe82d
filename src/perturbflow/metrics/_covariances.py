"""Agreement of how strongly genes vary together across cells.

All functions compare the gene-gene correlation matrices of predicted and reference cells over all genes that vary on
both sides. The matrices are gone through in blocks and never held.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student_t

from perturbflow.metrics._cells import Cells, check_cells, check_same_genes, gene_means
from perturbflow.screen._named_arrays import by_name

SMALLEST_DEVIATION = 1e-6
SMALLEST_SPREAD = 1e-10
BLOCK_GENES = 256


@by_name("genes", of=("x", "y"))
def concordance_of_correlations(x: Cells, y: Cells, *, level: float | None = 0.05) -> float:
    """Lin's concordance, over pairs of genes, of their predicted and observed correlation across cells.

    ``2 cov(a, b) / (var(a) + var(b) + (mean(a) - mean(b))^2)`` with a the predicted and b the observed correlations of
    the pairs that are significant on both sides: ``|r| >= t / sqrt(n - 2 + t^2)`` with t the two-sided quantile of
    Student's distribution at ``level`` and n - 2 degrees of freedom, n the number of cells of the side.

    *Direction*: higher is better. *Range*: -1 to 1. Correlations of the right pattern that are all too weak lower it.

    *Weakness*: the pairs are selected by the prediction too, which may be silent where it is not sure, and few pairs of
    chance correlations are left of a prediction without structure. Correlations of few cells are noisy and fewer of
    them significant, so compare with halves of the reference cells, as for :func:`agreement_of_correlations`.

    Parameters
    ----------
    x
        Predicted cells (n, G).
    y
        Reference cells (m, G).
    level
        Significance level of a pair, not adjusted for their number; None for all pairs.

    Returns
    -------
    The concordance; NaN with fewer than 3 pairs, or if all correlations are equal on both sides.

    Raises
    ------
    ValueError
        If shapes disagree, values are not finite, there are fewer than 3 cells with a level, or the level is not
        between 0 and 1.

    Notes
    -----
    O((n + m) G^2) time by blocked matrix products, memory O((n + m) G).

    References
    ----------
    Lin (1989), A concordance correlation coefficient to evaluate reproducibility. *Biometrics* 45, 255-268.
    cell-eval2 0.20.0, ``cell_cov_ccc``.

    Examples
    --------
    >>> import numpy as np
    >>> cells = np.random.default_rng(0).gamma(1.0, size=(20, 6))
    >>> concordance_of_correlations(3.0 * cells, cells, level=None).__round__(6)
    1.0
    """
    if level is not None and not 0 < level < 1:
        msg = f"Expected `level` to lie between 0 and 1, or None, found {level!r}."
        raise ValueError(msg)
    pair = _standardised_pair(x, y, minimum=2 if level is None else 3)
    thresholds = (0.0, 0.0) if level is None else (_threshold(len(pair[0]), level), _threshold(len(pair[1]), level))
    moments = _pair_moments(*pair, thresholds)
    if moments.n_pairs < 3 or max(moments.spread_x, moments.spread_y) <= SMALLEST_SPREAD:
        return float("nan")
    total = moments.spread_x**2 + moments.spread_y**2 + (moments.mean_x - moments.mean_y) ** 2
    return min(1.0, max(-1.0, 2.0 * moments.covariance / total))


@by_name("genes", of=("x", "y"))
def leading_eigenvalue_ratio(x: Cells, y: Cells) -> float:
    """Strength of the main axis of co-expression, predicted over observed.

    ``lambda(x) / lambda(y)`` with lambda the largest eigenvalue of the gene-gene correlation matrix.

    *Direction*: 1 is best; below, genes are predicted to be more independent than they are. *Range*: 0 to infinity.

    *Weakness*: says how strong the axis is, not whether it is the right one. With fewer cells than genes both
    eigenvalues are at least about ``G / n``, so predict as many cells as there are in the reference.

    Parameters
    ----------
    x
        Predicted cells (n, G).
    y
        Reference cells (m, G).

    Returns
    -------
    The ratio; NaN if no gene varies on both sides.

    Raises
    ------
    ValueError
        If shapes disagree, values are not finite, or there is a single cell.

    Notes
    -----
    O(min(n, G)^2 max(n, G)) time for either side.

    References
    ----------
    cell-eval2 0.20.0, ``cell_cov_eig_ratio``.

    Examples
    --------
    >>> import numpy as np
    >>> together, apart = np.array([[0.0, 0], [1, 1]]), np.array([[0.0, 0], [0, 1], [1, 0], [1, 1]])
    >>> leading_eigenvalue_ratio(together, apart).__round__(6)
    2.0
    """
    predicted, observed = _standardised_pair(x, y)
    if not predicted.shape[1]:
        return float("nan")
    return _leading_eigenvalue(predicted) / _leading_eigenvalue(observed)


@dataclass(frozen=True)
class _PairMoments:
    """Moments of two sets of correlations over the same pairs of genes."""

    n_pairs: int
    mean_x: float
    mean_y: float
    spread_x: float
    spread_y: float
    covariance: float


def _standardised_pair(x: Cells, y: Cells, *, minimum: int = 2) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Genes that vary on both sides, with mean 0 and norm 1, so that their products are correlations."""
    sides = [check_cells(cells, name=name, minimum=minimum) for name, cells in (("x", x), ("y", y))]
    check_same_genes(x=sides[0], y=sides[1])
    centred = []
    for name, cells in zip("xy", sides, strict=True):
        mean = gene_means(cells, name=name)
        centred.append((cells if isinstance(cells, np.ndarray) else cells.toarray()) - mean)
    norms = [np.linalg.norm(cells, axis=0) for cells in centred]
    varies = np.all(
        [norm > SMALLEST_DEVIATION * np.sqrt(len(c)) for norm, c in zip(norms, centred, strict=True)], axis=0
    )
    predicted, observed = (cells[:, varies] / norm[varies] for cells, norm in zip(centred, norms, strict=True))
    return predicted, observed


def _pair_moments(
    x: NDArray[np.float64], y: NDArray[np.float64], thresholds: tuple[float, float] = (0.0, 0.0)
) -> _PairMoments:
    count, origin, sums, products = 0, np.zeros(2), np.zeros(2), np.zeros((2, 2))
    for both in _correlations(x, y):
        kept = both[:, np.all(np.abs(both) >= np.array(thresholds)[:, None], axis=0)]
        if not kept.shape[1]:
            continue
        if not count:  # relative to a first value, so that equal correlations have no variance
            origin = kept[:, 0]
        kept = kept - origin[:, None]
        count += kept.shape[1]
        sums += kept.sum(axis=1)
        products += kept @ kept.T
    if not count:
        return _PairMoments(0, np.nan, np.nan, np.nan, np.nan, np.nan)
    mean = sums / count
    covariance = products / count - np.outer(mean, mean)
    spread = np.sqrt(np.maximum(np.diagonal(covariance), 0.0))
    (mean_x, mean_y), (spread_x, spread_y) = mean + origin, spread
    return _PairMoments(count, float(mean_x), float(mean_y), float(spread_x), float(spread_y), float(covariance[0, 1]))


def _correlations(x: NDArray[np.float64], y: NDArray[np.float64]) -> Iterator[NDArray[np.float64]]:
    """Correlations of x and y (2, pairs) over every pair of different genes once, in blocks."""
    n_genes = x.shape[1]
    for start in range(0, n_genes, BLOCK_GENES):
        stop = min(start + BLOCK_GENES, n_genes)
        rows, columns = np.arange(start, stop)[:, None], np.arange(start, n_genes)[None, :]
        above = columns > rows
        yield np.stack([(side[:, start:stop].T @ side[:, start:])[above] for side in (x, y)])


def _threshold(n_cells: int, level: float) -> float:
    """Smallest correlation of ``n_cells`` cells that is significant."""
    quantile = float(student_t.ppf(1.0 - level / 2.0, n_cells - 2))
    return quantile / float(np.sqrt(n_cells - 2 + quantile**2))


def _leading_eigenvalue(cells: NDArray[np.float64]) -> float:
    gram = cells @ cells.T if cells.shape[0] < cells.shape[1] else cells.T @ cells
    return float(np.linalg.eigvalsh(gram)[-1])
