"""Genes that differ most from the controls."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from perturbflow.metrics._cells import check_same_genes
from perturbflow.metrics._families import of_moments
from perturbflow.metrics._moments import CellsOrMoments, Moments, moments_of
from perturbflow.metrics._t_scores import t_statistics


@of_moments
def recall_of_top_genes(x: CellsOrMoments, y: CellsOrMoments, control: CellsOrMoments, *, n_top: int = 50) -> float:
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
    n_top
        Number of genes that count.

    Returns
    -------
    The recall.

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
    named = {"x": x, "y": y, "control": control}
    check_same_genes(**named)
    x, y, control = (moments_of(cells, name=name, minimum=2) for name, cells in named.items())
    top = [_top_genes(cells, control, n_top) for cells in (x, y)]
    return float(np.isin(top[1], top[0]).mean())


def _top_genes(cells: Moments, reference: Moments, n_top: int) -> NDArray[np.intp]:
    scores = t_statistics(cells, reference)
    return np.argsort(-np.abs(scores), kind="stable")[:n_top]
