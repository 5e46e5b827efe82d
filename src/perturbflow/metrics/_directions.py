"""Agreement of the significant genes of one condition and of their directions, as in cell-eval2.

All functions take the :class:`DifferentialExpression` of predicted and of real cells, of the same genes. At one false
discovery rate,

* n genes are significant in the prediction and have a direction in the reference (a log fold change other than 0),
* k of them have the same direction on both sides, and
* N genes are significant in the reference.

Whether the n genes are significant in the reference is not asked: few cells hide many true changes. A predicted gene
without a direction of its own counts as wrong.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from perturbflow._checks import check_whole_number
from perturbflow.metrics._differential_agreement import check_same_tests
from perturbflow.metrics._differential_expression import DifferentialExpression
from perturbflow.metrics._families import of_tests


@of_tests
def jaccard_of_significant_genes(
    predicted: DifferentialExpression,
    observed: DifferentialExpression,
    *,
    fdr: float = 0.05,
    targets: NDArray[np.bool_] | None = None,
) -> float:
    """Overlap of the sets of significant genes.

    ``|P n R| / |P u R|`` with P the significant genes of the prediction and R those of the reference. In cell-eval2
    ``de_wilcoxon_sig_jaccard``, scored by the Virtual Cell Challenge of 2026.

    *Direction*: higher is better. *Range*: 0 to 1. Two empty sets agree: 1.

    *Weakness*: R grows with the number of cells and P with that of predicted cells, which have to be equal; the
    sign of the change is not looked at. A condition without significant genes gives 1 to a prediction that is silent.

    Examples
    --------
    >>> observed = DifferentialExpression.of(np.array([3.0, -2.0, 0.1]), np.array([1e-4, 1e-3, 0.9]))
    >>> predicted = DifferentialExpression.of(np.array([0.5, 0.1, 0.2]), np.array([1e-4, 1e-3, 0.8]))
    >>> jaccard_of_significant_genes(predicted, observed)
    1.0
    """
    called, confident = (side.significant(fdr) for side in judged_genes(predicted, observed, targets))
    either = np.count_nonzero(called | confident)
    return float(np.count_nonzero(called & confident) / either) if either else 1.0


@of_tests
def relative_error_of_log_fold_changes(
    predicted: DifferentialExpression,
    observed: DifferentialExpression,
    *,
    fdr: float = 0.05,
    minimum: int = 10,
    targets: NDArray[np.bool_] | None = None,
) -> float:
    """Mean absolute error of the log fold changes of significant genes, in units of their mean size.

    ``sum |L(x) - L(y)| / sum |L(y)|`` over the genes that are significant in the reference and have a finite log fold
    change there. An infinite predicted one counts as 0: were it left out, a prediction could choose the genes it is
    judged by. In cell-eval2 ``de_wilcoxon_lfc_nmae``, scored by the Virtual Cell Challenge of 2026.

    *Direction*: lower is better. *Range*: 0 to infinity; 1 for a prediction of no change. NaN with fewer than
    ``minimum`` genes, or if none of them changes. Both depend on the reference alone.

    *Weakness*: the reference's log fold changes are selected for being large, so that shrunken predictions are
    punished although they may be closer to the truth (winner's curse); genes whose mean is near 0 have huge ones, set
    by the pseudocount.

    Parameters
    ----------
    minimum
        Number of significant genes below which the value is undefined.

    Examples
    --------
    >>> observed = DifferentialExpression.of(np.array([3.0, -2.0, 0.1]), np.array([1e-4, 1e-3, 0.9]))
    >>> predicted = DifferentialExpression.of(np.array([0.5, 0.1, 0.2]), np.array([1e-4, 1e-3, 0.8]))
    >>> relative_error_of_log_fold_changes(predicted, observed, minimum=2)
    0.92
    """
    check_whole_number(minimum, name="minimum", least=1)
    predicted, observed = judged_genes(predicted, observed, targets)
    judged = observed.significant(fdr) & np.isfinite(observed.log_fold_change)
    change, claimed = observed.log_fold_change[judged], predicted.log_fold_change[judged]
    size = np.abs(change).sum()
    if len(change) < minimum or size == 0:
        return float("nan")
    return float(np.abs(np.where(np.isfinite(claimed), claimed, 0.0) - change).sum() / size)


def judged_genes(
    predicted: DifferentialExpression, observed: DifferentialExpression, targets: NDArray[np.bool_] | None
) -> tuple[DifferentialExpression, DifferentialExpression]:
    """Check that both sides have the same genes, and leave out those in ``targets``."""
    check_same_tests(predicted, observed)
    if targets is None:
        return predicted, observed
    n_genes = observed.n_genes
    if targets.shape != (n_genes,) or targets.dtype != np.bool_ or targets.all():
        msg = (
            f"Expected boolean `targets` that mark some of {n_genes} genes, found {targets.dtype} of shape "
            f"{targets.shape} with {np.count_nonzero(targets)} marked. Leave out conditions that target all genes."
        )
        raise ValueError(msg)
    # Without adjusting p-values again: the targets were tested like all genes.
    return predicted.reordered(~targets), observed.reordered(~targets)


@of_tests
def direction_fidelity(
    predicted: DifferentialExpression,
    observed: DifferentialExpression,
    *,
    fdr: float = 0.05,
    targets: NDArray[np.bool_] | None = None,
) -> float:
    """Share of the significant genes of the prediction that change in the observed direction.

    ``k / n``, as defined in the module. In cell-eval2 ``de_wilcoxon_direction_fidelity_raw``.

    *Direction*: higher is better. *Range*: 0 to 1; about 1/2 by chance, more for a prediction that knows the usual
    direction of every gene. NaN where the prediction has no significant gene with an observed direction.

    *Weakness*: a prediction of a single sure gene gets 1; see :func:`direction_fidelity_yield`.

    Examples
    --------
    >>> observed = DifferentialExpression.of(np.array([3.0, -2.0, 0.1]), np.array([1e-4, 1e-3, 0.9]))
    >>> predicted = DifferentialExpression.of(np.array([0.5, 0.1, 0.2]), np.array([1e-4, 1e-3, 0.8]))
    >>> direction_fidelity(predicted, observed)
    0.5
    """
    right, called, _ = _counts(*judged_genes(predicted, observed, targets), fdr)
    return right / called if called else float("nan")


@of_tests
def direction_fidelity_yield(
    predicted: DifferentialExpression,
    observed: DifferentialExpression,
    *,
    fdr: float = 0.05,
    targets: NDArray[np.bool_] | None = None,
) -> float:
    """Number of genes predicted significant with the right direction, over the larger of both numbers of significant genes.

    ``k / max(n, N)``, as defined in the module. In cell-eval2 ``de_wilcoxon_direction_fidelity_yield_raw``, scored by
    the Virtual Cell Challenge of 2026.

    *Direction*: higher is better. *Range*: 0 to 1; 0 for a prediction without significant genes. NaN where neither side
    has a significant gene.

    *Weakness*: depends on the number of predicted cells through n. The k genes need not be among the N, so that it is
    no F score: with chance directions it is about 1/2 for any prediction that calls more genes than the reference.

    Examples
    --------
    >>> observed = DifferentialExpression.of(np.array([3.0, -2.0, 0.1]), np.array([1e-4, 1e-3, 0.9]))
    >>> predicted = DifferentialExpression.of(np.array([0.5, 0.1, 0.2]), np.array([1e-4, 1e-3, 0.8]))
    >>> direction_fidelity_yield(predicted, observed)
    0.5
    """
    right, called, confident = _counts(*judged_genes(predicted, observed, targets), fdr)
    most = max(called, confident)
    return right / most if most else float("nan")


@of_tests
def direction_reach(
    predicted: DifferentialExpression,
    observed: DifferentialExpression,
    *,
    fdr: float = 0.05,
    purity: float = 0.9,
    targets: NDArray[np.bool_] | None = None,
) -> float:
    """Return how far down its own ranking a prediction has the directions of the reference's significant genes right.

    ::

        max { j : at least a share `purity` of the first j genes has the observed direction } / N

    over the significant genes of the reference that have a direction, ranked by the prediction: by adjusted p-value,
    then p-value, then size of the log fold change. Genes that the prediction does not tell apart enter together, so
    that the order of the columns does not matter. In cell-eval2 ``de_wilcoxon_direction_reach_raw``, scored by the
    Virtual Cell Challenge of 2026.

    *Direction*: higher is better. *Range*: 0 to 1. NaN where the reference has no significant gene.

    *Weakness*: the first gene decides much: by chance it is right half of the time, which is 1 / N or more. Mistakes
    cost little where they are ranked last, and everything where they are ranked first.

    Parameters
    ----------
    purity
        Share of right directions that is asked of the first genes.

    Examples
    --------
    >>> observed = DifferentialExpression.of(np.array([3.0, -2.0, 0.1]), np.array([1e-4, 1e-3, 0.9]))
    >>> predicted = DifferentialExpression.of(np.array([0.5, 0.1, 0.2]), np.array([1e-4, 1e-3, 0.8]))
    >>> direction_reach(predicted, observed)
    0.5
    """
    if not 0 < purity <= 1:
        msg = f"Expected `purity` above 0 and at most 1, found {purity!r}."
        raise ValueError(msg)
    predicted, observed = judged_genes(predicted, observed, targets)
    significant = observed.significant(fdr)
    confident = np.count_nonzero(significant)
    if not confident:
        return float("nan")
    judged = significant & (observed.log_fold_change != 0)
    keys = np.stack([predicted.adjusted, predicted.p_value, -np.abs(predicted.log_fold_change)])[:, judged]
    order = np.lexsort(keys[::-1])
    keys, right = keys[:, order], _same_direction(predicted, observed)[judged][order]
    depth = np.arange(1, len(right) + 1)
    separate = np.append((keys[:, 1:] != keys[:, :-1]).any(axis=0), True)[: len(right)]
    reached = depth[separate & (np.cumsum(right) / depth >= purity)]
    return float(reached.max(initial=0) / confident)


def _counts(predicted: DifferentialExpression, observed: DifferentialExpression, fdr: float) -> tuple[int, int, int]:
    """Numbers k, n and N of the module."""
    called = predicted.significant(fdr) & (observed.log_fold_change != 0)
    sets = called & _same_direction(predicted, observed), called, observed.significant(fdr)
    right, n_called, confident = (int(np.count_nonzero(genes)) for genes in sets)
    return right, n_called, confident


def _same_direction(predicted: DifferentialExpression, observed: DifferentialExpression) -> NDArray[np.bool_]:
    """Infinite changes have a direction, those of size 0 have none."""
    return np.sign(predicted.log_fold_change) * np.sign(observed.log_fold_change) > 0
