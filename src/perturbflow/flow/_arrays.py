"""What is fitted as named arrays, some in 16 bits: half the memory of a store, with an error that is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, ClassVar, Self

import numpy as np
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


class Arrays:
    """Fields of a dataclass as named arrays, and back."""

    _packed: ClassVar[Mapping[str, tuple[str, str]]] = {}  # names of codes and steps, of fields in 16 bits
    _deviations: ClassVar[Mapping[str, str]] = {}  # names of standard deviations, of fields with variances

    def to_arrays(self) -> dict[str, NDArray]:
        """Every field by its name; large ones in 16 bits, to which a fit rounds: what is read back is the same."""
        arrays: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]
        for name, (codes, steps) in self._packed.items():
            arrays[codes], arrays[steps] = pack(arrays.pop(name))
        for name, deviations in self._deviations.items():
            arrays[deviations] = pack_variances(arrays.pop(name))
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray]) -> Self:
        """Rebuild what :meth:`to_arrays` has written."""
        found = {name: unpack(arrays[codes], arrays[steps]) for name, (codes, steps) in cls._packed.items()}
        found |= {name: unpack_variances(arrays[deviations]) for name, deviations in cls._deviations.items()}
        plain = (field.name for field in fields(cls) if field.name not in found)  # type: ignore[arg-type]
        return cls(**found, **{name: np.asarray(arrays[name]) for name in plain})
