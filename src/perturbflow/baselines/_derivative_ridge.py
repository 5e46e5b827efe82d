"""Ridge regression with a penalty chosen on blocks of rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

FloatArray = NDArray[np.float64]

PENALTIES = np.geomspace(1e-5, 10.0, 13)


def ridge_coefficients(x: FloatArray, y: FloatArray, block: NDArray[np.intp], penalty: float | None) -> FloatArray:
    """Coefficients (p, q) of ``min_b mean ||y - a - x b||^2 + penalty ||b||^2`` with a free intercept a.

    The penalty is by default the one of :data:`PENALTIES` with the smallest error on the blocks of rows held out together,
    summed over responses. It is the largest if all rows are of one block.
    """
    if penalty is None:
        errors = np.zeros(len(PENALTIES))
        for held_out in np.unique(block):
            seen = block != held_out
            if not seen.any():
                return _coefficients(x, y, PENALTIES[-1:])[0]
            offset_x, offset_y = x[seen].mean(axis=0), y[seen].mean(axis=0)
            for k, b in enumerate(_coefficients(x[seen], y[seen], PENALTIES)):
                errors[k] += ((y[~seen] - offset_y - (x[~seen] - offset_x) @ b) ** 2).sum()
        penalty = float(PENALTIES[np.argmin(errors)])
    return _coefficients(x, y, np.array([penalty]))[0]


def _coefficients(x: FloatArray, y: FloatArray, penalties: FloatArray) -> list[FloatArray]:
    """Coefficients at every penalty, from one singular value decomposition."""
    left, singular, right = linalg.svd(x - x.mean(axis=0), full_matrices=False)
    projected = left.T @ (y - y.mean(axis=0))
    return [right.T @ ((singular / (singular**2 + len(x) * h))[:, None] * projected) for h in penalties]
