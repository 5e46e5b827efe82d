"""Reads back what :func:`perturbflow.tl.predict_perturbation` wrote, beside the real cells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse

from perturbflow._checks import check_one_of, listing
from perturbflow._docs import shares
from perturbflow.predict._controls import control_cells
from perturbflow.predict._fitted_flow import read_flow
from perturbflow.predict._predicted_cells import StoredPrediction, read_prediction
from perturbflow.screen._conditions import Vocabulary, place
from perturbflow.screen._expression import dense
from perturbflow.screen._fields import FIELDS_KEY, PerturbationFields, read_fields, read_screen
from perturbflow.screen._screen import Screen

of_prediction = shares(
    {
        "adata": "Cells with a prediction (:func:`perturbflow.tl.predict_perturbation`).",
        "perturbation": "The perturbation, with components in any order.",
        "covariates": (
            "Values of covariates, by key, to restrict the cells to; by default cells of all compared contexts."
        ),
        "key": (
            'Key of the prediction. ``adata.uns["<key>_colors"]`` may have colours: by name, or a list for control,\n'
            "observed and predicted."
        ),
    }
)


@dataclass(frozen=True, eq=False)
class Comparison:
    """Control, observed and predicted cells of one perturbation, in the contexts that all of them have.

    Rows refer to ``cells``, of which expression is read for those alone.
    """

    label: str  # canonical
    fields: PerturbationFields
    cells: Screen  # all of the AnnData
    perturbation: NDArray[np.float32] | None  # dose of every component (P,); None if these cells do not know it
    control: NDArray[np.intp]
    observed: NDArray[np.intp]  # may be empty
    predicted_rows: NDArray[np.intp]  # of the control cells (n,) that have a prediction
    predicted: sparse.csr_matrix  # (n, G)
    genes: pd.Index  # those of the AnnData that the flow knows, in the order of all arrays
    dose: str | None  # that was predicted, if it was stated
    fitted_splits: tuple[str, ...]  # that the flow has seen

    @property
    def is_observed(self) -> bool:
        """Return whether there are real cells of this perturbation."""
        return len(self.observed) > 0

    def title(self, covariates: Mapping[str, str] | None) -> str:
        """Title of a plot: what was predicted, where, and whether it was observed."""
        parts = [self.label, *([] if self.dose is None else [f"dose {self.dose}"])]
        parts += [*(str(value) for value in (covariates or {}).values())]
        return ", ".join(parts) + ("" if self.is_observed else " (not observed)")

    @property
    def sizes(self) -> dict[str, int]:
        """Numbers of cells of "control", "observed" (where there are any) and "predicted"."""
        found = {"control": len(self.control), "observed": len(self.observed), "predicted": len(self.predicted_rows)}
        return {name: size for name, size in found.items() if name != "observed" or self.is_observed}

    def sources(
        self,
        genes: NDArray[np.integer] | None = None,
        *,
        drawn: Mapping[str, NDArray[np.intp]] | None = None,
    ) -> dict[str, NDArray[np.float32]]:
        """Dense cells (n, G) by source, of some genes and of some cells; by default all."""
        rows = {"control": self.control, "observed": self.observed, "predicted": np.arange(len(self.predicted_rows))}
        rows = {name: rows[name] if drawn is None else rows[name][drawn[name]] for name in self.sizes}
        x = self.cells.x.part(genes=genes)
        predicted = self.predicted if genes is None else self.predicted[:, genes]
        return {name: dense(predicted[each] if name == "predicted" else x[each]) for name, each in rows.items()}

    def contexts(self) -> list[tuple[NDArray[np.int64], dict[str, NDArray[np.intp]]]]:
        """Covariate codes (K,) of every context, with the places of its cells within each of :meth:`sources`."""
        rows = {"control": self.control, "observed": self.observed, "predicted": self.predicted_rows}
        codes = {name: self.cells.covariates[places] for name, places in rows.items()}
        # `numpy.unique` takes no rows of length 0.
        contexts = np.unique(codes["predicted"], axis=0) if codes["predicted"].shape[1] else codes["predicted"][:1]
        return [
            (context, {name: np.flatnonzero((each == context).all(axis=1)) for name, each in codes.items()})
            for context in contexts
        ]

    def controls(self, places: NDArray[np.intp]) -> NDArray[np.floating]:
        """Dense control cells at some places of :meth:`contexts`."""
        return dense(self.cells.x[self.control[places]])

    def changes(self, drawn: Mapping[str, NDArray[np.intp]] | None = None) -> dict[str, NDArray[np.float64]]:
        """:meth:`sources`, minus the mean of the controls of the same context."""
        changes = {name: values.astype(np.float64) for name, values in self.sources(drawn=drawn).items()}
        for _, places in self.contexts():
            controls = mean(self.controls(places["control"]))
            for name, values in changes.items():
                values[places[name] if drawn is None else np.isin(drawn[name], places[name])] -= controls
        return changes

    def mean_effects(self) -> dict[str, NDArray[np.float64]]:
        """Mean minus the mean of the controls of the same context (G,), averaged over contexts."""
        effects: dict[str, list[NDArray[np.float64]]] = {"observed": [], "predicted": []}
        for _, places in self.contexts():
            control = mean(self.controls(places["control"]))
            effects["predicted"].append(mean(dense(self.predicted[places["predicted"]])) - control)
            if self.is_observed:
                effects["observed"].append(mean(dense(self.cells.x[self.observed[places["observed"]]])) - control)
        return {name: np.mean(values, axis=0) for name, values in effects.items() if values}


def read_comparison(adata: AnnData, perturbation: str, *, covariates: Mapping[str, str] | None, key: str) -> Comparison:
    """Find the prediction of ``perturbation``, the controls it started from and the real cells, if there are any."""
    record = _record(adata, key)
    flow_key = record.get("params", {}).get("key")
    fields = fields_of(adata, flow_key)
    label, predicted, dose = _prediction(adata, perturbation, fields=fields, key=key, covariates=covariates)
    genes = adata.var_names[predicted.has_gene]
    cells_of, has_prediction = np.arange(adata.n_obs), predicted.has_cell
    if fields.perturbation_key in adata.obs:
        cells = read_screen(adata, genes=genes, fields=fields)
    else:
        controls = control_cells(adata, fields, genes=genes, covariates=record["params"].get("covariates"))
        nothing = sparse.csr_matrix((1, len(fields.vocabulary.components)), dtype=np.float32)
        codes = np.zeros(len(controls.rows), dtype=np.intp)
        cells = Screen(fields, controls.x, nothing, codes, controls.covariates)
        cells_of, has_prediction = controls.rows, has_prediction[controls.rows]
    in_context = _in_context(fields.vocabulary, cells, covariates)
    is_control = cells.is_control
    has_prediction = has_prediction & in_context & is_control
    if not has_prediction.any():
        msg = (
            f"Expected control cells with a prediction of {label!r}, found none with {dict(covariates or {})}. "
            f"{_advice(label, key=key, covariates=covariates)}"
        )
        raise ValueError(msg)

    try:
        vector = fields.vocabulary.encode_perturbations([label], doses=None if dose is None else [dose])
    except ValueError:
        # A fitted flow may know perturbations that these cells, such as new controls, have not.
        vector = None
    # Compared are the contexts with both real and predicted cells, or all predicted ones if no real cell exists.
    in_context &= _in_contexts_of(cells, has_prediction)
    is_observed = _rows_equal(cells.perturbations, vector) & in_context
    if is_observed.any():
        in_context &= _in_contexts_of(cells, is_observed)
        has_prediction &= in_context
    return Comparison(
        label=label,
        fields=fields,
        cells=cells,
        perturbation=None if vector is None else vector.toarray()[0],
        control=np.flatnonzero(is_control & in_context),
        observed=np.flatnonzero(is_observed),
        predicted_rows=np.flatnonzero(has_prediction),
        predicted=predicted.cells(cells_of[has_prediction], np.flatnonzero(predicted.has_gene)),
        genes=genes,
        dose=None if dose is None else str(dose),
        fitted_splits=read_flow(adata, flow_key).fitted_splits if flow_key in adata.uns else ("train",),
    )


def mean(cells: NDArray[np.floating]) -> NDArray[np.float64]:
    """Mean of every gene (G,)."""
    return cells.mean(axis=0, dtype=np.float64)


def _record(adata: AnnData, key: str) -> Mapping[str, Any]:
    """Description of a prediction; empty where there is none, or something else."""
    record = adata.uns.get(key)
    return record if isinstance(record, Mapping) else {}


def fields_of(adata: AnnData, flow_key: str | None) -> PerturbationFields:
    """Registered fields or, for cells that were only predicted from, those of the flow."""
    if FIELDS_KEY in adata.uns or flow_key is None or flow_key not in adata.uns:
        return read_fields(adata)
    return read_flow(adata, flow_key).fields


def _prediction(
    adata: AnnData,
    perturbation: str,
    *,
    fields: PerturbationFields,
    key: str,
    covariates: Mapping[str, str] | None,
) -> tuple[str, StoredPrediction, Any]:
    """Label, predicted cells and dose of a stored prediction."""
    # With types, "KLF1" may stand for "KLF1:CRISPRa"; an unknown label is only looked up as it is.
    labels = {fields.vocabulary.written(perturbation), *fields.vocabulary.readings(perturbation)}
    record = _record(adata, key)
    stored = dict(zip(map(str, record.get("perturbations", ())), map(str, record.get("obsm", ())), strict=True))
    found = sorted(labels & set(stored))
    if len(found) > 1:
        found = [
            label for label in found if _is_predicted_in(adata, read_prediction(adata, key, stored[label]), covariates)
        ]
    if len(found) > 1:
        msg = (
            f"Expected a perturbation of one type, found {perturbation!r}{place('perturbation', covariates)}, which could be any "
            f"of {found}. Pass one of them, or a context in `covariates`."
        )
        raise ValueError(msg)
    if not found or stored[found[0]] not in adata.obsm:
        msg = (
            f"Expected predicted cells of {perturbation!r}{place('perturbation', covariates)} in `adata.uns[{key!r}]`, found "
            f"those of {listing(stored)}. "
            f"{_advice(min(labels), key=key, covariates=covariates)}"
        )
        raise KeyError(msg)
    doses = dict(zip(stored, record.get("doses", ()), strict=False))
    dose = doses.get(found[0], record.get("params", {}).get("dose"))
    return found[0], read_prediction(adata, key, stored[found[0]]), dose


def _is_predicted_in(adata: AnnData, predicted: StoredPrediction, covariates: Mapping[str, str] | None) -> bool:
    """Return whether cells with some values of covariates have a prediction."""
    here = predicted.has_cell.copy()
    for name, value in (covariates or {}).items():
        if name in adata.obs:
            here &= (adata.obs[name].astype(str) == str(value)).to_numpy()
    return bool(here.any())


def _advice(label: str, *, key: str, covariates: Mapping[str, str] | None) -> str:
    arguments = [f"[{label!r}]"]
    if covariates:
        arguments.append(f"covariates={dict(covariates)!r}")
    if key != "predicted":
        arguments.append(f"key_added={key!r}")
    return f"Run pf.tl.predict_perturbation(adata, {', '.join(arguments)}) first."


def _in_context(vocabulary: Vocabulary, cells: Screen, covariates: Mapping[str, str] | None) -> NDArray[np.bool_]:
    """Return whether every cell has the values of some covariates."""
    found = np.ones(len(cells), dtype=bool)
    known = {name: (column, categories) for column, (name, categories) in enumerate(vocabulary.covariates)}
    for name, value in (covariates or {}).items():
        check_one_of(name, known, name="a key of `covariates`")
        column, categories = known[name]
        check_one_of(value, categories, name=f"covariates[{name!r}]")
        found &= cells.covariates[:, column] == categories.index(value)
    return found


def _in_contexts_of(cells: Screen, chosen: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return whether every cell shares its context with a chosen one."""
    if not cells.covariates.shape[1]:
        return np.full(len(cells), chosen.any())
    _, context = np.unique(cells.covariates, axis=0, return_inverse=True)
    return np.isin(context.ravel(), context.ravel()[chosen])


def _rows_equal(rows: sparse.csr_matrix, vector: sparse.csr_matrix | None) -> NDArray[np.bool_]:
    """Return which rows (n, P) equal one row (1, P); none if it is None."""
    if vector is None:
        return np.zeros(rows.shape[0], dtype=bool)
    differences = rows - vector[np.zeros(rows.shape[0], dtype=int)]
    return np.asarray(abs(differences).sum(axis=1)).ravel() == 0
