"""Agreement of how genes vary: their spread, how often they are zero, and their correlations."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from perturbflow._checks import check_whole_number
from perturbflow.metrics._cells import Cells, check_same_genes, check_samples, dense
from perturbflow.metrics._families import of_cells, of_moments
from perturbflow.metrics._moments import CellsOrMoments, Moments, moments_of
from perturbflow.metrics._profiles import pearson


@of_cells
def error_of_zero_fractions(x: Cells, y: Cells) -> float:
    """Mean absolute difference over genes of the share of cells in which a gene is exactly zero.

    ``mean over genes of |z(x) - z(y)|`` with ``z(a)_g`` the share of cells with ``a_g = 0``.

    *Direction*: lower is better. *Range*: 0 to 1.

    *Weakness*: only exact zeros count, so a model of continuous values fails completely although rounding might mend
    it, and one that resamples control cells scores well wherever few genes respond. The zeros follow the depth of
    sequencing as much as biology. A perfect prediction of m reference cells is at about ``sqrt(2 z (1 - z) / (pi m))``
    per gene, not at 0.

    Examples
    --------
    >>> error_of_zero_fractions(np.array([[0.0, 1.0], [0.0, 2.0]]), np.array([[0.0, 1.0], [3.0, 1.0]]))
    0.25
    """
    x, y = check_samples(x=x, y=y)
    return float(np.abs(expressed_shares(x) - expressed_shares(y)).mean())


@of_moments
def error_of_variances(x: CellsOrMoments, y: CellsOrMoments) -> float:
    """Error of the standard deviations of genes, relative to those of the reference cells.

    ``sum over genes of |sd(x) - sd(y)| / sum over genes of sd(y)``. Standard deviations rather than variances or their
    logarithms: a gene that never varies is no exception, and no single gene decides.

    *Direction*: lower is better. *Range*: 0 to infinity; 1 if all predicted cells are equal. NaN if no gene varies in
    the reference cells.

    *Weakness*: says nothing about means, shapes or dependence; cells of the wrong kind with the right spread score
    well. The standard deviations of a few cells are noisy (about ``1 / sqrt(2 m)`` of themselves for normal values, more
    for genes that are rarely expressed), so that a perfect prediction is not at 0.

    Examples
    --------
    >>> error_of_variances(np.array([[0.0, 1.0], [1.0, 1.0]]), np.array([[0.0, 1.0], [2.0, 1.0]]))
    0.5
    """
    predicted, observed = moments_of(x, name="x"), moments_of(y, name="y")
    check_same_genes(x=predicted, y=observed)
    sd_x, sd_y = np.sqrt(predicted.variance), np.sqrt(observed.variance)
    total = float(sd_y.sum())
    return float(np.abs(sd_x - sd_y).sum()) / total if total > 0 else float("nan")


def expressed_shares(cells: Cells) -> NDArray[np.float64]:
    """Share of cells (G,) in which a gene is not zero; stored zeros of a sparse matrix are zeros."""
    if isinstance(cells, np.ndarray):
        return np.count_nonzero(cells, axis=0) / cells.shape[0]
    by_cell = cells.tocsr()
    return np.bincount(by_cell.indices[by_cell.data != 0], minlength=cells.shape[1]) / cells.shape[0]


RELATIVE_ZERO = 1e-12
MOST_VARIABLE = 200


@of_cells
def agreement_of_correlations(x: Cells, y: Cells, *, n_top: int = MOST_VARIABLE) -> float:
    """Correlation, over pairs of genes, of predicted with observed gene-gene correlations.

    ``Pearson over pairs g < h of ( R(x)_gh, R(y)_gh )`` with the correlation matrices R over cells, for the most variable
    genes of the reference cells. A gene without variance among the predicted cells has correlation 0 with all.

    *Direction*: higher is better. *Range*: -1 to 1; 0 for a prediction without any correlation. NaN if fewer than 3
    genes vary in the reference cells, or all their correlations are equal.

    *Weakness*: blind to the size of the correlations; see :func:`error_of_correlations`. The correlation of two genes
    over m cells has a standard error of ``(1 - R^2) / sqrt(m - 1)``, often more than the correlations of the genes vary:
    with a standard deviation s of the true correlations over pairs, a perfect prediction of m reference cells reaches
    about ``s / sqrt(s^2 + 1/m)``, with s = 0.05 and 100 cells less than a half. Read it against two halves of the
    reference cells. Types of cells and cycle phases dominate it, which controls have too.

    Examples
    --------
    >>> y = np.array([[0.0, 0.0, 1.0], [1.0, 2.0, 0.0], [2.0, 4.0, 1.0], [3.0, 7.0, 0.0]])
    >>> agreement_of_correlations(3 * y + 1, y).__round__(6)
    1.0
    """
    return agreement_of_pairs(*_pairs(x, y, n_top=n_top))


@of_cells
def error_of_correlations(x: Cells, y: Cells, *, n_top: int = MOST_VARIABLE) -> float:
    """Root mean squared error, over pairs of genes, of the gene-gene correlations.

    ``sqrt( mean over pairs g < h of (R(x)_gh - R(y)_gh)^2 )``, R as in :func:`agreement_of_correlations`.

    *Direction*: lower is better. *Range*: 0 to 2. NaN if fewer than 3 genes vary in the reference cells.

    *Weakness*: noise alone gives a perfect prediction of n cells an error of about ``sqrt(1/n + 1/m)``; a prediction
    without correlations has one of only ``sqrt(s^2 + 1/m)``, with s the root mean square of the true ones, and wins with
    few cells; so does one of constant genes, which count as uncorrelated. Read it against two halves of the reference cells and against independent genes.

    Examples
    --------
    >>> y = np.array([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [2.0, 2.0, 2.0]])
    >>> error_of_correlations(np.zeros((3, 3)), y).__round__(6)
    1.0
    """
    return error_of_pairs(*_pairs(x, y, n_top=n_top))


def agreement_of_pairs(predicted: NDArray[np.float64], observed: NDArray[np.float64]) -> float:
    """Correlation of predicted with observed correlations of pairs of genes."""
    return float(pearson(predicted, observed)) if len(observed) >= 3 else float("nan")


def error_of_pairs(predicted: NDArray[np.float64], observed: NDArray[np.float64]) -> float:
    """Root mean squared error of the correlations of pairs of genes."""
    return float(np.sqrt(np.mean(np.square(predicted - observed)))) if len(observed) >= 3 else float("nan")


def _pairs(x: Cells, y: Cells, *, n_top: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Correlations of all pairs of the chosen genes, predicted and observed."""
    check_whole_number(n_top, name="n_top", least=3)
    x, y = check_samples(x=x, y=y, minimum=3)
    moments_x, moments_y = Moments.of(x, name="x"), Moments.of(y, name="y")
    genes = most_variable_genes(moments_y, n_top)
    return correlations_of_pairs(x, moments_x, genes), correlations_of_pairs(y, moments_y, genes)


def most_variable_genes(moments: Moments, n_top: int) -> NDArray[np.intp]:
    """Genes of the largest variance, without those that do not vary."""
    order = np.argsort(-moments.variance, kind="stable")[:n_top]
    return order[_varies(moments)[order]]


def correlations_of_pairs(cells: Cells, moments: Moments, genes: NDArray[np.intp]) -> NDArray[np.float64]:
    """Correlations of all pairs of some genes."""
    values = dense(cells[:, genes]) - moments.mean[genes]
    varies = _varies(moments)[genes]
    values[:, ~varies] = 0.0
    values /= np.where(varies, np.sqrt(moments.variance[genes]), 1.0)
    return (values.T @ values)[np.triu_indices(len(genes), k=1)] / (moments.n_cells - 1)


def _varies(moments: Moments) -> NDArray[np.bool_]:
    # Rounding leaves a constant gene a standard deviation of some 1e-16 of its mean.
    return np.sqrt(moments.variance) > RELATIVE_ZERO * np.abs(moments.mean)
