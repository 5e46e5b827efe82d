"""The distribution of a gene in a condition, and the context that it applies to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

LOWEST_EXPRESSION = 0.05  # of a cell that expresses a gene


@dataclass(frozen=True)
class HurdleDistribution:
    """A gene is 0 with probability 1 - p and N(m, s^2) otherwise."""

    expressed: NDArray[np.float32]  # probability p (..., G)
    mean: NDArray[np.float32]  # m of the expressed values (..., G)
    variance: NDArray[np.float32]  # s^2 of the expressed values (..., G)

    def expressed_values(self, shape: tuple[int, ...], *, rng: np.random.Generator) -> NDArray[np.float32]:
        """Draw values of cells that express a gene, all above 0."""
        values = self.mean + np.sqrt(self.variance) * rng.standard_normal(shape, dtype=np.float32)
        return np.maximum(values, np.float32(LOWEST_EXPRESSION))


@dataclass(frozen=True)
class Context:
    """The control cells of one covariate row, as the prior sees them."""

    index: int | None  # number of the training context; None for a new one
    distances: NDArray[np.float64]  # squared, to every training context (C,), in units of their median
    n_controls: float  # number of control cells
    expressed: NDArray[np.float64]  # share of the control cells that express a gene (G,)
    mean: NDArray[np.float64]  # of their expressed values (G,), 0 where there is none
    base_angle: NDArray[np.float64]  # shrunken share, as an angle (G,)
    base_mean: NDArray[np.float64]  # shrunken mean of the expressed values (G,)
