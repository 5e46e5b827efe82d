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
    """A gene is 0 with probability 1 - p and N(m, s^2) otherwise.

    Parameters
    ----------
    expressed
        Probability p that a gene is expressed (..., G).
    mean
        Mean m of the expressed values (..., G).
    variance
        Variance s^2 of the expressed values (..., G).

    Examples
    --------
    >>> import numpy as np
    >>> import perturbflow as pf
    >>> distribution = pf.flow.HurdleDistribution(np.array([0.25]), np.array([2.0]), np.array([0.1]))
    >>> (distribution.expressed * distribution.mean).tolist()  # the mean over all cells
    [0.5]
    """

    expressed: NDArray[np.float32]
    mean: NDArray[np.float32]
    variance: NDArray[np.float32]

    def expressed_values(self, shape: tuple[int, ...], *, rng: np.random.Generator) -> NDArray[np.float32]:
        """Draw values of cells that express a gene, all above 0."""
        values = self.mean + np.sqrt(self.variance) * rng.standard_normal(shape, dtype=np.float32)
        return np.maximum(values, np.float32(LOWEST_EXPRESSION))


@dataclass(frozen=True)
class Context:
    """The control cells of one covariate row, as the prior sees them.

    Parameters
    ----------
    index
        Which training context it is; None for a new one.
    distances
        Squared distance to every training context (C,), in units of their median.
    n_controls
        Number of control cells.
    expressed
        Share of the control cells that express a gene (G,).
    mean
        Mean of their expressed values (G,), 0 where there is none.
    base_angle
        Shrunken share of the control cells that express a gene, as an angle (G,).
    base_mean
        Shrunken mean of the expressed values (G,).

    Examples
    --------
    >>> import numpy as np
    >>> import perturbflow as pf
    >>> rng = np.random.default_rng(0)
    >>> x = np.log1p(rng.poisson([3.0, 1.0], (200, 2)))
    >>> x[100:, 0] = 0  # the perturbation of the last 100 cells silences gene 0
    >>> cells = pf.flow.CellData(x, np.repeat([[0.0], [1.0]], 100, axis=0), np.zeros((200, 0), dtype=int))
    >>> context = pf.flow.AdditiveHurdlePrior.fit(cells).context(np.zeros(0, dtype=int))
    >>> context.index, context.n_controls
    (0, 100.0)
    >>> bool(np.allclose(context.expressed, (x[:100] > 0).mean(axis=0)))
    True
    """

    index: int | None
    distances: NDArray[np.float64]
    n_controls: float
    expressed: NDArray[np.float64]
    mean: NDArray[np.float64]
    base_angle: NDArray[np.float64]
    base_mean: NDArray[np.float64]
