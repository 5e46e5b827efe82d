"""Coverage of predicted intervals.

A prediction states mean effects (or mean expressions) and how uncertain they are; what is observed is a mean over
cells, with a sampling error of its own. The difference of the two has the variance ``sd^2 + standard_error^2`` if both
errors are independent, and it is this that observations are held against: without ``standard_error`` a perfect
statement about the true mean looks too narrow wherever there are few cells.

Arrays are (G,), or (P, G) for several conditions. *Weakness*: genes of one condition err together,
so thousands of genes may be no more than a few independent observations, and one condition says little about
calibration; look at many.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

from perturbflow.screen._named_arrays import by_name, real_numbers


@by_name("conditions", "genes", of=("lower", "upper", "observed", "standard_error"))
def interval_coverage(
    lower: ArrayLike,
    upper: ArrayLike,
    observed: ArrayLike,
    *,
    level: float,
    standard_error: ArrayLike | None = None,
) -> NDArray[np.float64]:
    """Share () or (P,) of genes whose observed mean lies in its predicted interval (G,) or (P, G).

    With a ``standard_error`` the half-width h of an interval becomes ``sqrt(h^2 + (z standard_error)^2)``, z the normal
    quantile of the level, which is exact for normal predictions. A calibrated prediction has a coverage equal to the level.

    *Weakness*: infinitely wide intervals cover everything. Genes that are not expressed are covered by anything and
    raise it.
    """
    arrays = _same_shape(lower=lower, upper=upper, observed=observed)
    low, high, seen = arrays["lower"], arrays["upper"], arrays["observed"]
    z = float(ndtri((1 + _check_level(level)) / 2))
    if np.any(high < low):
        msg = f"Expected `upper` at or above `lower`, found it below in {int((high < low).sum())} places."
        raise ValueError(msg)
    half = (high - low) / 2
    widening = np.hypot(half, z * _check_spread(standard_error, seen, "standard_error")) - half
    return np.mean((seen >= low - widening) & (seen <= high + widening), axis=-1)


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


def _check_level(level: float) -> float:
    if not 0 < level < 1:
        msg = f"Expected a probability between 0 and 1 as `level`, found {level!r}."
        raise ValueError(msg)
    return level
