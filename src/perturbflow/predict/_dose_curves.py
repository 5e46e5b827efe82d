"""Curves over the doses of perturbations in a context, and what two of them do together beyond both alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import ndtri

from perturbflow.predict._hill_fit import HillPosterior, bliss, hill, loewe

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from perturbflow.predict._readout import Response

_POINTS_OF_CURVE = 41
_DRAWS = 400


@dataclass(eq=False)
class DoseCurves:
    """Responses to single perturbations and to pairs of them, by components and doses, of one context and source."""

    singles: dict[int, dict[float, Response]] = field(default_factory=dict)
    pairs: dict[tuple[int, int], dict[tuple[float, float], Response]] = field(default_factory=dict)
    _fits: dict[int, HillPosterior] = field(default_factory=dict)

    def fit(self, component: int) -> HillPosterior:
        """The curve of a component; the mean of the controls is in all of its responses."""
        if component not in self._fits:
            own = self.singles[component]
            doses = np.array(sorted(own))
            responses = [own[dose] for dose in doses]
            shared = min(one.control_variance for one in responses)
            covariance = np.diag([one.variance + one.control_variance - shared for one in responses]) + shared
            covariance += np.eye(len(doses)) * 1e-12
            self._fits[component] = HillPosterior.of(doses, np.array([one.effect for one in responses]), covariance)
        return self._fits[component]

    def curve_row(self, component: int, *, level: float) -> dict[str, Any]:
        """Half-maximal dose and plateau with their intervals."""
        fit = self.fit(component)
        middle, low, high = fit.half_maximal_dose(level)
        plateau, sd = fit.plateau_moments()
        half = float(ndtri((1 + level) / 2)) * sd
        return (
            {"ec50": middle, "ec50_lower": low, "ec50_upper": high, "plateau": plateau}
            | {"plateau_lower": plateau - half, "plateau_upper": plateau + half}
            | {"steepness": float(np.exp(fit.weights @ np.log(fit.steepness))), "n_doses": fit.n_doses}
            | {"lowest_dose": fit.lowest, "highest_dose": fit.highest, "status": fit.status(level)}
        )

    def points(self, component: int) -> list[dict[str, Any]]:
        """Responses at the doses that there are."""
        return [
            {"dose": dose, "effect": one.effect, "sd": float(np.sqrt(one.variance + one.control_variance))}
            | {"n_cells": one.n_cells}
            for dose, one in sorted(self.singles[component].items())
        ]

    def curve(self, component: int, *, level: float) -> list[dict[str, Any]]:
        """The fitted curve at doses that are evenly spaced on a logarithmic scale."""
        fit = self.fit(component)
        doses = np.geomspace(fit.lowest, fit.highest, _POINTS_OF_CURVE if fit.highest > fit.lowest else 1)
        mean, sd = fit.response(doses)
        half = float(ndtri((1 + level) / 2)) * sd
        return [
            {"dose": dose, "effect": value, "lower": value - width, "upper": value + width}
            for dose, value, width in zip(doses.tolist(), mean.tolist(), half.tolist(), strict=True)
        ]

    def full_effect(self) -> float:
        """The plateau of largest size among the curves; NaN where there is none."""
        plateaus = [self.fit(component).plateau_moments()[0] for component in self.singles]
        return max(plateaus, key=abs, default=np.nan)

    def combination_rows(
        self, components: tuple[int, int], *, full_effect: float, level: float, rng: np.random.Generator
    ) -> list[dict[str, Any]]:
        """Return what a pair does beyond what Bliss and Loewe expect, as shares of the full effect, with intervals from draws."""
        rows = []
        known = [self.fit(component).draws(_DRAWS, rng) for component in components]
        curves = [(half, steepness, plateau / full_effect) for half, steepness, plateau in known]
        for doses, one in sorted(self.pairs[components].items()):
            noise = np.sqrt(one.variance + one.control_variance) * rng.standard_normal(_DRAWS)
            together = (one.effect + noise) / full_effect
            alone = [np.clip(hill(dose, *curve), 0, 1) for dose, curve in zip(doses, curves, strict=True)]
            row: dict[str, Any] = {"response": one.effect / full_effect, "n_cells": one.n_cells}
            for name, expected in (("bliss", bliss(*alone)), ("loewe", loewe(doses, (curves[0], curves[1])))):
                row |= _excess(name, row["response"], expected, together, level)
            rows.append({"doses": doses} | row)
        return rows


def _excess(
    name: str, response: float, expected: NDArray[np.float64], together: NDArray[np.float64], level: float
) -> dict[str, float]:
    middle = float(np.median(expected))
    low, high = np.quantile(together - expected, [(1 - level) / 2, (1 + level) / 2])
    excess = {
        f"{name}_excess": response - middle,
        f"{name}_excess_lower": float(low),
        f"{name}_excess_upper": float(high),
    }
    return {f"{name}_expected": middle} | excess
