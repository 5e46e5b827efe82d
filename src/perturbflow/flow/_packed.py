"""Arrays of effects in 16 bits: half the memory of a store, with an error that is known."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LARGEST_CODE = 32_767
_SMALLEST_EXPONENT = -126  # of single precision


def pack(values: NDArray[np.float32]) -> tuple[NDArray[np.int16], NDArray[np.float32]]:
    """Write values (..., G) as whole numbers of steps, which are powers of two, a step for every row (...).

    Values are off by at most 3.1e-5 of the largest of their row; those that were unpacked are packed without further
    error.
    """
    codes, steps = np.empty(values.shape, dtype=np.int16), np.empty(values.shape[:-1], dtype=np.float32)
    for row in np.ndindex(values.shape[:-1]):
        largest = float(np.abs(values[row]).max(initial=0.0))
        exponent = max(int(np.frexp(largest / _LARGEST_CODE)[1]), _SMALLEST_EXPONENT)
        steps[row] = np.ldexp(1.0, exponent)
        codes[row] = np.rint(values[row] / steps[row])
    return codes, steps


def unpack(codes: NDArray[np.int16], steps: NDArray[np.float32]) -> NDArray[np.float32]:
    """Values (..., G) that :func:`pack` has written, with the step of every row (...)."""
    values = np.asarray(codes).astype(np.float32)
    values *= np.asarray(steps)[..., None]
    return values


def pack_variances(variances: NDArray[np.float32]) -> NDArray[np.float16]:
    """Standard deviations of variances (...) in 16 bits: their relative error is at most 5e-4."""
    return np.sqrt(variances).astype(np.float16)


def unpack_variances(deviations: NDArray[np.float16]) -> NDArray[np.float32]:
    """Variances of the standard deviations of :func:`pack_variances`."""
    return np.square(np.asarray(deviations).astype(np.float32))
