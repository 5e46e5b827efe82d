"""Mean expression of conditions: as it is predicted, with its uncertainty, and as it was measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse

from perturbflow._warnings import warn
from perturbflow.flow import KINDS, Context, GroupSums, condition_kind, mean_expression
from perturbflow.flow._data import group_keys
from perturbflow.predict._controls import ControlCells
from perturbflow.predict._fitted_flow import FittedFlow
from perturbflow.predict._prediction import PredictedCondition
from perturbflow.screen._conditions import Vocabulary
from perturbflow.screen._fields import read_screen, text_column
from perturbflow.screen._screen import Screen


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
    """Return how uncertain predictions are: a table of conditions, and standard deviations, genes by perturbations."""
    prior, contexts = fitted.flow.prior, contexts_of(fitted, controls, conditions)
    rows = []
    sds: dict[str, list[tuple[int, NDArray[np.float64]]]] = {}
    for condition in conditions:
        predicted = predicted_uncertainty(fitted, condition.perturbation, contexts[condition.codes])
        unseen = np.flatnonzero((condition.perturbation != 0) & ~prior.trained)
        rows.append(
            {
                "perturbation": condition.label,
                **controls.named(condition.codes),
                "kind": predicted.kind,
                "rms_effect": float(np.sqrt(np.mean(predicted.effect**2))),
                "rms_sd": float(np.sqrt(np.mean(predicted.sd**2))),
                "feature_distance": max((prior.feature_distance(int(j)) for j in unseen), default=np.nan),
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


def context_distance(fitted: FittedFlow, context: Context) -> float:
    """Distance to the nearest perturbed context, in units of the median between such; NaN without any."""
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
            f"{_named(controls, condition.covariates)} was not in training; its position among the known contexts is "
            f"estimated from its {len(condition.members)} control cells"
        )
        measured = prior.groups.all_contexts
        if len(measured) > 1:
            nearest = prior.contexts[measured[context.distances[measured].argmin()]]
            text += (
                f". The nearest is {_named(controls, nearest)}, at {context_distance(fitted, context):.2g} times the median "
                "distance between known contexts"
            )
        warn(f"{text}. The stated uncertainties account for this. Check the name if the context should be known.")


def _named(controls: ControlCells, codes: NDArray[np.integer]) -> str:
    return ", ".join(f"{name} {value!r}" for name, value in controls.named(codes).items())


@dataclass(frozen=True, eq=False)
class MeasuredMean:
    """Mean expression of some cells and its sampling variance (G,), and how many they are."""

    mean: NDArray[np.float64]
    variance: NDArray[np.float64]
    n_cells: int


class MeasuredMeans:
    """Means of the cells of conditions, all from one pass over those that are asked for.

    Conditions that will be asked for are those with the ``doses`` (n, P), and controls; with fewer than ``min_cells``
    they count as not measured. With a ``readout``, weights of genes (G,), means are those of the weighted sum of every
    cell, one number in the place of genes.
    """

    def __init__(
        self,
        screen: Screen,
        doses: NDArray[np.float32],
        *,
        min_cells: int,
        readout: NDArray[np.float64] | None = None,
    ) -> None:
        wanted = {*_keys(sparse.csr_matrix(doses)), *_keys(sparse.csr_matrix((1, doses.shape[1]), dtype=np.float32))}
        is_wanted = np.array([name in wanted for name in _keys(screen.distinct)], dtype=bool)
        n_values = screen.n_genes if readout is None else 1
        sums = GroupSums.empty(n_values, screen.distinct.shape[1], screen.covariates.shape[1])
        for chunk in screen.chunks(np.flatnonzero(is_wanted[screen.codes])):
            x = chunk.x if readout is None else np.asarray(chunk.x @ readout)[:, None]
            sums.add(x, chunk.perturbations, chunk.covariates)
        self._sums, self._min_cells = sums, max(min_cells, 2)
        self._rows = {name: row for row, name in enumerate(group_keys(sums.doses, sums.covariates))}

    def of(self, doses: NDArray[np.floating], covariates: NDArray[np.integer]) -> MeasuredMean | None:
        """The cells of a condition by doses (P,), all zero for controls, and covariates (K,); None if too few."""
        asked = sparse.csr_matrix(np.asarray(doses, dtype=np.float32)[None])
        (name,) = group_keys(asked, np.asarray(covariates, dtype=np.int64)[None])
        row = self._rows.get(name)
        if row is None or self._sums.n_cells[row] < self._min_cells:
            return None
        n = int(self._sums.n_cells[row])
        mean = self._sums.total[row] / n
        variance = np.maximum(self._sums.squares[row] / n - np.square(mean), 0) / (n - 1)
        return MeasuredMean(mean, variance, n)


def measured_screen(adata: AnnData, flow: FittedFlow, vocabulary: Vocabulary) -> Screen | None:
    """Cells whose perturbation a flow knows, in any split; None where ``adata`` says of no cell what was done to it."""
    fields = flow.fields
    columns = (fields.perturbation_key, fields.dose_key, fields.perturbation_type_key)
    if any(column is not None and column not in adata.obs for column in columns):
        return None
    labels = text_column(adata, fields.perturbation_key)
    distinct = () if fields.perturbation_type_key else set(labels.tolist())
    unknown = [label for label in distinct if flow.vocabulary.known(label) is None]
    rows = np.flatnonzero(~np.isin(labels.astype(str), sorted(unknown))) if unknown else None
    return read_screen(adata, genes=flow.genes, fields=fields, vocabulary=vocabulary, rows=rows)


def _keys(doses: sparse.csr_matrix) -> Iterator[tuple[bytes, bytes, bytes]]:
    return group_keys(doses, np.zeros((doses.shape[0], 0), dtype=np.int64))
