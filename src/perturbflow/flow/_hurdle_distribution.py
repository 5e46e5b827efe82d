"""The distribution of a gene in a condition, the angular scale of its share, and the context that it applies to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import xlogy

LOWEST_EXPRESSION = 0.05  # of a cell that expresses a gene


def angle(share: NDArray[np.floating]) -> NDArray[np.float64]:
    r"""Angle of a share, :math:`2 \arcsin \sqrt{p}`, from 0 to :math:`\pi` (Cohen 1988, chapter 6).

    A share among n cells has the sampling variance 1 / n on this scale, whatever it is, 0 and 1 included.
    """
    return 2 * np.arcsin(np.sqrt(np.clip(np.asarray(share, dtype=np.float64), 0.0, 1.0)))


def share_at(angles: NDArray[np.floating]) -> NDArray[np.float64]:
    """Shares (...) at angles (...), the inverse of :func:`angle`; angles below 0 count as 0, those above pi as pi."""
    return np.sin(np.clip(np.asarray(angles, dtype=np.float64), 0.0, np.pi) / 2) ** 2


def share_error(share: NDArray[np.floating], sd: NDArray[np.floating]) -> NDArray[np.float64]:
    r"""Root mean square error of a share whose angle has a normal error.

    For :math:`p = (1 - \cos h) / 2` and :math:`H \sim N(h, \sigma^2)` the moments of :math:`\cos H` are known, so that
    this is exact: at a share of 0, where the slope is 0, it is not.
    """
    cosine = 1 - 2 * np.asarray(share, dtype=np.float64)
    variance = np.square(sd, dtype=np.float64)
    second = (1 + (2 * cosine**2 - 1) * np.exp(-2 * variance)) / 2
    return np.sqrt(np.maximum(cosine**2 * (1 - 2 * np.exp(-variance / 2)) + second, 0)) / 2


def evidence_variance(
    before: NDArray[np.floating],
    n_before: NDArray[np.floating] | float,
    after: NDArray[np.floating],
    n_after: NDArray[np.floating] | float,
) -> NDArray[np.float64]:
    r"""Variance at which a change of angle is as telling as the cells that it was measured in, at least 1 / n.

    For the change :math:`\delta` and the likelihood ratio D of the shares of the later cells against that of the
    earlier ones, to which half a cell is added, it is :math:`(\delta^2 + 1/n) / (D + 1)`: a normal measurement with it
    has the evidence D against no change, also where few cells could have expressed the gene and none does.
    """
    known = (before * n_before + 0.5) / (n_before + 1)
    ratio = 2 * n_after * (xlogy(after, after / known) + xlogy(1 - after, (1 - after) / (1 - known)))
    evidence = ((angle(after) - angle(before)) ** 2 + 1 / n_after) / (np.maximum(ratio, 0) + 1)
    return np.maximum(evidence, 1 / n_after)


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
