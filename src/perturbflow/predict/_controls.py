"""Control cells to predict from, and the names of what is predicted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from perturbflow._checks import check_key, listing
from perturbflow.screen._conditions import parse_label
from perturbflow.screen._expression import Expression, dense
from perturbflow.screen._fields import PerturbationFields, read_expression, text_column, type_column
from perturbflow.screen._labels import naming

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    from perturbflow.screen._conditions import Vocabulary

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
        named = zip(self.vocabulary.covariates, codes, strict=True)
        return {name: categories[code] for (name, categories), code in named}

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
    """Find the control cells of ``adata``, which need not be registered; without the perturbation column all are.

    Cells must have the values in ``covariates``, which those without such a column get. Categories that the fit does
    not know are new contexts. Raises KeyError if a covariate is missing, and ValueError if genes are missing, a cell
    has no category of a covariate, or no control cells are left.
    """
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
        msg = f"Expected a category of {listing(without)} for every control cell, found cells without. Fill them in."
        raise ValueError(msg)
    vocabulary = fields.vocabulary.with_categories(columns)
    codes = vocabulary.encode_covariates(columns, n_cells=len(rows))
    types = type_column(adata, fields)
    return ControlCells(rows, x.part(rows=rows), codes, None if types is None else types[rows], vocabulary)


def predicted_keys(labels: Sequence[str], *, key_added: str) -> dict[str, str]:
    """Name of the ``obsm`` entry of every predicted perturbation: one has ``key_added`` for itself."""
    if len(labels) == 1:
        return {labels[0]: key_added}
    return {label: f"{key_added}_{label}".replace("/", "|") for label in labels}
