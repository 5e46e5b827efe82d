"""Agreement of the test results of all genes: predicted p-values as a classifier, and t-scores."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from perturbflow._checks import check_one_of
from perturbflow.metrics._differential_agreement import check_same_tests
from perturbflow.metrics._differential_expression import DifferentialExpression
from perturbflow.screen._named_arrays import by_name

SMALLEST_ADJUSTED = 1e-10


@by_name("genes", of=("predicted", "observed"))
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

    Parameters
    ----------
    predicted
        Differential expression of predicted cells.
    observed
        That of real cells, same genes.
    fdr
        Level of significance of adjusted p-values.
    smallest
        Predicted adjusted p-values below it count as equal to it; 0 keeps them apart. Cell-eval has 1e-10.

    Returns
    -------
    The average precision, or NaN.

    Raises
    ------
    ValueError
        If the numbers of genes differ, ``fdr`` is not above 0 and at most 1, or ``smallest`` is not from 0 to 1.

    References
    ----------
    Arc Institute, cell-eval (MIT licence).

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


@by_name("genes", of=("predicted", "observed"))
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

    Parameters
    ----------
    predicted
        Differential expression of predicted cells.
    observed
        That of real cells, same genes.
    fdr
        Level of significance of adjusted p-values.
    smallest
        Predicted adjusted p-values below it count as equal to it; 0 keeps them apart. Cell-eval has 1e-10.

    Returns
    -------
    The area, or NaN.

    Raises
    ------
    ValueError
        If the numbers of genes differ, ``fdr`` is not above 0 and at most 1, or ``smallest`` is not from 0 to 1.

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


@by_name("genes", of=("predicted", "observed"))
def r2_of_scores(
    predicted: DifferentialExpression,
    observed: DifferentialExpression,
    *,
    relative_to: Literal["observed", "predicted"] = "observed",
) -> float:
    """Share of the variance of the observed test scores over genes that the predicted ones explain.

    ``1 - sum_g (T_g - S_g)^2 / sum_g (T_g - mean T)^2`` with T the observed and S the predicted scores. With those of
    :func:`t_scores` PerturBench's ``r2_score_scores``, except that the latter passes the *prediction* as the truth, so
    that its denominator is the variance of S (``relative_to="predicted"``).

    *Direction*: higher is better. *Range*: minus infinity to 1; 0 for the mean of the observed scores. NaN if the
    scores in the denominator are all equal.

    *Weakness*: scores grow with the square root of the number of cells, so a perfect prediction of more or fewer cells
    than the real ones does badly. Relative to the prediction, effects that are exaggerated enough have a value near 0,
    however wrong, and timid ones are punished without bound.

    Parameters
    ----------
    predicted
        Differential expression of predicted cells, with scores.
    observed
        That of real cells, same genes.
    relative_to
        Whose variance is the denominator.

    Returns
    -------
    The share, or NaN.

    Raises
    ------
    ValueError
        If the numbers of genes differ, a side has no scores or infinite ones, or ``relative_to`` is unknown.

    References
    ----------
    Wu et al. (2024), PerturBench: benchmarking machine learning models for cellular perturbation analysis,
    arXiv 2408.10609.

    Examples
    --------
    >>> import numpy as np
    >>> ones = np.ones(3)
    >>> observed = DifferentialExpression.of(ones, ones, np.array([0.0, 1.0, 2.0]))
    >>> predicted = DifferentialExpression.of(ones, ones, np.array([0.0, 1.0, 3.0]))
    >>> r2_of_scores(predicted, observed)
    0.5
    """
    check_one_of(relative_to, ("observed", "predicted"), name="relative_to")
    check_same_tests(predicted, observed)
    scores = {}
    for name, side in (("predicted", predicted), ("observed", observed)):
        if side.score is None or not np.isfinite(side.score).all():
            found = "none" if side.score is None else f"infinite ones in {np.isinf(side.score).sum()} genes"
            msg = f"Expected finite scores in `{name}`, found {found}. Pass a result of `t_scores`."
            raise ValueError(msg)
        scores[name] = side.score
    return share_explained(scores["predicted"], scores["observed"], of=scores[relative_to])


def share_explained(predicted: NDArray[np.float64], observed: NDArray[np.float64], *, of: NDArray[np.float64]) -> float:
    """Coefficient of determination, with the variance of some values as the denominator; NaN where they are equal."""
    if np.ptp(of) == 0:
        return float("nan")
    deviation, error = of - of.mean(), observed - predicted
    return float(1.0 - error @ error / (deviation @ deviation))


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
    """How many of the genes at or above each certainty are significant, and how many there are, from the highest."""
    order = np.argsort(-certainty)
    last = np.flatnonzero(np.append(np.diff(certainty[order]), 1.0))
    return np.cumsum(is_significant[order], dtype=np.intp)[last], last + 1
