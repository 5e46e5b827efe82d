"""t-scores of genes, and how well they are predicted."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from perturbflow._checks import check_one_of, check_whole_number
from perturbflow.metrics._cells import RELATIVE_ZERO, check_same_genes
from perturbflow.metrics._families import of_moments
from perturbflow.metrics._moments import CellsOrMoments, Moments, moments_of


@of_moments
def r2_of_scores(
    x: CellsOrMoments,
    y: CellsOrMoments,
    control: CellsOrMoments,
    *,
    relative_to: Literal["observed", "predicted"] = "observed",
) -> float:
    """Share of the variance of the observed t-scores over genes that the predicted ones explain.

    ``1 - sum_g (T_g - S_g)^2 / sum_g (T_g - mean T)^2`` with T the observed and S the predicted scores,

    ::

        t = ((mean - mean_c) / sqrt((var + var_c) / n),)

    those of scanpy's ``t-test_overestim_var`` of a condition of n cells against the controls. A gene without variance on
    both sides has score 0, whether or not the means are equal, as in PerturBench; scanpy gives infinite scores there.
    PerturBench's ``r2_score_scores`` passes the *prediction* as the truth, so that its denominator is the variance of S
    (``relative_to="predicted"``).

    *Direction*: higher is better. *Range*: minus infinity to 1; 0 for the mean of the observed scores. NaN if the
    scores in the denominator are all equal.

    *Weakness*: scores grow with the square root of the number of cells, so a perfect prediction of more or fewer cells
    than the real ones does badly. Relative to the prediction, effects that are exaggerated enough have a value near 0,
    however wrong, and timid ones are punished without bound.

    Parameters
    ----------
    relative_to
        Whose variance is the denominator.

    References
    ----------
    Wolf, Angerer and Theis (2018), SCANPY. *Genome Biology* 19, 15.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> y, control = rng.normal(1.0, size=(50, 4)), rng.normal(size=(60, 4))
    >>> r2_of_scores(y, y, control)
    1.0
    """
    check_one_of(relative_to, ("observed", "predicted"), name="relative_to")
    check_same_genes(x=x, y=y, control=control)
    reference = moments_of(control, name="control")
    predicted = t_statistics(moments_of(x, name="x"), reference)
    observed = t_statistics(moments_of(y, name="y"), reference)
    of = observed if relative_to == "observed" else predicted
    if np.ptp(of) == 0:
        return float("nan")
    deviation, error = of - of.mean(), observed - predicted
    return float(1.0 - error @ error / (deviation @ deviation))


def t_statistics(condition: Moments, reference: Moments) -> NDArray[np.float64]:
    """Return the t-score of every gene (G,), 0 for one without variance."""
    variance = condition.variance + reference.variance
    # Rounding of the mean alone leaves a constant gene a variance of some 1e-32 of its square.
    size = RELATIVE_ZERO * np.maximum(np.abs(condition.mean), np.abs(reference.mean))
    varies = variance > size**2
    error = np.sqrt(np.where(varies, variance, 1.0) / condition.n_cells)
    return np.where(varies, (condition.mean - reference.mean) / error, 0.0)


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

    Examples
    --------
    >>> control = np.array([[0.0, 1.0, 1.0], [0.1, 1.1, 1.2]])
    >>> recall_of_top_genes(control + [2.0, 0, 0], control + [1.0, 0, 0], control, n_top=1)
    1.0
    """
    check_whole_number(n_top, name="n_top", least=1)
    named = {"x": x, "y": y, "control": control}
    check_same_genes(**named)
    x, y, control = (moments_of(cells, name=name) for name, cells in named.items())
    top = [_top_genes(cells, control, n_top) for cells in (x, y)]
    return float(np.isin(top[1], top[0]).mean())


def _top_genes(cells: Moments, reference: Moments, n_top: int) -> NDArray[np.intp]:
    scores = t_statistics(cells, reference)
    return np.argsort(-np.abs(scores), kind="stable")[:n_top]
