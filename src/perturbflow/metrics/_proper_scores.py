"""Proper scores of predicted means with their uncertainty; both accuracy and calibration count.

Arguments and the weakness that genes err together are those of :mod:`perturbflow.metrics._uncertainty`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr

from perturbflow.metrics._uncertainty import errors_and_spread
from perturbflow.screen._named_arrays import by_name


@by_name("conditions", "genes", of=("mean", "sd", "observed", "standard_error"))
def gaussian_crps(
    mean: ArrayLike, sd: ArrayLike, observed: ArrayLike, *, standard_error: ArrayLike | None = None
) -> NDArray[np.float64]:
    """Continuous ranked probability score of normal predictions, averaged over genes.

    ::

        s [ z (2 Phi(z) - 1) + 2 phi(z) - 1 / sqrt(pi) ],    s^2 = sd^2 + standard_error^2,  z = (observed - mean) / s

    and ``|observed - mean|`` where s is 0. A proper score: in expectation nothing beats stating the true distribution.

    *Direction*: lower is better. *Range*: 0 to infinity, in the units of expression.

    *Weakness*: mostly the error of the mean; the uncertainty changes it by some tens of percent. Highly variable genes
    decide.

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

    Returns
    -------
    The score, averaged over the last axis: () or (P,).

    Raises
    ------
    ValueError
        If shapes disagree, values are not finite, or a standard deviation is negative.

    References
    ----------
    Gneiting and Raftery (2007), Strictly proper scoring rules, prediction, and estimation. *JASA* 102, 359-378.

    Examples
    --------
    >>> float(gaussian_crps([0.0], [1.0], [0.0])).__round__(6)
    0.233695
    """
    error, total = errors_and_spread(mean, sd, observed, standard_error)
    z = np.divide(error, total, out=np.zeros_like(error), where=total > 0)
    density = np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)
    score = total * (z * (2 * ndtr(z) - 1) + 2 * density - 1 / np.sqrt(np.pi))
    return np.mean(np.where(total > 0, score, np.abs(error)), axis=-1)


@by_name("conditions", "genes", of=("mean", "sd", "observed", "standard_error"))
def negative_log_likelihood(
    mean: ArrayLike, sd: ArrayLike, observed: ArrayLike, *, standard_error: ArrayLike | None = None
) -> NDArray[np.float64]:
    """Negative log-likelihood of the observed means under normal predictions, averaged over genes.

    ``1/2 log(2 pi s^2) + (observed - mean)^2 / (2 s^2)`` with ``s^2 = sd^2 + standard_error^2``. A proper score.

    *Direction*: lower is better. *Range*: all real numbers; the value of a perfect prediction depends on the data.

    *Weakness*: one overconfident gene can decide it, and genes that are hardly expressed lower it without limit. Compare
    it between predictions of the same genes and conditions only.

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

    Returns
    -------
    The score in nats, averaged over the last axis: () or (P,).

    Raises
    ------
    ValueError
        If shapes disagree, values are not finite, or a standard deviation is negative, or 0 without a standard error.

    References
    ----------
    Gneiting and Raftery (2007), Strictly proper scoring rules, prediction, and estimation. *JASA* 102, 359-378.

    Examples
    --------
    >>> float(negative_log_likelihood([0.0], [1.0], [0.0])).__round__(6)
    0.918939
    """
    error, total = errors_and_spread(mean, sd, observed, standard_error)
    if np.any(total == 0):
        msg = (
            f"Expected a positive standard deviation everywhere, found 0 in {int((total == 0).sum())} places. "
            "Leave out genes that are certain, or pass `standard_error`."
        )
        raise ValueError(msg)
    return np.mean(0.5 * np.log(2 * np.pi) + np.log(total) + 0.5 * np.square(error / total), axis=-1)
