"""Ways from control cells to a target or along a signature, and how far a predicted effect goes on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

_LEAST_VARIANCE = 0.01  # below this a gene does not gain further weight


@dataclass(frozen=True, eq=False)
class Profile:
    """Mean and variance of cells, per gene (G,), and the sampling variance of the mean."""

    mean: NDArray[np.float64]
    variance: NDArray[np.float64]
    noise: NDArray[np.float64]

    @classmethod
    def exactly(cls, mean: NDArray[np.float64]) -> Self:
        """A profile that is no sample."""
        return cls(mean, np.zeros_like(mean), np.zeros_like(mean))

    def weights(self, metric: str) -> NDArray[np.float64]:
        """Weight of every gene (G,): 1 or, "standardised", one over the variance."""
        if metric == "standardised":
            return 1 / np.maximum(self.variance, _LEAST_VARIANCE)
        return np.ones(len(self.mean))


@dataclass(frozen=True)
class Progress:
    """Progress of an effect along a direction: the score, its s.d., the cosine, what is left, and what rows are ordered by."""

    score: float
    sd: float
    cosine: float
    distance: float
    order: float


@dataclass(frozen=True, eq=False)
class Way:
    """A direction from control cells, with weights of genes."""

    direction: NDArray[np.float64]  # change of every gene that is wanted (G,)
    weights: NDArray[np.float64]  # weights of genes (G,)
    noise: float  # sum over genes of the sampling variance of the direction
    squared_length: float  # weighted squared length of the direction, without what sampling adds to it

    @classmethod
    def between(cls, start: Profile, goal: Profile, metric: str, *, sign: float = 1.0) -> Self:
        """The way from control cells to a goal, or the opposite one; ValueError if they differ no more than samples."""
        direction, weights = goal.mean - start.mean, start.weights(metric)
        noise = weights * (start.noise + goal.noise)
        squared = float(weights @ direction**2 - noise.sum())
        # Twice the standard deviation that the squared distance between samples of one distribution has.
        if squared <= 2 * np.sqrt(2 * np.square(noise).sum()):
            msg = (
                "Expected a target that differs from the control cells by more than sampling noise, found none. "
                "Choose another target, or more cells."
            )
            raise ValueError(msg)
        return cls(sign * direction, weights, float(noise.sum()), squared)

    @classmethod
    def along(cls, signature: NDArray[np.float64], start: Profile, metric: str) -> Self:
        """The way that a signature (G,) says."""
        weights = start.weights(metric)
        return cls(signature, weights, 0.0, float(weights @ signature**2))

    def _cosine(self, effect: NDArray[np.float64]) -> float:
        norm = np.sqrt(float(self.weights @ effect**2) * float(self.weights @ self.direction**2))
        return float(self.weights @ (effect * self.direction)) / norm if norm > 0 else 0.0

    def reached(self, effect: NDArray[np.float64], variance: NDArray[np.float64], codependence: float) -> Progress:
        """Share of the squared distance to the end that an effect removes."""
        rest = effect - self.direction
        raw = float(self.weights @ rest**2) - self.noise
        left = max(raw, 0.0)  # cells that were training cells too share their sampling with the prediction
        slope = 4 * codependence * float(self.weights**2 @ (rest**2 * variance))
        curvature = 2 * codependence * float(self.weights**2 @ variance**2)
        sd = float(np.sqrt(slope + curvature)) / self.squared_length
        return Progress(1 - left / self.squared_length, sd, self._cosine(effect), float(np.sqrt(left)), raw)

    def followed(self, effect: NDArray[np.float64], variance: NDArray[np.float64], codependence: float) -> Progress:
        """Return how much of the direction is in an effect: the slope of its regression on the direction through 0."""
        share = self.weights * self.direction / self.squared_length
        score = float(share @ effect)
        sd = float(np.sqrt(codependence * (share**2 @ variance)))
        return Progress(score, sd, self._cosine(effect), np.nan, -score)
