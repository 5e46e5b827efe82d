"""What a prediction starts from: control cells, and the doses asked for or else those that were measured."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse

from perturbflow._checks import check_key, check_none, listing
from perturbflow.predict._fitted_flow import FittedFlow
from perturbflow.screen._conditions import Vocabulary, parse_label, place
from perturbflow.screen._expression import Expression, dense
from perturbflow.screen._fields import PerturbationFields, read_expression, text_column, type_column
from perturbflow.screen._labels import dose_text, hashable_dose, naming, parse_dose

PREDICTED_SOURCE = "predicted"


@dataclass(frozen=True, eq=False)
class ControlCells:
    """Control cells to predict from."""

    rows: NDArray[np.intp]  # in the AnnData (n,)
    x: Expression  # expression (n, G), read when it is asked for
    covariates: NDArray[np.int64]  # codes (n, K)
    types: NDArray[np.object_] | None  # of a perturbation (n,), "" where not stated; None where not registered
    vocabulary: Vocabulary  # that of the fit, and new categories of covariates

    def dense(self, members: NDArray[np.intp]) -> NDArray[np.float32]:
        """Dense expression of some of the cells (m, G)."""
        return dense(self.x[members])

    def subset(self, keep: NDArray[np.bool_]) -> ControlCells:
        """Some of the cells, named by one boolean each."""
        types = None if self.types is None else self.types[keep]
        return ControlCells(self.rows[keep], self.x.part(rows=keep), self.covariates[keep], types, self.vocabulary)

    def named(self, codes: Iterable[int]) -> dict[str, str]:
        """Covariates of a context by name, from their codes (K,)."""
        return self.vocabulary.named(codes)

    def contexts(self) -> list[tuple[NDArray[np.int64], str | None, NDArray[np.intp]]]:
        """Covariate codes (K,), type and members (places among these cells) of every context."""
        kinds = np.zeros(len(self.rows), dtype=np.int64)
        names: list[str | None] = [None]
        if self.types is not None:
            distinct, kinds = np.unique(self.types.astype(str), return_inverse=True)
            names = [str(name) or None for name in distinct]
        keys, inverse = np.unique(np.column_stack([self.covariates, kinds]), axis=0, return_inverse=True)
        members = [np.flatnonzero(inverse.ravel() == i) for i in range(len(keys))]
        return [(key[:-1], names[key[-1]], each) for key, each in zip(keys, members, strict=True)]


def control_cells(
    adata: AnnData,
    fields: PerturbationFields,
    *,
    genes: Sequence[str],
    covariates: Mapping[str, str] | None = None,
) -> ControlCells:
    """Find the control cells of ``adata``, with these ``covariates``; without the perturbation column all cells are."""
    wanted = {name: str(value) for name, value in (covariates or {}).items()}
    known = [name for name, _ in fields.vocabulary.covariates]
    for name in wanted:
        check_key(name, known, where="the covariates of the fitted flow")
    x = read_expression(adata, fields.layer, genes=genes)
    keep = np.ones(adata.n_obs, dtype=bool)
    if fields.perturbation_key in adata.obs:
        labels = text_column(adata, fields.perturbation_key)
        is_control = {
            label: not parse_label(label, control=fields.controls, separator=fields.separator)
            for label in set(labels.tolist())
        }
        keep &= np.array([is_control[label] for label in labels], dtype=bool)
    columns = {}
    for name in known:
        if name in adata.obs or name not in wanted:
            hint = f"Add the column, or pass `covariates={{{name!r}: ...}}`."
            check_key(name, adata.obs.columns, where="adata.obs", hint=hint)
            columns[name] = text_column(adata, name, missing="")
            if name in wanted:
                found = sorted(set(columns[name].tolist()))
                if wanted[name] not in found:
                    msg = f"Expected {name!r} to be one of {listing(found)}, as in `adata.obs`, found {wanted[name]!r}."
                    raise ValueError(msg)
                keep &= columns[name] == wanted[name]
        else:
            columns[name] = np.full(adata.n_obs, wanted[name], dtype=object)
    rows = np.flatnonzero(keep)
    if not len(rows):
        msg = (
            f"Expected control cells ({naming(fields.controls)} in `adata.obs[{fields.perturbation_key!r}]`)"
            f"{f' with {wanted}' if wanted else ''}, found none among {adata.n_obs} cells. Add control cells."
        )
        raise ValueError(msg)
    columns = {name: column[rows] for name, column in columns.items()}
    without = [name for name, column in columns.items() if (column == "").any()]
    if without:
        msg = f"Expected a value of {listing(without)} for every control cell, found missing ones. Fill them in."
        raise ValueError(msg)
    vocabulary = fields.vocabulary.with_categories(columns)
    codes = vocabulary.encode_covariates(columns, n_cells=len(rows))
    types = type_column(adata, fields)
    return ControlCells(rows, x.part(rows=rows), codes, None if types is None else types[rows], vocabulary)


class DosesToPredict:
    """Doses that are asked for, and measured ones in place of those left out: in these contexts or, if in none, in any.

    A combination that was not measured has each component's own dose; one without training cells has that of the others.
    """

    def __init__(self, flow: FittedFlow, asked: Any, covariates: NDArray[np.int64]) -> None:
        self.flow, self.prior, self.vocabulary = flow, flow.flow.prior, flow.vocabulary
        asked = by_component(asked)
        self.asked = None if isinstance(asked, dict) else asked
        self.named = (
            {}
            if not isinstance(asked, dict)
            else {
                column: parse_dose(dose, 1, separator=self.vocabulary.separator)[0]
                for name, dose in asked.items()
                for column in self._columns(name)
            }
        )
        self.unused = {self._columns(name) for name in asked} if self.named else set()
        self.rows: dict[tuple[int, ...], list[int]] = {}
        doses = self.prior.groups.doses
        for row, (first, last) in enumerate(itertools.pairwise(doses.indptr)):
            self.rows.setdefault(tuple(sorted(doses.indices[first:last].tolist())), []).append(row)
        is_context = (self.prior.contexts[:, None] == covariates).all(axis=2).any(axis=1)
        self.is_here = is_context[self.prior.group_contexts]

    def of(self, name: str, kind: str | None) -> list[NDArray[np.float32]]:
        """Doses of every component (P,) at which to predict a perturbation of a type: one row, or several."""
        types = None if kind is None else [kind]
        if self.asked is not None:
            return [self.vocabulary.encode_perturbations([name], [self.asked], types).toarray()[0]]
        row = self.vocabulary.encode_perturbations([name], None, types).toarray()[0]
        columns = np.flatnonzero(row).tolist()
        self.unused = {each for each in self.unused if not set(each) & set(columns)}
        found = []
        for doses in self._doses(columns):
            row = np.zeros_like(row)
            row[columns] = doses
            found.append(row)
        return found

    def check_names(self) -> None:
        """Raise ValueError if doses are asked for components that no perturbation had."""
        names = [self.vocabulary.components[column] for each in sorted(self.unused) for column in each]
        check_none(names, "components of the perturbations in `dose`", hint="Omit them.")

    def _columns(self, name: object) -> tuple[int, ...]:
        """Components of a name: without a type it stands for all of them, of which every context has its own."""
        known = self.vocabulary.components
        tokens = self.vocabulary.readings(str(name)) or (self.vocabulary.canonical(str(name), where=place("dose")),)
        if not set(tokens) <= set(known):
            msg = f"Expected single perturbations in `dose`, found {name!r}. List its components, each with its dose."
            raise ValueError(msg)
        return tuple(known.index(token) for token in tokens)

    def _doses(self, columns: list[int]) -> list[tuple[float, ...]]:
        """Doses of some components together."""
        if self.flow.fields.dose_key is None:
            return [tuple(self.named.get(column, 1.0) for column in columns)]
        asked = {column: float(np.float32(self.named[column])) for column in columns if column in self.named}
        measured = [
            row
            for row in self.rows.get(tuple(columns), [])
            if all(self.prior.groups.doses[row, column] == dose for column, dose in asked.items())
        ]
        if measured:
            return self._distinct(measured, columns)
        each = [[asked[column]] if column in asked else self._of_component(column) for column in columns]
        for column, doses in zip(columns, each, strict=True):
            if len(doses) > 1 and len(columns) > 1:
                name = self.vocabulary.components[column]
                msg = (
                    f"Expected a dose of {name!r} in combinations, where it was measured at "
                    f"{listing(map(dose_text, doses))}, found none. Pass one as `dose`, such as "
                    f"`dose={{{name!r}: {dose_text(doses[-1])}}}`."
                )
                raise ValueError(msg)
        return list(itertools.product(*each))

    def _of_component(self, column: int) -> list[float]:
        rows = self.rows.get((column,)) or self.prior.groups.with_component(column).tolist()
        if rows:
            return [dose for (dose,) in self._distinct(rows, [column])]
        by_column = sparse.csc_matrix(self.prior.groups.doses)
        own = np.split(by_column.data, by_column.indptr[1:-1])
        designs = {tuple(np.unique(doses).tolist()) for doses in own if len(doses)}
        if len(designs) != 1:
            known = sorted({dose for design in designs for dose in design})
            name = self.vocabulary.components[column]
            msg = (
                f"Expected a dose of {name!r}, which has no training cells to take it from, found none. "
                f"Pass one as `dose`, such as `dose={{{name!r}: 1}}`; other perturbations were measured at "
                f"{listing(map(dose_text, known))}."
            )
            raise ValueError(msg)
        return list(designs.pop())

    def _distinct(self, rows: list[int], columns: list[int]) -> list[tuple[float, ...]]:
        """Doses in some training groups: those in the contexts of the prediction, if there are any."""
        rows = [row for row in rows if self.is_here[row]] or rows
        return sorted(set(map(tuple, self.prior.groups.doses[rows][:, columns].toarray().tolist())))


def by_component(dose: Any) -> Any:
    """Doses by component as a dictionary; any other dose as it is."""
    if isinstance(dose, pd.Series):
        return dose.to_dict()
    return dict(dose) if isinstance(dose, Mapping) else dose


def recorded_dose(dose: Any) -> Any:
    """Write a dose that was asked for as values that files can hold."""
    dose = by_component(dose)
    if isinstance(dose, dict):
        return {str(name): float(each) for name, each in dose.items()}
    dose = hashable_dose(dose)
    if isinstance(dose, tuple):
        return list(map(float, dose))
    return dose if isinstance(dose, str) else float(dose)


def new_doses(flow: FittedFlow, perturbations: NDArray[np.float32]) -> list[str]:
    """Describe doses that were never measured, but are not above those that were: "A at 31 (between 10 and 100)"."""
    found = []
    for column in np.flatnonzero(perturbations.any(axis=0) & flow.flow.prior.trained):
        groups = flow.flow.prior.groups
        own = groups.doses[groups.with_component(int(column)), column].toarray()
        measured = np.unique(np.append(own, np.float32(0)))
        for dose in np.setdiff1d(perturbations[:, column], measured):
            above = int(np.searchsorted(measured, dose))
            if above < len(measured):
                low = "no effect at 0" if above == 1 else dose_text(measured[above - 1])
                name = flow.vocabulary.components[column]
                found.append(f"{name} at {dose_text(dose)} (between {low} and {dose_text(measured[above])})")
    return found
