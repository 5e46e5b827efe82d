"""Two perturbations alone and together in one context, as they are predicted and as they were measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from perturbflow.flow import KINDS, condition_kind
from perturbflow.flow._angle import share_error
from perturbflow.predict._interaction_fit import Pair
from perturbflow.predict._next_measurements import with_own_cells
from perturbflow.predict._predicted_uncertainty import predicted_uncertainty

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from perturbflow.flow import Context
    from perturbflow.predict._fitted_flow import FittedFlow
    from perturbflow.predict._measured_effects import MeasuredMeans


def singles_of(perturbation: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Doses of the components alone, each (P,), in the order of the vocabulary."""
    found = []
    for component in np.flatnonzero(perturbation):
        alone = np.zeros_like(perturbation)
        alone[component] = perturbation[component]
        found.append(alone)
    return found


def predicted_pair(fitted: FittedFlow, perturbation: NDArray[np.float32], context: Context) -> tuple[Pair, str]:
    """Fit of a pair, and the cells it rests on.

    Singles are taken as the fit has them; what is uncertain is what both do beyond them: the variance of interactions or, where
    the pair has cells, what these leave of it.
    """
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
