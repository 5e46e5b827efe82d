"""Agreement of mean effects and of log fold changes.

All functions take predicted cells ``x`` (n, G), reference cells ``y`` (m, G) and, where an effect is asked for, control
cells ``control`` (c, G) that serve both sides, and compare one number per gene. :class:`Moments` do in the place of cells.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from perturbflow.metrics._cells import check_same_genes
from perturbflow.metrics._families import of_moments
from perturbflow.metrics._moments import CellsOrMoments, moments_of
from perturbflow.screen._scale import natural_per_unit

PSEUDOCOUNT = 0.1
RELATIVE_ZERO = 1e-9


@of_moments
def rmse_of_mean_effects(x: CellsOrMoments, y: CellsOrMoments, control: CellsOrMoments) -> float:
    """Root mean squared error of the mean effect.

    ``sqrt( mean over genes of (e(x) - e(y))^2 )`` with ``e(a) = mean(a) - mean(control)``. The controls serve both
    sides, so they cancel and the value is that of the mean expression, PerturBench's ``rmse_average``; controls are taken
    so that all effect metrics are called alike.

    *Direction*: lower is better. *Range*: 0 to infinity, in the units of expression.

    *Weakness*: most genes do not respond, so predicting the controls already scores well; it says nothing about the
    spread of the cells, and with few cells it cannot reach 0 (the expected squared error of a perfect prediction is the
    sampling variance of both means).

    Returns
    -------
    The error; lower is better, 0 is best.

    Examples
    --------
    >>> import numpy as np
    >>> rmse_of_mean_effects(np.zeros((3, 4)), np.full((2, 4), 0.5), np.ones((5, 4)))
    0.5
    """
    predicted, observed, reference = _profiles(x=x, y=y, control=control)
    return float(np.sqrt(np.mean(np.square((predicted - reference) - (observed - reference)))))


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

    Returns
    -------
    The cosine, or NaN.

    Examples
    --------
    >>> import numpy as np
    >>> cosine_of_mean_effects(np.array([[2.0, 0.0]]), np.array([[1.0, 1.0]]), np.zeros((1, 2))).__round__(6)
    0.707107
    """
    return _cosine_of_changes(*_profiles(x=x, y=y, control=control))


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

    Returns
    -------
    The cosine, or NaN.

    Examples
    --------
    >>> import numpy as np
    >>> control = np.full((1, 2), 0.4)
    >>> cosine_of_log_fold_changes(np.array([[0.9, 0.4]]), np.array([[0.65, 0.4]]), control).__round__(6)
    1.0
    """
    return _cosine_of_changes(*_log_profiles(natural_per_unit(base), x=x, y=y, control=control))


def _profiles(**named: CellsOrMoments) -> list[NDArray[np.float64]]:
    check_same_genes(**named)
    return [moments_of(cells, name=name).mean for name, cells in named.items()]


def _log_profiles(unit: float, **named: CellsOrMoments) -> list[NDArray[np.float64]]:
    profiles = [profile * unit for profile in _profiles(**named)]
    for name, profile in zip(named, profiles, strict=True):
        if profile.min() <= -PSEUDOCOUNT:
            msg = (
                f"Expected log1p-normalised expression in `{name}`, found a gene with mean {profile.min():.3g}. "
                "Clip predictions at 0 first."
            )
            raise ValueError(msg)
    return [np.log2(profile + PSEUDOCOUNT) for profile in profiles]


def _cosine_of_changes(
    predicted: NDArray[np.float64], observed: NDArray[np.float64], reference: NDArray[np.float64]
) -> float:
    # The order of summation alone changes a mean by some 1e-15 of its size; its direction would be noise.
    zero = RELATIVE_ZERO * float(np.linalg.norm(reference))
    change_predicted, change_observed = predicted - reference, observed - reference
    norm_predicted, norm_observed = np.linalg.norm(change_predicted), np.linalg.norm(change_observed)
    if norm_observed <= zero:
        return float("nan")
    if norm_predicted <= zero:
        return 0.0
    cosine = float((change_predicted / norm_predicted) @ (change_observed / norm_observed))
    return min(1.0, max(-1.0, cosine))
