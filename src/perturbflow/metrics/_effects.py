"""Agreement of mean effects and of log fold changes.

All functions take predicted cells ``x`` (n, G), reference cells ``y`` (m, G) and control cells ``control`` (c, G) that
serve both sides, each as cells or as :class:`Moments`, and compare one number per gene.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from perturbflow.metrics._cells import check_cells, check_same_genes, gene_means
from perturbflow.metrics._families import of_moments
from perturbflow.metrics._moments import CellsOrMoments, Moments
from perturbflow.metrics._profiles import correlation_of_changes
from perturbflow.screen._scale import natural_per_unit

PSEUDOCOUNT = 0.1


@of_moments
def rmse_of_mean_effects(x: CellsOrMoments, y: CellsOrMoments, control: CellsOrMoments) -> float:
    """Root mean squared error of the mean effect.

    ``sqrt( mean over genes of (e(x) - e(y))^2 )`` with ``e(a) = mean(a) - mean(control)``. The controls serve both
    sides, so they cancel and the value is that of the mean expression, PerturBench's ``rmse_average``; controls are taken
    so that all effect metrics are called alike.

    *Direction*: lower is better. *Range*: 0 to infinity, in the units of expression.

    *Weakness*: that of :func:`mse_of_mean_effects`.

    Examples
    --------
    >>> rmse_of_mean_effects(np.zeros((3, 4)), np.full((2, 4), 0.5), np.ones((5, 4)))
    0.5
    """
    return float(np.sqrt(np.mean(np.square(_error(x, y, control)))))


@of_moments
def cosine_of_mean_effects(x: CellsOrMoments, y: CellsOrMoments, control: CellsOrMoments) -> float:
    """Cosine between the predicted and the observed mean effect.

    ``cos(e(x), e(y))`` with ``e(a) = mean(a) - mean(control)`` over genes.

    *Direction*: higher is better. *Range*: -1 to 1. A prediction without any effect scores 0, as it names no
    direction; if the reference cells have exactly the mean of the controls there is no direction to find and the
    value is NaN.

    *Weakness*: blind to the size of the effect. Errors in ``mean(control)`` enter both effects and make unrelated
    predictions look alike; any average effect of all perturbations (stress, batch) scores well. For a prediction that
    is a sample of the controls the value is the cosine of sampling noise, not 0.

    Examples
    --------
    >>> cosine_of_mean_effects(np.array([[2.0, 0.0]]), np.array([[1.0, 1.0]]), np.zeros((1, 2))).__round__(6)
    0.707107
    """
    return _correlation(*_means(x, y, control), is_centred=False)


@of_moments
def cosine_of_log_fold_changes(
    x: CellsOrMoments, y: CellsOrMoments, control: CellsOrMoments, *, base: float | None = None
) -> float:
    """Cosine between the predicted and the observed log fold changes of log expression.

    ``cos(L(x), L(y))`` over genes with ``L(a) = log2(mean(a) + 0.1) - log2(mean(control) + 0.1)`` on log1p-normalised
    values, which PerturBench calls fold changes; its ``cosine_logfc``.

    *Direction*: higher is better. *Range*: -1 to 1; 0 for a prediction without effect and NaN if the reference has
    none, as for :func:`cosine_of_mean_effects` (PerturBench leaves both undefined).

    *Weakness*: that of :func:`cosine_of_mean_effects`, with more weight on weakly expressed genes; a ratio of log
    values is not a fold change of counts.

    Examples
    --------
    >>> control = np.full((1, 2), 0.4)
    >>> cosine_of_log_fold_changes(np.array([[0.9, 0.4]]), np.array([[0.65, 0.4]]), control).__round__(6)
    1.0
    """
    means = [mean * natural_per_unit(base) for mean in _means(x, y, control)]
    for name, mean in zip(("x", "y", "control"), means, strict=True):
        if mean.min() <= -PSEUDOCOUNT:
            msg = (
                f"Expected log1p-normalised expression in `{name}`, found a gene with mean {mean.min():.3g}. "
                "Clip predictions at 0 first."
            )
            raise ValueError(msg)
    return _correlation(*(np.log2(mean + PSEUDOCOUNT) for mean in means), is_centred=False)


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

    Examples
    --------
    >>> control = np.ones((5, 2))
    >>> mse_of_mean_effects(control + 0.5, control, control)
    0.25
    >>> mse_of_mean_effects(control + 0.5, control, control, predicted_control=control + 0.5)
    0.0
    """
    return float(np.mean(np.square(_error(x, y, control, predicted_control))))


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

    Examples
    --------
    >>> control = np.ones((5, 2))
    >>> mae_of_mean_effects(control + [[0.5, 0.0]], control, control)
    0.25
    """
    return float(np.mean(np.abs(_error(x, y, control, predicted_control))))


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

    References
    ----------
    Adduri et al. (2025), Predicting cellular responses to perturbation across diverse contexts with State, bioRxiv
    2025.06.26.661135 (cell-eval).

    Examples
    --------
    >>> x, y = np.array([[3.0, 1.0, 2.0]]), np.array([[2.0, 0.0, 0.0]])
    >>> pearson_of_mean_effects(x, y, np.zeros((1, 3))).__round__(6)
    0.866025
    """
    return _correlation(*_means(x, y, control, predicted_control))


def _error(
    x: CellsOrMoments, y: CellsOrMoments, control: CellsOrMoments, predicted_control: CellsOrMoments | None = None
) -> NDArray[np.float64]:
    """Difference of the predicted and the observed mean effect (G,)."""
    predicted, observed, reference, *own = _means(x, y, control, predicted_control)
    return predicted - (own[0] if own else reference) - (observed - reference)


def _correlation(*means: NDArray[np.float64], is_centred: bool = True) -> float:
    return float(correlation_of_changes(*(mean[None] for mean in means), is_centred=is_centred)[0])


def _means(
    x: CellsOrMoments, y: CellsOrMoments, control: CellsOrMoments, predicted_control: CellsOrMoments | None = None
) -> list[NDArray[np.float64]]:
    """Means (G,) of what is given."""
    named = {"x": x, "y": y, "control": control, "predicted_control": predicted_control}
    means = {
        name: cells.mean if isinstance(cells, Moments) else gene_means(check_cells(cells, name=name), name=name)
        for name, cells in named.items()
        if cells is not None
    }
    check_same_genes(**{name: mean[None] for name, mean in means.items()})
    return list(means.values())
