"""Calibration of predicted uncertainty.

A prediction states mean effects (or mean expressions) and how uncertain they are; what is observed is a mean over
cells, with a sampling error of its own. The difference of the two has the variance ``sd^2 + standard_error^2`` if both
errors are independent, and it is this that observations are held against: without ``standard_error`` a perfect
statement about the true mean looks too narrow wherever there are few cells.

Arrays are (G,), or (P, G) for several conditions. All metrics share a *weakness*: genes of one condition err together,
so thousands of genes may be no more than a few independent observations, and one condition says little about
calibration; look at many.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri
from scipy.stats import rankdata

from perturbflow.screen._named_arrays import by_name, real_numbers

LEVELS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)


@by_name("conditions", "genes", of=("lower", "upper", "observed", "standard_error"))
def interval_coverage(
    lower: ArrayLike,
    upper: ArrayLike,
    observed: ArrayLike,
    *,
    level: float,
    standard_error: ArrayLike | None = None,
) -> NDArray[np.float64]:
    """Share of genes whose observed mean lies in its predicted interval.

    With a ``standard_error`` the half-width h of an interval becomes ``sqrt(h^2 + (z standard_error)^2)``, z the normal
    quantile of the level, which is exact for normal predictions.

    *Direction*: neither; a calibrated prediction has a coverage equal to the level. *Range*: 0 to 1.

    *Weakness*: infinitely wide intervals cover everything: read it beside :func:`gaussian_crps`. Genes that are not
    expressed are covered by anything and raise it.

    Parameters
    ----------
    lower, upper
        Bounds of the intervals (G,) or (P, G).
    observed
        Observed means, same shape.
    level
        Probability with which the intervals are to hold the true mean.
    standard_error
        Standard errors of the observed means, same shape.

    Returns
    -------
    The share, over the last axis: () or (P,).

    Raises
    ------
    ValueError
        If shapes disagree, values are not finite, an upper bound is below the lower one, a standard error is negative,
        or the level is not between 0 and 1.

    References
    ----------
    Gneiting, Balabdaoui and Raftery (2007), Probabilistic forecasts, calibration and sharpness. *J. R. Stat. Soc. B* 69,
    243-268.

    Examples
    --------
    >>> float(interval_coverage([0.0, 0.0], [1.0, 1.0], [0.5, 2.0], level=0.9))
    0.5
    """
    arrays = _same_shape(lower=lower, upper=upper, observed=observed)
    low, high, seen = arrays["lower"], arrays["upper"], arrays["observed"]
    z = float(ndtri((1 + _check_levels([level])[0]) / 2))
    if np.any(high < low):
        msg = f"Expected `upper` at or above `lower`, found it below in {int((high < low).sum())} places."
        raise ValueError(msg)
    half = (high - low) / 2
    widening = np.hypot(half, z * _check_spread(standard_error, seen, "standard_error")) - half
    return np.mean((seen >= low - widening) & (seen <= high + widening), axis=-1)


@by_name("conditions", "genes", of=("mean", "sd", "observed", "standard_error"))
def calibration_curve(
    mean: ArrayLike,
    sd: ArrayLike,
    observed: ArrayLike,
    *,
    standard_error: ArrayLike | None = None,
    levels: Sequence[float] = LEVELS,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Coverage of the central intervals of normal predictions at several levels.

    ``coverage(level) = share of |observed - mean| <= z(level) sqrt(sd^2 + standard_error^2)``, over all genes and
    conditions. Above the diagonal a prediction is less certain than it could be, below it overconfident.

    Parameters
    ----------
    mean
        Predicted means (G,) or (P, G).
    sd
        Their standard deviations, same shape.
    observed
        Observed means, same shape.
    standard_error
        Standard errors of the observed means, same shape.
    levels
        Probabilities of the intervals.

    Returns
    -------
    levels
        The levels (L,).
    coverage
        Share of observed means within the interval of every level (L,).

    Raises
    ------
    ValueError
        If shapes disagree, values are not finite, a standard deviation is negative, or a level is not between 0 and 1.

    Examples
    --------
    >>> calibration_curve([0.0, 0.0], [1.0, 1.0], [0.1, 2.0], levels=[0.5, 0.99])[1]
    array([0.5, 1. ])
    """
    probabilities = _check_levels(levels)
    error, total = errors_and_spread(mean, sd, observed, standard_error)
    needed = np.sort(_needed_levels(error, total), axis=None)
    return probabilities, np.searchsorted(needed, probabilities, side="right") / needed.size


@by_name("conditions", "genes", of=("mean", "sd", "observed", "standard_error"))
def expected_calibration_error(
    mean: ArrayLike,
    sd: ArrayLike,
    observed: ArrayLike,
    *,
    standard_error: ArrayLike | None = None,
    levels: Sequence[float] = LEVELS,
) -> float:
    """Mean absolute difference between the coverage of normal predictions and its level.

    ``mean over levels of |coverage(level) - level|``, the coverage as in :func:`calibration_curve`.

    *Direction*: lower is better. *Range*: 0 to 1.

    *Weakness*: a prediction that says the same for all genes can be calibrated and useless: read it beside
    :func:`gaussian_crps`. Too wide for some genes and too narrow for others cancel out. A shape of errors that is not
    normal counts as miscalibration.

    Parameters
    ----------
    mean
        Predicted means (G,) or (P, G).
    sd
        Their standard deviations, same shape.
    observed
        Observed means, same shape.
    standard_error
        Standard errors of the observed means, same shape.
    levels
        Probabilities of the intervals.

    Returns
    -------
    The error, over all genes and conditions.

    Raises
    ------
    ValueError
        If shapes disagree, values are not finite, a standard deviation is negative, or a level is not between 0 and 1.

    References
    ----------
    Kuleshov, Fenner and Ermon (2018), Accurate uncertainties for deep learning using calibrated regression. *ICML*.

    Examples
    --------
    >>> expected_calibration_error([0.0, 0.0], [1.0, 1.0], [0.1, 2.0], levels=[0.5, 0.9]).__round__(6)
    0.2
    """
    probabilities, coverage = calibration_curve(mean, sd, observed, standard_error=standard_error, levels=levels)
    return float(np.abs(coverage - probabilities).mean())


@by_name("conditions", "genes", of=("mean", "sd", "observed"))
def rank_correlation_of_error_and_uncertainty(
    mean: ArrayLike, sd: ArrayLike, observed: ArrayLike
) -> NDArray[np.float64]:
    """Spearman correlation over genes of absolute errors and stated standard deviations.

    *Direction*: higher is better. *Range*: -1 to 1, but even true standard deviations do not reach 1, as each says only
    how large the error of a gene is on average.

    *Weakness*: says which genes are uncertain, not how uncertain. Errors and standard deviations both grow with
    expression, so a standard deviation that is a function of the mean scores well. Where the sampling error of the
    observed means is larger than that of the prediction, it is their noise that is ranked.

    Parameters
    ----------
    mean
        Predicted means (G,) or (P, G).
    sd
        Their standard deviations, same shape.
    observed
        Observed means, same shape.

    Returns
    -------
    The correlation over the last axis: () or (P,); NaN where errors or standard deviations are all equal.

    Raises
    ------
    ValueError
        If shapes disagree, values are not finite, or a standard deviation is negative.

    Examples
    --------
    >>> float(rank_correlation_of_error_and_uncertainty([0.0, 0.0, 0.0], [1.0, 2.0, 3.0], [0.1, -0.5, 0.9]))
    1.0
    """
    error, total = errors_and_spread(mean, sd, observed, None)
    ranks_error, ranks_sd = (rankdata(values, axis=-1) for values in (np.abs(error), total))
    ranks_error -= ranks_error.mean(axis=-1, keepdims=True)
    ranks_sd -= ranks_sd.mean(axis=-1, keepdims=True)
    norm = np.linalg.norm(ranks_error, axis=-1) * np.linalg.norm(ranks_sd, axis=-1)
    products = np.asarray((ranks_error * ranks_sd).sum(axis=-1))
    return np.clip(np.divide(products, norm, out=np.full_like(products, np.nan), where=norm > 0), -1.0, 1.0)


def errors_and_spread(
    mean: ArrayLike, sd: ArrayLike, observed: ArrayLike, standard_error: ArrayLike | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Errors of the means, and the standard deviations that they should have."""
    arrays = _same_shape(mean=mean, observed=observed)
    error = arrays["observed"] - arrays["mean"]
    return error, np.hypot(_check_spread(sd, error, "sd"), _check_spread(standard_error, error, "standard_error"))


def _needed_levels(error: NDArray[np.float64], total: NDArray[np.float64]) -> NDArray[np.float64]:
    """Level of the smallest central interval that holds the observed mean."""
    z = np.divide(np.abs(error), total, out=np.where(error == 0, 0.0, np.inf), where=total > 0)
    return 2 * ndtr(z) - 1


def _same_shape(**named: ArrayLike) -> dict[str, NDArray[np.float64]]:
    arrays = {name: real_numbers(values, name=name) for name, values in named.items()}
    shapes = {name: values.shape for name, values in arrays.items()}
    if len(set(shapes.values())) > 1 or not all(1 <= len(shape) <= 2 and np.prod(shape) for shape in shapes.values()):
        msg = f"Expected arrays of one shape, (genes,) or (conditions, genes); found {shapes}."
        raise ValueError(msg)
    for name, values in arrays.items():
        if not np.isfinite(values).all():
            msg = f"Expected finite values in `{name}`, found {int((~np.isfinite(values)).sum())} that are not."
            raise ValueError(msg)
    return arrays


def _check_spread(spread: ArrayLike | None, like: NDArray[np.float64], name: str) -> NDArray[np.float64]:
    if spread is None:
        return np.zeros_like(like)
    values = _same_shape(**{"observed": like, name: spread})[name]
    if np.any(values < 0):
        msg = f"Expected `{name}` to be 0 or more, found {int((values < 0).sum())} negative values."
        raise ValueError(msg)
    return values


def _check_levels(levels: Sequence[float]) -> NDArray[np.float64]:
    probabilities = np.asarray(levels, dtype=np.float64)
    if probabilities.ndim != 1 or probabilities.size == 0 or not np.all((probabilities > 0) & (probabilities < 1)):
        msg = f"Expected probabilities between 0 and 1, found {levels!r}."
        raise ValueError(msg)
    return probabilities
