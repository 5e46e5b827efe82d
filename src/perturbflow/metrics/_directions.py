"""Agreement of the direction of predicted and observed changes of genes.

All functions take the :class:`DifferentialExpression` of one condition, predicted and observed, of the same genes. At
one false discovery rate,

* n genes are significant in the prediction and have a direction in the reference (a log fold change other than 0),
* k of them have the same direction on both sides, and
* N genes are significant in the reference.

Whether the n genes are significant in the reference is not asked: few cells hide many true changes. A predicted gene
without a direction of its own counts as wrong.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from perturbflow.metrics._differential_expression import DifferentialExpression
from perturbflow.metrics._families import of_tests
from perturbflow.metrics._significance import judged_genes


@of_tests
def direction_fidelity(
    predicted: DifferentialExpression,
    observed: DifferentialExpression,
    *,
    fdr: float = 0.05,
    targets: NDArray[np.bool_] | None = None,
) -> float:
    """Share of the significant genes of the prediction that change in the observed direction.

    ``k / n``, as defined in the module.

    *Direction*: higher is better. *Range*: 0 to 1; about 1/2 by chance, more for a prediction that knows the usual
    direction of every gene.

    *Weakness*: a prediction of a single sure gene gets 1; see :func:`direction_fidelity_yield`.

    Returns
    -------
    The share; NaN where the prediction has no significant gene with an observed direction.

    References
    ----------
    cell-eval2 0.20.0, ``de_wilcoxon_direction_fidelity_raw``.

    Examples
    --------
    >>> import numpy as np
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

    ``k / max(n, N)``, as defined in the module.

    *Direction*: higher is better. *Range*: 0 to 1; 0 for a prediction without significant genes.

    *Weakness*: depends on the number of predicted cells through n. The k genes need not be among the N, so that it is
    no F score: with chance directions it is about 1/2 for any prediction that calls more genes than the reference.

    Returns
    -------
    The share; NaN where neither side has a significant gene.

    References
    ----------
    cell-eval2 0.20.0, ``de_wilcoxon_direction_fidelity_yield_raw`` (scored by the 2026 Virtual Cell Challenge).

    Examples
    --------
    >>> import numpy as np
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
    that the order of the columns does not matter.

    *Direction*: higher is better. *Range*: 0 to 1.

    *Weakness*: the first gene decides much: by chance it is right half of the time, which is 1 / N or more. Mistakes
    cost little where they are ranked last, and everything where they are ranked first.

    Parameters
    ----------
    purity
        Share of right directions that is asked of the first genes.

    Returns
    -------
    The depth, relative to N; NaN where the reference has no significant gene.

    References
    ----------
    cell-eval2 0.20.0, ``de_wilcoxon_direction_reach_raw`` (scored by the 2026 Virtual Cell Challenge).

    Examples
    --------
    >>> import numpy as np
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
