"""Accelerated proximal gradient steps with restarts, and the maps that make coefficients exactly zero."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def soft_threshold(values: Array, threshold: Array | float) -> Array:
    """Move values towards zero by a threshold, and no further: the proximal map of ``threshold * |values|``."""
    return np.sign(values) * np.maximum(np.abs(values) - threshold, 0.0)


def group_threshold(values: Array, threshold: Array | float) -> Array:
    """Shorten the vectors along the last axis by a threshold (..., 1): proximal map of ``threshold * ||values||``."""
    norm = np.linalg.norm(values, axis=-1, keepdims=True)
    return values * np.maximum(1 - threshold / np.where(norm > 0, norm, 1.0), 0.0)


def proximal_descent(
    start: Array,
    gradient: Callable[[Array], Array],
    proximal: Callable[[Array], Array],
    step: Array | float,
    *,
    n_steps: int,
    tolerance: float,
) -> Array:
    """Minimise a smooth convex function plus one whose proximal map, for a step of size ``step``, is known.

    Steps are accelerated after Beck and Teboulle (2009), *SIAM J. Imaging Sci.* 2, 183; momentum is dropped when it
    points uphill, after O'Donoghue and Candès (2015), *Found. Comput. Math.* 15, 715. The step is at most the inverse
    of the Lipschitz constant, and may differ between independent rows; ``tolerance`` is the largest change in the last
    one.
    """
    current, ahead, inertia = start, start, 1.0
    for _ in range(n_steps):
        found = proximal(ahead - step * gradient(ahead))
        change = found - current
        if ((ahead - found) * change).sum() > 0:
            inertia = 1.0
        following = (1 + np.sqrt(1 + 4 * inertia**2)) / 2
        ahead = found + (inertia - 1) / following * change
        current, inertia = found, following
        if np.abs(change).max(initial=0.0) < tolerance:
            break
    return current
