"""Errors and correlation of means and of mean effects, as cell-eval defines them.

All functions take predicted cells ``x`` (n, G), reference cells ``y`` (m, G) and, where an effect is asked for, control
cells ``control`` (c, G), each as cells or as :class:`Moments`, and compare one number per gene.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from perturbflow.metrics._cells import check_cells, check_same_genes, gene_means
from perturbflow.metrics._families import of_moments
from perturbflow.metrics._moments import CellsOrMoments, Moments
from perturbflow.metrics._profiles import correlation_of_changes


@of_moments
def mse_of_mean_effects(
    x: CellsOrMoments,
    y: CellsOrMoments,
    control: CellsOrMoments,
    *,
    predicted_control: CellsOrMoments | None = None,
) -> float:
    """Mean squared error of the mean effect.

    ``mean over genes of (e(x) - e(y))^2`` with ``e(a) = mean(a) - mean(control)``. The controls serve both sides, so
    they cancel and the value is the squared error of the mean expression, cell-eval's ``mse``. cell-eval's ``mse_delta``
    takes the effect of the prediction from predicted controls, which is not the same: ``predicted_control``.

    *Direction*: lower is better. *Range*: 0 to infinity, in squared units of expression.

    *Weakness*: most genes do not respond, so predicting the controls already scores well, and the mean of all
    perturbations often scores best; the expected error of a perfect prediction is the sampling variance of both means,
    not 0.

    Parameters
    ----------
    predicted_control
        Control cells of the prediction alone. Errors of a model that are the same in its controls and in its
        perturbed cells then do not count.

    Returns
    -------
    The error; lower is better, 0 is best.

    Examples
    --------
    >>> import numpy as np
    >>> control = np.ones((5, 2))
    >>> mse_of_mean_effects(control + 0.5, control, control)
    0.25
    >>> mse_of_mean_effects(control + 0.5, control, control, predicted_control=control + 0.5)
    0.0
    """
    predicted, observed, reference, predicted_reference = _effects(x, y, control, predicted_control)
    return float(np.mean(np.square(predicted - predicted_reference - (observed - reference))))


@of_moments
def mae_of_mean_effects(
    x: CellsOrMoments,
    y: CellsOrMoments,
    control: CellsOrMoments,
    *,
    predicted_control: CellsOrMoments | None = None,
) -> float:
    """Mean absolute error of the mean effect.

    ``mean over genes of |e(x) - e(y)|`` with ``e(a) = mean(a) - mean(control)``. The controls serve both sides, so they
    cancel and the value is that of cell-eval's ``mae``, one of the three scores of the Virtual Cell Challenge 2025; its
    ``mae_delta`` has ``predicted_control``.

    *Direction*: lower is better. *Range*: 0 to infinity, in units of expression.

    *Weakness*: that of :func:`mse_of_mean_effects`; as every gene counts with its absolute error, the noise of thousands
    of genes without response outweighs the response of a few.

    Returns
    -------
    The error; lower is better, 0 is best.

    Examples
    --------
    >>> import numpy as np
    >>> control = np.ones((5, 2))
    >>> mae_of_mean_effects(control + [[0.5, 0.0]], control, control)
    0.25
    """
    predicted, observed, reference, predicted_reference = _effects(x, y, control, predicted_control)
    return float(np.mean(np.abs(predicted - predicted_reference - (observed - reference))))


@of_moments
def pearson_of_mean_effects(
    x: CellsOrMoments,
    y: CellsOrMoments,
    control: CellsOrMoments,
    *,
    predicted_control: CellsOrMoments | None = None,
) -> float:
    """Pearson correlation over genes of the predicted and the observed mean effect.

    ``corr(e(x), e(y))`` with ``e(a) = mean(a) - mean(control)``; cell-eval's ``pearson_delta``.

    *Direction*: higher is better. *Range*: -1 to 1. A prediction without any effect scores 0, as it orders no genes; if
    the effect of the reference cells is the same in every gene there is no order to find and the value is NaN
    (cell-eval leaves both undefined).

    *Weakness*: blind to the size of the effect and to a shift of all genes. Errors in ``mean(control)`` enter both
    effects and make unrelated predictions look alike; the average effect of all perturbations scores well, which
    :func:`pearson_against_reference` takes away.

    Returns
    -------
    The correlation, or NaN.

    References
    ----------
    Adduri et al. (2025), Predicting cellular responses to perturbation across diverse contexts with State, bioRxiv
    2025.06.26.661135 (cell-eval).

    Examples
    --------
    >>> import numpy as np
    >>> x, y = np.array([[3.0, 1.0, 2.0]]), np.array([[2.0, 0.0, 0.0]])
    >>> pearson_of_mean_effects(x, y, np.zeros((1, 3))).__round__(6)
    0.866025
    """
    profiles = _effects(x, y, control, predicted_control)
    return float(correlation_of_changes(*(profile[None] for profile in profiles))[0])


def _effects(
    x: CellsOrMoments, y: CellsOrMoments, control: CellsOrMoments, predicted_control: CellsOrMoments | None
) -> list[NDArray[np.float64]]:
    if predicted_control is None:
        means = _means(x=x, y=y, control=control)
        return [*means, means[-1]]
    return _means(x=x, y=y, control=control, predicted_control=predicted_control)


def _means(**named: CellsOrMoments) -> list[NDArray[np.float64]]:
    means = {name: _mean(cells, name) for name, cells in named.items()}
    check_same_genes(**{name: mean[None] for name, mean in means.items()})
    return list(means.values())


def _mean(cells: CellsOrMoments, name: str) -> NDArray[np.float64]:
    return cells.mean if isinstance(cells, Moments) else gene_means(check_cells(cells, name=name), name=name)
