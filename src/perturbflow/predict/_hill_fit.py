r"""Hill curves of a readout over doses, with everything that the measured doses leave open.

The response is :math:`E\, d^h / (K^h + d^h)`: nothing at dose 0, half of the plateau E at the dose K. K and h are looked
at on a grid, E follows from them in closed form, and each point of the grid counts by its evidence. So intervals
hold where a fit by least squares would have none: where the doses do not reach the plateau, or all lie on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import chi2

if TYPE_CHECKING:
    from numpy.typing import NDArray

COVERED, NO_RESPONSE, TOO_FEW, BELOW, ABOVE, OPEN = (
    *("covered", "no response", "too few doses", "below the lowest dose", "above the highest dose", "not determined"),
)
_STEEPNESS = np.array([0.5, 0.71, 1.0, 1.41, 2.0, 2.83, 4.0])
_BEYOND = 100.0  # times below the lowest and above the highest dose at which half of the plateau may lie
_N_DOSES = 161
_PLATEAU_SD = 5.0  # times the largest response
_FEWEST_DOSES = 3


@dataclass(frozen=True, eq=False)
class HillPosterior:
    """Posterior of a curve: weights of points of a grid, and the plateau at each."""

    half: NDArray[np.float64]  # K of every point (N,)
    steepness: NDArray[np.float64]  # h of every point (N,)
    weights: NDArray[np.float64]  # probability of every point (N,)
    plateau: NDArray[np.float64]  # mean of E at every point (N,)
    plateau_sd: NDArray[np.float64]  # its standard deviation (N,)
    lowest: float  # dose
    highest: float
    n_doses: int
    p_value: float  # that there is no response at any dose

    @classmethod
    def of(
        cls, doses: NDArray[np.float64], responses: NDArray[np.float64], covariance: NDArray[np.float64]
    ) -> HillPosterior:
        """Fit responses at doses above 0 (n,), with the covariance of their errors (n, n)."""
        spread = _BEYOND * np.array([1 / doses.min(), doses.max()])
        grid = np.exp(np.linspace(-np.log(spread[0]), np.log(spread[1]), _N_DOSES))
        half, steepness = (each.ravel() for each in np.meshgrid(grid, _STEEPNESS, indexing="ij"))
        shapes = _shape(doses, half[:, None], steepness[:, None])
        precision = np.linalg.inv(covariance)
        size = _PLATEAU_SD * max(float(np.abs(responses).max()), float(np.sqrt(np.diag(covariance).max())))
        told = np.einsum("ni,ij,nj->n", shapes, precision, shapes)
        variance = 1 / (told + 1 / size**2)
        plateau = variance * (shapes @ precision @ responses)
        # Log evidence of every curve, the plateau integrated over its normal prior.
        log_evidence = 0.5 * (np.log(variance / size**2) + np.square(plateau) / variance)
        weights = np.exp(log_evidence - log_evidence.max())
        p_value = float(chi2.sf(responses @ precision @ responses, len(doses)))
        return cls(
            *(half, steepness, weights / weights.sum(), plateau, np.sqrt(variance)),
            *(float(doses.min()), float(doses.max()), len(doses), p_value),
        )

    def half_maximal_dose(self, level: float) -> tuple[float, float, float]:
        """Median of K and the ends of its central interval."""
        order = np.argsort(self.half, kind="stable")
        total = np.cumsum(self.weights[order])
        places = np.searchsorted(total, [0.5, (1 - level) / 2, (1 + level) / 2])
        middle, low, high = self.half[order][np.minimum(places, len(order) - 1)]
        return float(middle), float(low), float(high)

    def plateau_moments(self) -> tuple[float, float]:
        """Mean and standard deviation of E."""
        mean = float(self.weights @ self.plateau)
        return mean, float(np.sqrt(self.weights @ (np.square(self.plateau - mean) + np.square(self.plateau_sd))))

    def response(self, doses: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and standard deviation of the curve at some doses (n,)."""
        shapes = _shape(np.asarray(doses, dtype=np.float64), self.half[:, None], self.steepness[:, None])
        values = shapes * self.plateau[:, None]
        mean = self.weights @ values
        spread = np.square(values - mean) + np.square(shapes * self.plateau_sd[:, None])
        return mean, np.sqrt(self.weights @ spread)

    def status(self, level: float) -> str:
        """Return whether the doses say where half of the plateau lies."""
        if self.n_doses < _FEWEST_DOSES:
            return TOO_FEW
        if self.p_value > 1 - level:
            return NO_RESPONSE
        middle, low, high = self.half_maximal_dose(level)
        if self.lowest <= low and high <= self.highest:
            return COVERED
        if middle > self.highest:
            return ABOVE
        return BELOW if middle < self.lowest else OPEN

    def draws(self, n: int, rng: np.random.Generator) -> tuple[NDArray[np.float64], ...]:
        """Curves at random: half-maximal doses, steepness and plateaus (n,) each."""
        points = rng.choice(len(self.weights), n, p=self.weights)
        plateaus = self.plateau[points] + self.plateau_sd[points] * rng.standard_normal(n)
        return self.half[points], self.steepness[points], plateaus


def _shape(
    doses: NDArray[np.float64], half: NDArray[np.float64], steepness: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Share of the plateau at a dose."""
    with np.errstate(divide="ignore", over="ignore"):
        return np.asarray(1 / (1 + np.power(half / doses, steepness)))


def hill(doses: object, half: object, steepness: object, plateau: object) -> NDArray[np.float64]:
    """Responses of curves at doses; arrays broadcast."""
    shape = _shape(*(np.asarray(each, dtype=np.float64) for each in (doses, half, steepness)))
    return np.asarray(plateau, dtype=np.float64) * shape


def bliss(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Response to both if they act independently, on a scale from 0 to 1: ``f1 + f2 - f1 f2`` (Bliss 1939)."""
    return np.asarray(first + second - first * second)


def loewe(
    doses: tuple[float, float], curves: tuple[tuple[NDArray[np.float64], ...], tuple[NDArray[np.float64], ...]]
) -> NDArray[np.float64]:
    """Response to both if they are doses of one drug: f with ``d1 / D1(f) + d2 / D2(f) = 1`` (Loewe and Muischnek 1926).

    D(f) is the dose of one alone that has the response f; above its plateau there is none, and its term is 0. Curves
    are half-maximal dose, steepness and plateau of each (n,); plateaus not above 0 have no response.
    """
    plateaus = np.stack([np.maximum(curve[2], 0) for curve in curves])
    low, high = np.zeros(plateaus.shape[1]), plateaus.max(axis=0)
    for _ in range(60):
        middle = (low + high) / 2
        total = np.zeros_like(middle)
        for dose, (half, steepness, _), plateau in zip(doses, curves, plateaus, strict=True):
            reached = middle < plateau
            ratio = np.divide(plateau - middle, middle, out=np.zeros_like(middle), where=reached & (middle > 0))
            total += np.where(reached, dose / half * np.power(ratio, 1 / steepness), 0)
        above = total > 1
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return (low + high) / 2
