"""Uncertainty of the mean expression of a predicted condition."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from perturbflow._warnings import warn
from perturbflow.flow import KINDS, condition_kind, mean_expression

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from perturbflow.flow import Context
    from perturbflow.predict._controls import ControlCells
    from perturbflow.predict._fitted_flow import FittedFlow
    from perturbflow.predict._prediction import PredictedCondition


@dataclass(frozen=True, eq=False)
class PredictedMean:
    """Mean expression of a condition, by the prior of the flow, and how well it is known."""

    kind: str  # what the prediction rests on, see `condition_kind`
    effect: NDArray[np.float64]  # difference of mean expression from that of the controls of the context (G,)
    sd: NDArray[np.float64]  # calibrated root mean square of its error (G,)
    codependence: float  # variance of a projection of the errors, relative to independent genes


def predicted_uncertainty(fitted: FittedFlow, perturbation: NDArray[np.floating], context: Context) -> PredictedMean:
    """Mean expression of every gene in a condition, doses (P,) in a context, with its uncertainty."""
    prior = fitted.flow.prior
    calibration = fitted.calibration
    kind = condition_kind(prior, perturbation, context)
    mean, sd = mean_expression(prior, perturbation, context)
    control, _ = mean_expression(prior, np.zeros_like(perturbation), context)
    return PredictedMean(
        kind=kind,
        effect=mean - control,
        sd=calibration.factor(kind, sd) * sd,
        codependence=float(calibration.codependence[KINDS.index(kind)]),
    )


def context_of(fitted: FittedFlow, controls: ControlCells, condition: PredictedCondition) -> Context:
    """Return where a condition is predicted; control cells are read only where the flow does not know the context."""
    prior = fitted.flow.prior
    is_known = (prior.contexts == condition.covariates).all(axis=1).any()
    return prior.context(condition.covariates, None if is_known else controls.x[condition.members])


def contexts_of(
    fitted: FittedFlow, controls: ControlCells, conditions: Sequence[PredictedCondition]
) -> dict[tuple[int, ...], Context]:
    """Return where conditions are predicted, each context once, by its codes."""
    first: dict[tuple[int, ...], PredictedCondition] = {}
    for condition in conditions:
        first.setdefault(condition.codes, condition)
    return {codes: context_of(fitted, controls, condition) for codes, condition in first.items()}


def uncertainty_tables(
    fitted: FittedFlow, controls: ControlCells, conditions: Sequence[PredictedCondition]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return how uncertain predictions are: a table of conditions, and standard deviations, genes by perturbations.

    Columns of the former are ``perturbation``, one a covariate, ``kind``, ``rms_effect`` and ``rms_sd`` (root mean
    squares over genes of the predicted effect on the mean expression and of its standard deviation),
    ``feature_distance`` (the largest of its components without training cells) and ``context_distance``. The latter are
    of the mean over contexts, whose errors are taken to go together.
    """
    contexts = contexts_of(fitted, controls, conditions)
    rows = []
    sds: dict[str, list[tuple[int, NDArray[np.float64]]]] = {}
    for condition in conditions:
        predicted = predicted_uncertainty(fitted, condition.perturbation, contexts[condition.codes])
        rows.append(
            {
                "perturbation": condition.label,
                **controls.named(condition.codes),
                "kind": predicted.kind,
                "rms_effect": float(np.sqrt(np.mean(predicted.effect**2))),
                "rms_sd": float(np.sqrt(np.mean(predicted.sd**2))),
                "feature_distance": _feature_distance(fitted, condition.perturbation),
                "context_distance": context_distance(fitted, contexts[condition.codes]),
            }
        )
        sds.setdefault(condition.label, []).append((len(condition.members), predicted.sd))
    means = {
        # Files read a slash as a folder.
        label.replace("/", "|"): np.average([sd for _, sd in parts], axis=0, weights=[n for n, _ in parts])
        for label, parts in sds.items()
    }
    return pd.DataFrame(rows), pd.DataFrame(means, index=list(fitted.genes))


def _feature_distance(fitted: FittedFlow, perturbation: NDArray[np.floating]) -> float:
    prior = fitted.flow.prior
    unseen = np.flatnonzero((np.asarray(perturbation) != 0) & ~prior.trained)
    return max((prior.feature_distance(int(j)) for j in unseen), default=np.nan)


def context_distance(fitted: FittedFlow, context: Context) -> float:
    """Return how far a context is from the nearest with perturbed training cells, by the mean profile of its control cells.

    It is in units of the median between such contexts: 0 for one of them, NaN where there is none.
    """
    measured = fitted.flow.prior.groups.all_contexts
    return float(np.sqrt(context.distances[measured].min())) if len(measured) else np.nan


def warn_of_new_contexts(fitted: FittedFlow, controls: ControlCells, conditions: Sequence[PredictedCondition]) -> None:
    """Warn of contexts that the fit does not know, with the nearest that it does."""
    prior = fitted.flow.prior
    told = {tuple(codes) for codes in prior.contexts.tolist()}
    for condition in conditions:
        if condition.codes in told:
            continue
        told.add(condition.codes)
        context = context_of(fitted, controls, condition)
        text = (
            f"{_named(controls, condition.covariates)} was not in training: it is placed by its "
            f"{len(condition.members)} control cells"
        )
        measured = prior.groups.all_contexts
        if len(measured) > 1:
            nearest = prior.contexts[measured[context.distances[measured].argmin()]]
            text += (
                f", nearest to {_named(controls, nearest)}, at {context_distance(fitted, context):.2g} of the median "
                "distance between known contexts"
            )
        warn(f"{text}. Uncertainties say what that leaves open; check the name if it should be known.")


def _named(controls: ControlCells, codes: NDArray[np.integer]) -> str:
    return ", ".join(f"{name} {value!r}" for name, value in controls.named(codes).items())
