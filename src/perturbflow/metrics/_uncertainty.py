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
from numpy.typing import NDArray
from scipy.special import ndtri


def interval_coverage(
    lower: NDArray[np.float64],
    upper: NDArray[np.float64],
    observed: NDArray[np.float64],
    *,
    level: float,
    standard_error: NDArray[np.float64] | float = 0.0,
) -> NDArray[np.float64]:
    """Share () or (P,) of genes whose observed mean lies in its predicted interval (G,) or (P, G).

    With a ``standard_error`` the half-width h of an interval becomes ``sqrt(h^2 + (z standard_error)^2)``, z the normal
    quantile of the level, which is exact for normal predictions. A calibrated prediction has a coverage equal to the level.

    *Weakness*: infinitely wide intervals cover everything. Genes that are not expressed are covered by anything and
    raise it.
    """
    half = (upper - lower) / 2
    widening = np.hypot(half, float(ndtri((1 + level) / 2)) * standard_error) - half
    return np.mean((observed >= lower - widening) & (observed <= upper + widening), axis=-1)
