"""Agreement of the test results of all genes: predicted p-values as a classifier."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from perturbflow.metrics._differential_agreement import check_same_tests
from perturbflow.metrics._differential_expression import DifferentialExpression
from perturbflow.metrics._families import of_tests

SMALLEST_ADJUSTED = 1e-10


@of_tests
def average_precision_of_significant_genes(
    predicted: DifferentialExpression,
    observed: DifferentialExpression,
    *,
    fdr: float = 0.05,
    smallest: float = SMALLEST_ADJUSTED,
) -> float:
    """Average precision of the predicted p-values in finding the significant genes.

    ``sum over thresholds t of (recall_t - recall_(t-1)) precision_t`` with thresholds on the predicted adjusted
    p-values from the smallest, genes with equal values together; a gene is to be found if it is significant in the real
    cells. Cell-eval's ``pr_auc``.

    *Direction*: higher is better. *Range*: above 0, to 1; chance is the share of significant genes, so that conditions
    do not compare. NaN if all genes are significant, or none.

    *Weakness*: all genes with adjusted p-values up to ``smallest`` are equal, so with many predicted cells the
    strongest changes have no order. Blind to signs.

    Returns
    -------
    The average precision, or NaN.

    Examples
    --------
    >>> import numpy as np
    >>> observed = DifferentialExpression.of(np.array([3.0, -2.0, 0.1]), np.array([1e-4, 1e-3, 0.9]))
    >>> predicted = DifferentialExpression.of(np.array([3.0, 0.1, 0.2]), np.array([1e-4, 0.9, 0.5]))
    >>> average_precision_of_significant_genes(predicted, observed).__round__(6)
    0.833333
    """
    is_significant, certainty = _labels_and_certainty(predicted, observed, fdr, smallest)
    if is_significant.all() or not is_significant.any():
        return float("nan")
    found, called = _found_and_called(is_significant, certainty)
    return float(np.diff(found, prepend=0) @ (found / called) / found[-1])


@of_tests
def auroc_of_significant_genes(
    predicted: DifferentialExpression,
    observed: DifferentialExpression,
    *,
    fdr: float = 0.05,
    smallest: float = SMALLEST_ADJUSTED,
) -> float:
    """Probability that a significant gene has a smaller predicted p-value than one that is not.

    ``P(q(significant) < q(other)) + P(q(significant) = q(other)) / 2`` with q the predicted adjusted p-values, and
    significance that of the real cells: the area under the receiver operating characteristic. Cell-eval's ``roc_auc``.

    *Direction*: higher is better. *Range*: 0 to 1; 0.5 is chance, and the value of a prediction without any change. NaN
    if all genes are significant, or none.

    *Weakness*: that of :func:`average_precision_of_significant_genes`, and genes far down the list count as much as
    those on top. Highly expressed genes are significant more easily on both sides, so that expression alone exceeds
    chance.

    Returns
    -------
    The area, or NaN.

    References
    ----------
    Hanley and McNeil (1982), *Radiology* 143, 29-36; Arc Institute, cell-eval (MIT licence).

    Examples
    --------
    >>> import numpy as np
    >>> observed = DifferentialExpression.of(np.array([3.0, -2.0, 0.1]), np.array([1e-4, 1e-3, 0.9]))
    >>> predicted = DifferentialExpression.of(np.array([3.0, 0.1, 0.2]), np.array([1e-4, 0.9, 0.5]))
    >>> auroc_of_significant_genes(predicted, observed)
    0.5
    """
    is_significant, certainty = _labels_and_certainty(predicted, observed, fdr, smallest)
    if is_significant.all() or not is_significant.any():
        return float("nan")
    found, called = _found_and_called(is_significant, certainty)
    false = called - found
    return float(np.trapezoid(np.append(0, found), np.append(0, false)) / (found[-1] * false[-1]))


def _labels_and_certainty(
    predicted: DifferentialExpression, observed: DifferentialExpression, fdr: float, smallest: float
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    check_same_tests(predicted, observed)
    if not 0 <= smallest <= 1:
        msg = f"Expected `smallest` from 0 to 1, found {smallest!r}."
        raise ValueError(msg)
    return observed.significant(fdr), -np.maximum(predicted.adjusted, smallest)


def _found_and_called(
    is_significant: NDArray[np.bool_], certainty: NDArray[np.float64]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return how many of the genes at or above each certainty are significant, and how many there are, from the highest."""
    order = np.argsort(-certainty)
    last = np.flatnonzero(np.append(np.diff(certainty[order]), 1.0))
    return np.cumsum(is_significant[order], dtype=np.intp)[last], last + 1
