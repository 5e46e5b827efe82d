"""Observations along time."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Trajectory:
    """What was observed of d genes at n times of one process.

    Parameters
    ----------
    name
        What it is called in results.
    time
        Times, strictly increasing, shape (n,).
    values
        Levels of the genes, means over the cells of a time, shape (n, d).
    weight
        Number of cells behind each row, shape (n,); the variance of its noise is taken to be inverse to it.
    clamped
        Genes that an intervention holds at what was observed, instead of leaving them to their dynamics, shape (d,).
    """

    name: str
    time: FloatArray
    values: FloatArray
    weight: FloatArray
    clamped: NDArray[np.bool_]

    def __post_init__(self) -> None:
        n, d = self.values.shape
        if self.time.shape != (n,) or self.weight.shape != (n,) or self.clamped.shape != (d,):
            msg = (
                f"Expected time and weight of shape ({n},) and clamped of shape ({d},) for values of shape ({n}, {d}), "
                f"found {self.time.shape}, {self.weight.shape} and {self.clamped.shape}."
            )
            raise ValueError(msg)
        if n < 2 or (np.diff(self.time) <= 0).any():
            msg = f"Expected at least two times, strictly increasing, in trajectory {self.name!r}, found {n} rows."
            raise ValueError(msg)

    @property
    def n_genes(self) -> int:
        """Number of genes d."""
        return self.values.shape[1]

    def rows(self, chosen: NDArray[np.bool_] | slice) -> Trajectory:
        """Return the trajectory of some of its times."""
        return replace(self, time=self.time[chosen], values=self.values[chosen], weight=self.weight[chosen])
