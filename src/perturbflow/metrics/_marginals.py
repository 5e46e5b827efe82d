"""Agreement of the spread of genes and of how often they are zero."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from perturbflow.metrics._cells import Cells, check_cells, check_same_genes, gene_means
from perturbflow.metrics._families import of_cells, of_moments
from perturbflow.metrics._moments import CellsOrMoments, moments_of


@of_cells
def error_of_zero_fractions(x: Cells, y: Cells) -> float:
    """Mean absolute difference over genes of the share of cells in which a gene is exactly zero.

    ``mean over genes of |z(x) - z(y)|`` with ``z(a)_g`` the share of cells with ``a_g = 0``.

    *Direction*: lower is better. *Range*: 0 to 1.

    *Weakness*: only exact zeros count, so a model of continuous values fails completely although rounding might mend
    it, and one that resamples control cells scores well wherever few genes respond. The zeros follow the depth of
    sequencing as much as biology. A perfect prediction of m reference cells is at about ``sqrt(2 z (1 - z) / (pi m))``
    per gene, not at 0.

    Returns
    -------
    The error.

    Examples
    --------
    >>> import numpy as np
    >>> error_of_zero_fractions(np.array([[0.0, 1.0], [0.0, 2.0]]), np.array([[0.0, 1.0], [3.0, 1.0]]))
    0.25
    """
    x, y = check_cells(x, name="x"), check_cells(y, name="y")
    check_same_genes(x=x, y=y)
    gene_means(x, name="x")
    gene_means(y, name="y")
    return float(np.abs(expressed_shares(x) - expressed_shares(y)).mean())


@of_moments
def error_of_variances(x: CellsOrMoments, y: CellsOrMoments) -> float:
    """Error of the standard deviations of genes, relative to those of the reference cells.

    ``sum over genes of |sd(x) - sd(y)| / sum over genes of sd(y)``. Standard deviations rather than variances or their
    logarithms: a gene that never varies is no exception, and no single gene decides.

    *Direction*: lower is better. *Range*: 0 to infinity; 1 if all predicted cells are equal.

    *Weakness*: says nothing about means, shapes or dependence; cells of the wrong kind with the right spread score
    well. The standard deviations of a few cells are noisy (about ``1 / sqrt(2 m)`` of themselves for normal values, more
    for genes that are rarely expressed), so that a perfect prediction is not at 0.

    Returns
    -------
    The error; NaN if no gene varies in the reference cells.

    Examples
    --------
    >>> import numpy as np
    >>> error_of_variances(np.array([[0.0, 1.0], [1.0, 1.0]]), np.array([[0.0, 1.0], [2.0, 1.0]]))
    0.5
    """
    predicted, observed = moments_of(x, name="x", minimum=2), moments_of(y, name="y", minimum=2)
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
