"""Responses to doses: a readout of cells, Hill curves over doses, and pairs of perturbations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import chi2

from perturbflow._checks import check_key, check_unique_names
from perturbflow.flow import KINDS, Context
from perturbflow.predict._fitted_flow import FittedFlow
from perturbflow.predict._predicted_uncertainty import MeasuredMeans, PredictedMean, predicted_uncertainty

_POINTS_OF_CURVE = 41
_DRAWS = 400


COVERED, NO_RESPONSE, TOO_FEW, BELOW, ABOVE, OPEN = (
    *("covered", "no response", "too few doses", "below the lowest dose", "above the highest dose", "not determined"),
)
_STEEPNESS = np.array([0.5, 0.71, 1.0, 1.41, 2.0, 2.83, 4.0])
_BEYOND = 100.0  # times below the lowest and above the highest dose at which half of the plateau may lie
_N_DOSES = 161
_PLATEAU_SD = 5.0  # times the largest response
_FEWEST_DOSES = 3
_MOST_OF_CONTROLS = 0.9  # of the variance of an error


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


@dataclass(frozen=True, eq=False)
class HillPosterior:
    """Posterior of a curve ``E d^h / (K^h + d^h)``: weights of points of a grid of K and h, and the plateau E at each.

    So intervals hold where least squares would have none: where doses do not reach the plateau, or all lie on it.
    """

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
    """Response to both if they are one drug: f with ``d1 / D1(f) + d2 / D2(f) = 1`` (Loewe and Muischnek 1926)."""
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


@dataclass(frozen=True)
class Response:
    """Change of a readout under a perturbation, the variance of its error, that of the controls in it, and cells."""

    effect: float  # the change
    variance: float  # variance of its error, without that of the controls
    control_variance: float  # variance of the mean of the controls
    n_cells: int  # number of cells; 0 for a prediction


def readout_weights(readout: Any, genes: Sequence[str]) -> NDArray[np.float64]:
    """Weights of genes (G,): 1 for a gene, equal ones for a list, those of a mapping divided by their absolute sum."""
    if isinstance(readout, str):
        readout = [readout]
    if isinstance(readout, pd.Series):
        check_unique_names(list(map(str, readout.index)), what="genes of `readout`", hint="Name each once.")
        readout = readout.to_dict()
    if not isinstance(readout, Mapping):
        names = list(map(str, readout))
        check_unique_names(names, what="genes of `readout`", hint="Name each once.")
        readout = dict.fromkeys(names, 1.0)
    places = {gene: place for place, gene in enumerate(genes)}
    weights = np.zeros(len(genes))
    for gene, weight in readout.items():
        check_key(str(gene), places, where="the genes of the fitted flow")
        weights[places[str(gene)]] = float(weight)
    size = np.abs(weights).sum()
    if not np.isfinite(size) or size == 0:
        msg = f"Expected at least one gene with a finite weight in `readout`, found {dict(readout)}."
        raise ValueError(msg)
    return np.asarray(weights / size)


def predicted_response(
    fitted: FittedFlow, weights: NDArray[np.float64], perturbation: NDArray[np.floating], context: Context
) -> Response:
    """Prediction of a readout by a fit, whose errors go together over genes as they did in left-out conditions."""
    predicted = predicted_uncertainty(fitted, perturbation, context)
    control = predicted_uncertainty(fitted, np.zeros_like(perturbation), context)
    total, shared = (_variance(fitted, weights, each) for each in (predicted, control))
    shared = min(shared, _MOST_OF_CONTROLS * total)
    return Response(float(weights @ predicted.effect), total - shared, shared, 0)


def _variance(fitted: FittedFlow, weights: NDArray[np.float64], predicted: PredictedMean) -> float:
    codependence = float(fitted.calibration.codependence[KINDS.index(predicted.kind)])
    # A single gene goes together with nothing.
    return float((codependence if np.count_nonzero(weights) > 1 else 1.0) * (weights**2 @ predicted.sd**2))


def measured_response(
    means: MeasuredMeans, perturbation: NDArray[np.floating], covariates: NDArray[np.integer]
) -> Response | None:
    """Return what cells say of the readout of ``means``; None where there are too few of the condition or of its controls."""
    own, control = means.of(perturbation, covariates), means.of(np.zeros_like(perturbation), covariates)
    if own is None or control is None:
        return None
    effect = float(own.mean[0] - control.mean[0])
    return Response(effect, float(own.variance[0]), float(control.variance[0]), own.n_cells)
