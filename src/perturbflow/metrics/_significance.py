"""Agreement of predicted and observed tests of differential expression: which genes, and how large a change.

All functions take the :class:`DifferentialExpression` of one condition, predicted and observed, of the same genes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

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

    ``|P n R| / |P u R|`` with P the significant genes of the prediction and R those of the reference.

    *Direction*: higher is better. *Range*: 0 to 1. Two empty sets agree: 1.

    *Weakness*: R grows with the number of cells and P with that of predicted cells, which have to be equal; the
    sign of the change is not looked at. A condition without significant genes gives 1 to a prediction that is silent.

    Returns
    -------
    The overlap.

    References
    ----------
    cell-eval2 0.20.0, ``de_wilcoxon_sig_jaccard`` (scored by the 2026 Virtual Cell Challenge).

    Examples
    --------
    >>> import numpy as np
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
    judged by.

    *Direction*: lower is better. *Range*: 0 to infinity; 1 for a prediction of no change.

    *Weakness*: the reference's log fold changes are selected for being large, so that shrunken predictions are
    punished although they may be closer to the truth (winner's curse); genes whose mean is near 0 have huge ones, set
    by the pseudocount.

    Parameters
    ----------
    minimum
        Number of significant genes below which the value is undefined.

    Returns
    -------
    The error; NaN with fewer than ``minimum`` genes, or if none of them changes. Both depend on the reference alone.

    References
    ----------
    cell-eval2 0.20.0, ``de_wilcoxon_lfc_nmae`` (scored by the 2026 Virtual Cell Challenge).

    Examples
    --------
    >>> import numpy as np
    >>> observed = DifferentialExpression.of(np.array([3.0, -2.0, 0.1]), np.array([1e-4, 1e-3, 0.9]))
    >>> predicted = DifferentialExpression.of(np.array([0.5, 0.1, 0.2]), np.array([1e-4, 1e-3, 0.8]))
    >>> relative_error_of_log_fold_changes(predicted, observed, minimum=2)
    0.92
    """
    if minimum < 1:
        msg = f"Expected `minimum` to be at least 1, found {minimum!r}."
        raise ValueError(msg)
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
