"""What two perturbations do together, fitted on what each does alone, as it is predicted and as it was measured."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from perturbflow.flow import KINDS, Context, condition_kind
from perturbflow.flow._hurdle_distribution import share_error
from perturbflow.predict._fitted_flow import FittedFlow
from perturbflow.predict._next_measurements import with_own_cells
from perturbflow.predict._predicted_uncertainty import MeasuredMeans, predicted_uncertainty

ADDITIVE, SYNERGISTIC, SUPPRESSIVE, EPISTATIC, NEOMORPHIC, UNDETERMINED, NOT_MEASURABLE = (
    *("additive", "synergistic", "suppressive", "epistatic", "neomorphic", "undetermined", "not measurable"),
)
_ADDITIVE_RANGE = 2 / 3, 3 / 2  # of the magnitude
_DOMINANT = 0.5  # beyond it one of the two counts three times as much as the other
_NEW = 0.5  # share of the effect that is in no direction of the two


_WITH_INTERVALS = ("coefficient_1", "coefficient_2", "magnitude", "dominance")


@dataclass(frozen=True, eq=False)
class Pair:
    """Effects of two perturbations alone and together (G,), with variances without that of the controls."""

    first: NDArray[np.float64]
    second: NDArray[np.float64]
    both: NDArray[np.float64]
    first_variance: NDArray[np.float64]
    second_variance: NDArray[np.float64]
    both_variance: NDArray[np.float64]
    control_variance: NDArray[np.float64]
    codependence: float = 1.0  # variance of a projection of the errors, relative to independent genes

    @property
    def interaction(self) -> NDArray[np.float64]:
        """Return what both do beyond the sum (G,)."""
        return self.both - self.first - self.second

    @property
    def interaction_variance(self) -> NDArray[np.float64]:
        """Variance of its error (G,); the mean of the controls is in it once."""
        return self.first_variance + self.second_variance + self.both_variance + self.control_variance


def interaction_fit(pair: Pair, *, level: float) -> dict[str, float | str]:
    """Coefficients of ``both ~ c1 first + c2 second``, what follows from them, and a class.

    Regression with errors in variables (Fuller 1987): least squares without what the errors of effects add to the products,
    and the covariance of its estimating equations.
    """
    effects = np.stack([pair.first, pair.second])
    noise = np.diag([pair.first_variance.sum(), pair.second_variance.sum()]) + pair.control_variance.sum()
    inner = effects @ effects.T - noise
    total = float(pair.both @ pair.both - pair.both_variance.sum() - pair.control_variance.sum())
    squared = np.square(pair.interaction) - pair.interaction_variance
    found: dict[str, float | str] = {"interaction_rms": float(np.sqrt(max(squared.mean(), 0.0)))}
    if min(np.linalg.eigvalsh(inner)) <= 0 or total <= 0:
        names = [f"{name}{end}" for name in _WITH_INTERVALS for end in ("", "_lower", "_upper")]
        return dict.fromkeys([*names, "fit", "similarity"], np.nan) | found | {"class": NOT_MEASURABLE}
    inverse = np.linalg.inv(inner)
    coefficients = inverse @ (effects @ pair.both - pair.control_variance.sum())
    rest = pair.both - coefficients @ effects
    rest_variance = (
        pair.both_variance
        + np.square(coefficients) @ np.stack([pair.first_variance, pair.second_variance])
        + (1 - coefficients.sum()) ** 2 * pair.control_variance
    )
    # Products of normal errors have the moments of Isserlis; products of effects have those of their errors in them.
    left = np.square(rest) - rest_variance  # without a cut at 0, which would add up over genes
    alone = np.stack([pair.first_variance, pair.second_variance])
    together = (1 - coefficients.sum()) * pair.control_variance - coefficients[:, None] * alone  # of x and of the rest
    crossed = (effects * rest - together) @ together.T
    spread = (effects * rest_variance) @ effects.T + crossed + crossed.T + together @ together.T
    spread += np.diag(np.maximum(alone @ left, 0)) + max(float(left @ pair.control_variance), 0.0)
    covariance = pair.codependence * inverse @ spread @ inverse

    unexplained = float(left.sum())
    squares = float((4 * left * rest_variance + 2 * np.square(rest_variance)).sum())
    unexplained_sd = np.sqrt(pair.codependence * max(squares, 0.0))
    values, slopes = _derived(coefficients)
    sds = np.sqrt(np.maximum(np.einsum("vi,ij,vj->v", slopes, covariance, slopes), 0))
    half = float(ndtri((1 + level) / 2)) * sds
    for name, value, width in zip(_WITH_INTERVALS, values, half, strict=True):
        found |= {name: float(value), f"{name}_lower": float(value - width), f"{name}_upper": float(value + width)}
    found["fit"] = 1 - unexplained / total
    found["similarity"] = float(inner[0, 1] / np.sqrt(inner[0, 0] * inner[1, 1]))
    least_new = (unexplained - float(ndtri((1 + level) / 2)) * unexplained_sd) / total
    return found | {"class": _class_of(values[2:], half[2:], least_new)}


def _derived(coefficients: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Coefficients, magnitude and dominance (4,), and their derivatives with respect to the coefficients (4, 2)."""
    first, second = np.abs(coefficients)
    size = max(float(first + second), 1e-12)
    magnitude = np.sqrt(np.square(coefficients).mean())
    dominance = 2 * np.sign(coefficients) * np.array([second, -first]) / size**2
    slopes = np.vstack([np.eye(2), coefficients / (2 * max(float(magnitude), 1e-12)), dominance])
    return np.array([*coefficients, magnitude, (first - second) / size]), slopes


def _class_of(values: NDArray[np.float64], half: NDArray[np.float64], least_new: float) -> str:
    """Class by magnitude and dominance, the halves of their intervals, and the least that is in no direction of the two."""
    (magnitude, dominance), (wide, far) = values, half
    if least_new > _NEW:
        return NEOMORPHIC
    if abs(dominance) - far > _DOMINANT:
        return EPISTATIC
    if magnitude - wide > 1:
        return SYNERGISTIC
    if magnitude + wide < 1:
        return SUPPRESSIVE
    low, high = _ADDITIVE_RANGE
    return ADDITIVE if low < magnitude - wide and magnitude + wide < high else UNDETERMINED


def singles_of(perturbation: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Doses of the components alone, each (P,), in the order of the vocabulary."""
    found = []
    for component in np.flatnonzero(perturbation):
        alone = np.zeros_like(perturbation)
        alone[component] = perturbation[component]
        found.append(alone)
    return found


def predicted_pair(fitted: FittedFlow, perturbation: NDArray[np.float32], context: Context) -> tuple[Pair, str]:
    """Pair as a fit has it, and the cells it rests on; what is uncertain is what both do beyond the singles."""
    prior, calibration = fitted.flow.prior, fitted.calibration
    kind = condition_kind(prior, perturbation, context)
    first, second, both = (
        predicted_uncertainty(fitted, each, context).effect for each in (*singles_of(perturbation), perturbation)
    )
    distribution = prior.distribution(perturbation, context)
    share, mean = distribution.expressed.astype(np.float64), distribution.mean.astype(np.float64)
    variances = prior.interaction_variances.astype(np.float64)
    if kind == "seen":
        variances = with_own_cells(fitted, perturbation, context, share, variances)
    sds = np.sqrt(variances)
    sd = np.hypot(mean * share_error(share, sds[0]), share * sds[1])
    variance = np.square(calibration.factor(kind, sd) * sd)
    nothing = np.zeros_like(first)
    codependence = float(calibration.codependence[KINDS.index(kind)])
    return Pair(first, second, both, nothing, nothing, variance, nothing, codependence), kind


def measured_pair(
    fitted: FittedFlow, means: MeasuredMeans, perturbation: NDArray[np.float32], covariates: NDArray[np.int64]
) -> tuple[Pair, int] | None:
    """Return what cells say of a pair, and their number; None unless controls, both singles and the pair have some."""
    singles = [means.of(each, covariates) for each in singles_of(perturbation)]
    both, control = means.of(perturbation, covariates), means.of(np.zeros_like(perturbation), covariates)
    if both is None or control is None or singles[0] is None or singles[1] is None:
        return None
    first, second = singles[0], singles[1]
    pair = Pair(
        first.mean - control.mean,
        second.mean - control.mean,
        both.mean - control.mean,
        first.variance,
        second.variance,
        both.variance,
        control.variance,
        # How sampling goes together over genes is what predictions of known conditions have been off by.
        max(float(fitted.calibration.codependence[0]), 1.0),
    )
    return pair, both.n_cells
