"""Agreement of the differential expression of predicted and of real cells of one condition, as in cell-eval.

All functions take two :class:`DifferentialExpression` of the same genes against the same controls, predicted first. A
gene is significant if its adjusted p-value is below ``fdr``; genes are ordered by absolute log fold change, equal ones
by p-value and then by their place. A condition without any significant gene in the real cells has nothing that could
be found: its value is NaN.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from perturbflow._checks import check_whole_number
from perturbflow.metrics._differential_expression import DifferentialExpression
from perturbflow.metrics._families import of_tests
from perturbflow.metrics._profiles import spearman
from perturbflow.metrics._ranking import auroc_of, average_precision_of


@of_tests
def overlap_of_top_genes(
    predicted: DifferentialExpression,
    observed: DifferentialExpression,
    *,
    n_top: int | None = None,
    fdr: float = 0.05,
) -> float:
    """Share of the most changed significant genes that are among the most changed predicted ones.

    ``|top-k of observed and top-k of predicted| / k`` with ``k = min(n_top, number of significant observed genes)``;
    without ``n_top``, k is that number. A prediction with fewer than k significant genes is judged by those. Cell-eval's
    ``overlap_at_N`` and ``overlap_at_50`` to ``_500``; the former is the DES of the Virtual Cell Challenge.

    *Direction*: higher is better. *Range*: 0 to 1; 0 if nothing predicted is significant. NaN if nothing observed is,
    where cell-eval has 0 even for a perfect prediction.

    *Weakness*: the size of the predicted list costs nothing, so predicting more significant genes, which more predicted
    cells or less noise suffice for, raises it. Blind to signs. The order within few significant genes is noise.

    Parameters
    ----------
    n_top
        Number of genes that count; all significant observed genes if None.

    References
    ----------
    Arc Institute, cell-eval (MIT licence); Roohani et al. (2025), Virtual Cell Challenge. *Cell* 188, 3370-3374.

    Examples
    --------
    >>> observed = DifferentialExpression.of(np.array([3.0, -2.0, 0.1]), np.array([1e-4, 1e-3, 0.9]))
    >>> predicted = DifferentialExpression.of(np.array([3.0, 0.1, 2.0]), np.array([1e-4, 0.9, 1e-3]))
    >>> overlap_of_top_genes(predicted, observed)
    0.5
    """
    top_predicted, top_observed = _top_genes(predicted, observed, n_top, fdr)
    if not len(top_observed):
        return float("nan")
    n_genes = min(len(top_observed), n_top or predicted.n_genes)
    return float(np.isin(top_observed[:n_genes], top_predicted[:n_genes]).sum() / n_genes)


@of_tests
def precision_of_top_genes(
    predicted: DifferentialExpression,
    observed: DifferentialExpression,
    *,
    n_top: int | None = None,
    fdr: float = 0.05,
) -> float:
    """Share of the most changed predicted significant genes that are among the most changed observed ones.

    ``|top-k of observed and top-k of predicted| / k`` with ``k = min(n_top, number of significant predicted genes)``;
    without ``n_top``, k is that number. Cell-eval's ``precision_at_N`` and ``precision_at_50`` to ``_500``.

    *Direction*: higher is better. *Range*: 0 to 1; 0 if nothing is significant on one side only, NaN on both, where
    cell-eval has 0.

    *Weakness*: a prediction of few, certain genes has a high value whatever it misses; read it beside
    :func:`recall_of_significant_genes`. Blind to signs.

    Parameters
    ----------
    n_top
        Number of genes that count; all significant predicted genes if None.

    Examples
    --------
    >>> observed = DifferentialExpression.of(np.array([3.0, -2.0, 0.1]), np.array([1e-4, 1e-3, 0.9]))
    >>> predicted = DifferentialExpression.of(np.array([3.0, 0.1, 0.2]), np.array([1e-4, 0.9, 0.8]))
    >>> precision_of_top_genes(predicted, observed)
    1.0
    """
    top_predicted, top_observed = _top_genes(predicted, observed, n_top, fdr)
    if not len(top_predicted):
        return 0.0 if len(top_observed) else float("nan")
    n_genes = min(len(top_predicted), n_top or predicted.n_genes)
    return float(np.isin(top_predicted[:n_genes], top_observed[:n_genes]).sum() / n_genes)


@of_tests
def recall_of_significant_genes(
    predicted: DifferentialExpression, observed: DifferentialExpression, *, fdr: float = 0.05
) -> float:
    """Share of the significant genes that are significant in the prediction.

    ``|significant observed and significant predicted| / |significant observed|``; cell-eval's ``de_sig_genes_recall``.

    *Direction*: higher is better. *Range*: 0 to 1; NaN if nothing observed is significant.

    *Weakness*: a prediction in which every gene is significant has 1. Blind to signs.

    Examples
    --------
    >>> observed = DifferentialExpression.of(np.array([3.0, -2.0, 0.1]), np.array([1e-4, 1e-3, 0.9]))
    >>> predicted = DifferentialExpression.of(np.array([3.0, 0.1, 0.2]), np.array([1e-4, 0.9, 0.8]))
    >>> recall_of_significant_genes(predicted, observed)
    0.5
    """
    check_same_tests(predicted, observed)
    is_significant, is_found = observed.significant(fdr), predicted.significant(fdr)
    return float(is_found[is_significant].mean()) if is_significant.any() else float("nan")


@of_tests
def agreement_of_direction(
    predicted: DifferentialExpression, observed: DifferentialExpression, *, fdr: float = 0.05
) -> float:
    """Share of the significant genes whose predicted change has the right sign.

    ``#{g significant: sign(predicted fold change) = sign(observed fold change)} / #{g significant}``, with significance
    of the observed change alone; cell-eval's ``de_direction_match``.

    *Direction*: higher is better. *Range*: 0 to 1; NaN if nothing observed is significant. Chance is not 0.5 where
    most changes have one sign. A gene that is predicted not to change at all counts as wrong.

    *Weakness*: blind to the size of the change; any response that all perturbations share scores well, and so does
    noise of the controls, which enter both sides.

    Examples
    --------
    >>> observed = DifferentialExpression.of(np.array([3.0, -2.0, 0.1]), np.array([1e-4, 1e-3, 0.9]))
    >>> predicted = DifferentialExpression.of(np.array([0.5, 0.1, 0.2]), np.array([1e-4, 0.9, 0.8]))
    >>> agreement_of_direction(predicted, observed)
    0.5
    """
    check_same_tests(predicted, observed)
    genes = np.flatnonzero(observed.significant(fdr))
    if not len(genes):
        return float("nan")
    return float((np.sign(predicted.log_fold_change[genes]) == np.sign(observed.log_fold_change[genes])).mean())


@of_tests
def spearman_of_log_fold_changes(
    predicted: DifferentialExpression, observed: DifferentialExpression, *, fdr: float = 0.05
) -> float:
    """Rank correlation of predicted and observed log fold changes over the significant genes.

    Spearman's coefficient with mean ranks of equal values, over the genes that are significant in the real cells;
    cell-eval's ``de_spearman_lfc_sig``.

    *Direction*: higher is better. *Range*: -1 to 1; 0 if all predicted changes are equal, as they order no genes (NaN
    in cell-eval); NaN with fewer than two significant genes or if all observed changes are equal.

    *Weakness*: genes are chosen by the real cells, so falsely predicted changes cost nothing. Where changes have both
    signs, the signs alone give a high value. With few genes it is noise.

    Examples
    --------
    >>> observed = DifferentialExpression.of(np.array([3.0, -2.0, 1.0]), np.array([1e-4, 1e-3, 1e-3]))
    >>> predicted = DifferentialExpression.of(np.array([9.0, 0.1, 0.2]), np.array([1e-4, 0.9, 0.8]))
    >>> spearman_of_log_fold_changes(predicted, observed)
    1.0
    """
    check_same_tests(predicted, observed)
    genes = np.flatnonzero(observed.significant(fdr))
    return float(spearman(predicted.log_fold_change[genes], observed.log_fold_change[genes]))


def check_same_tests(predicted: DifferentialExpression, observed: DifferentialExpression) -> None:
    """Refuse differential expression of different numbers of genes."""
    if predicted.n_genes != observed.n_genes:
        msg = (
            f"Expected differential expression of the same genes, found {predicted.n_genes} predicted and "
            f"{observed.n_genes} observed. Test both on their shared genes."
        )
        raise ValueError(msg)


def _top_genes(
    predicted: DifferentialExpression, observed: DifferentialExpression, n_top: int | None, fdr: float
) -> list[NDArray[np.intp]]:
    """Significant genes of both from the largest absolute change."""
    check_same_tests(predicted, observed)
    if n_top is not None:
        check_whole_number(n_top, name="n_top", least=1)
    both = []
    for side in (predicted, observed):
        genes = np.flatnonzero(side.significant(fdr))
        both.append(genes[np.lexsort((side.p_value[genes], -np.abs(side.log_fold_change[genes])))])
    return both


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

    Examples
    --------
    >>> observed = DifferentialExpression.of(np.array([3.0, -2.0, 0.1]), np.array([1e-4, 1e-3, 0.9]))
    >>> predicted = DifferentialExpression.of(np.array([3.0, 0.1, 0.2]), np.array([1e-4, 0.9, 0.5]))
    >>> average_precision_of_significant_genes(predicted, observed).__round__(6)
    0.833333
    """
    is_significant, certainty = _labels_and_certainty(predicted, observed, fdr, smallest)
    if is_significant.all() or not is_significant.any():
        return float("nan")
    return average_precision_of(certainty, is_significant)


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

    References
    ----------
    Hanley and McNeil (1982), *Radiology* 143, 29-36; Arc Institute, cell-eval (MIT licence).

    Examples
    --------
    >>> observed = DifferentialExpression.of(np.array([3.0, -2.0, 0.1]), np.array([1e-4, 1e-3, 0.9]))
    >>> predicted = DifferentialExpression.of(np.array([3.0, 0.1, 0.2]), np.array([1e-4, 0.9, 0.5]))
    >>> auroc_of_significant_genes(predicted, observed)
    0.5
    """
    is_significant, certainty = _labels_and_certainty(predicted, observed, fdr, smallest)
    return auroc_of(certainty, is_significant)


def _labels_and_certainty(
    predicted: DifferentialExpression, observed: DifferentialExpression, fdr: float, smallest: float
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    check_same_tests(predicted, observed)
    if not 0 <= smallest <= 1:
        msg = f"Expected `smallest` from 0 to 1, found {smallest!r}."
        raise ValueError(msg)
    return observed.significant(fdr), -np.maximum(predicted.adjusted, smallest)
