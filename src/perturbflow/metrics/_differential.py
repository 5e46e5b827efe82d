"""Which genes differ most from the controls."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from perturbflow.metrics._cells import Cells, check_cells, check_same_genes, gene_means


def recall_of_top_genes(x: Cells, y: Cells, control: Cells, *, n_top: int = 50) -> float:
    """Share of the most changed genes of the reference that are among the most changed of the prediction.

    Genes are ordered by the absolute t-score against the control cells,
    ``(mean - mean_c) / sqrt((var + var_c) / n)`` with n cells of the condition on both sides of the variance
    (scanpy's ``t-test_overestim_var``); PerturBench's "DEG recall".

    *Direction*: higher is better. *Range*: 0 to 1; about ``n_top / G`` for a random order. With at most ``n_top``
    genes it is always 1, and ties are broken by the order of the genes.

    *Weakness*: the top genes of a weak effect are noise, so that even two halves of one sample agree in few; a
    prediction that exaggerates every effect loses nothing.

    Parameters
    ----------
    x
        Predicted cells (n, G), log1p-normalised.
    y
        Reference cells (m, G), log1p-normalised.
    control
        Control cells (c, G), log1p-normalised.
    n_top
        Number of genes that count.

    Returns
    -------
    The recall.

    Raises
    ------
    ValueError
        If shapes disagree, values are not finite, there are fewer than two cells on a side, or ``n_top`` is below 1.

    References
    ----------
    Wu et al. (2024), PerturBench: benchmarking machine learning models for cellular perturbation analysis,
    arXiv 2408.10609.

    Examples
    --------
    >>> import numpy as np
    >>> control = np.array([[0.0, 1.0, 1.0], [0.1, 1.1, 1.2]])
    >>> recall_of_top_genes(control + [2.0, 0, 0], control + [1.0, 0, 0], control, n_top=1)
    1.0
    """
    if n_top < 1:
        msg = f"Expected `n_top` to be at least 1, found {n_top!r}."
        raise ValueError(msg)
    x, y, control = (check_cells(c, name=name, minimum=2) for c, name in ((x, "x"), (y, "y"), (control, "control")))
    check_same_genes(x=x, y=y, control=control)
    reference = _moments(control, "control")
    top = [_top_genes(_moments(cells, name), reference, cells.shape[0], n_top) for cells, name in ((x, "x"), (y, "y"))]
    return float(np.isin(top[1], top[0]).mean())


def _moments(cells: Cells, name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    mean = gene_means(cells, name=name)
    n = cells.shape[0]
    squared = np.square(cells, dtype=np.float64) if isinstance(cells, np.ndarray) else cells.multiply(cells)
    squares = squared.mean(axis=0)
    variance = np.maximum(np.asarray(squares).ravel() - mean**2, 0) * n / (n - 1)
    return mean, variance


def _top_genes(
    moments: tuple[NDArray[np.float64], NDArray[np.float64]],
    reference: tuple[NDArray[np.float64], NDArray[np.float64]],
    n_cells: int,
    n_top: int,
) -> NDArray[np.intp]:
    difference, variance = moments[0] - reference[0], moments[1] + reference[1]
    # A gene without variance has no score there either: NaN and infinity count as 0.
    score = np.divide(difference, np.sqrt(variance / n_cells), out=np.zeros_like(difference), where=variance > 0)
    return np.argsort(-np.abs(score), kind="stable")[:n_top]
