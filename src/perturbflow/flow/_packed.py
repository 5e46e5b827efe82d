"""Arrays of effects in 16 bits: half the memory of a store, with an error that is known."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LARGEST_CODE = 32_767
_SMALLEST_EXPONENT = -126  # of single precision


def pack(values: NDArray[np.float32]) -> tuple[NDArray[np.int16], NDArray[np.float32]]:
    """Write values as whole numbers of steps, which are powers of two.

    Parameters
    ----------
    values
        Values (..., G).

    Returns
    -------
    Whole numbers (..., G), and the step of every row (...): values are off by at most half a step, 3.1e-5 times the
    largest of their row. Values that were unpacked are packed without any further error.
    """
    codes, steps = np.empty(values.shape, dtype=np.int16), np.empty(values.shape[:-1], dtype=np.float32)
    for row in np.ndindex(values.shape[:-1]):
        largest = float(np.abs(values[row]).max(initial=0.0))
        exponent = max(int(np.frexp(largest / _LARGEST_CODE)[1]), _SMALLEST_EXPONENT)
        steps[row] = np.ldexp(1.0, exponent)
        codes[row] = np.rint(values[row] / steps[row])
    return codes, steps


def unpack(codes: NDArray[np.int16], steps: NDArray[np.float32]) -> NDArray[np.float32]:
    """Values that :func:`pack` has written.

    Parameters
    ----------
    codes
        Whole numbers (..., G).
    steps
        Step of every row (...).

    Returns
    -------
    Values (..., G).
    """
    values = np.asarray(codes).astype(np.float32)
    values *= np.asarray(steps)[..., None]
    return values


def pack_variances(variances: NDArray[np.float32]) -> NDArray[np.float16]:
    """Standard deviations in 16 bits: their relative error is at most 5e-4.

    Parameters
    ----------
    variances
        Variances (...).

    Returns
    -------
    Standard deviations (...).
    """
    return np.sqrt(variances).astype(np.float16)


def unpack_variances(deviations: NDArray[np.float16]) -> NDArray[np.float32]:
    """Variances of the standard deviations of :func:`pack_variances`.

    Parameters
    ----------
    deviations
        Standard deviations (...).

    Returns
    -------
    Variances (...).
    """
    return np.square(np.asarray(deviations).astype(np.float32))
