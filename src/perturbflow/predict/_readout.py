"""A number for every cell: a gene, the mean of some, or a weighted sum; as it is predicted and as it was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from perturbflow._checks import check_key, check_unique_names
from perturbflow.flow import KINDS
from perturbflow.predict._predicted_uncertainty import predicted_uncertainty

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from perturbflow.flow import Context
    from perturbflow.predict._fitted_flow import FittedFlow
    from perturbflow.predict._measured_effects import MeasuredMeans
    from perturbflow.predict._predicted_uncertainty import PredictedMean

_MOST_OF_CONTROLS = 0.9  # of the variance of an error


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
        msg = f"Expected at least one gene with a finite weight in `readout`, found {dict(readout)}. Name a gene."
        raise ValueError(msg)
    return np.asarray(weights / size)


def predicted_response(
    fitted: FittedFlow, weights: NDArray[np.float64], perturbation: NDArray[np.floating], context: Context
) -> Response:
    """Prediction of a readout by a fit.

    Errors of genes go together as they did in left-out conditions; what is not known of the controls is in all responses of
    a context.
    """
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
