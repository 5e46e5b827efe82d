"""Registered fields of cells without a time, and how cells, of courses too, become a snapshot."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from perturbflow._checks import check_none, listing
from perturbflow._warnings import warn
from perturbflow.dynamics import Snapshot
from perturbflow.screen._expression import dense
from perturbflow.screen._fields import text_column
from perturbflow.trajectories._fields import (
    DYNAMICS_FIELDS_KEY,
    CellFields,
    DynamicsFields,
    clamped_genes,
    finite_expression,
    trajectory_groups,
)

logger = logging.getLogger(__name__)

FEWEST_CELLS = 10  # of a condition, for its means and spreads


@dataclass(frozen=True)
class SnapshotFields(CellFields):
    """Registered fields of cells at rest."""

    perturbation_type_key: str | None = None  # column of `obs` with the kind of an intervention
    context_keys: tuple[str, ...] = ()  # columns of `obs` whose values are compared only with themselves


def is_snapshot(adata: AnnData) -> bool:
    """Return whether cells without a time are registered."""
    return "time_key" not in adata.uns.get(DYNAMICS_FIELDS_KEY, {"time_key": ""})


def read_snapshot_fields(adata: AnnData) -> SnapshotFields:
    """Read registered fields of a snapshot and check that all they name is still there."""
    fields = SnapshotFields.from_dict(adata.uns[DYNAMICS_FIELDS_KEY])
    fields.check_present(adata, fields.perturbation_type_key, *fields.context_keys)
    return fields


def snapshot_of(adata: AnnData, fields: SnapshotFields) -> Snapshot:
    """Collect the cells of every condition.

    Conditions that hold no measured gene, or have fewer than ten cells, are left out with a warning. The kinds of a
    perturbation, such as knock-down and activation, are conditions of their own. Conditions are named "GATA1", or
    "GATA1|CRISPRi" where kinds are registered. Raises ValueError if there are fewer than ten control cells, or none in
    a context.
    """
    x = finite_expression(adata, fields.layer)
    labels = _conditions(adata, fields)
    codes, found = pd.factorize(pd.MultiIndex.from_arrays(labels), sort=True)
    genes = [fields.genes_of(label) for label, _ in found]
    n_cells = np.bincount(codes, minlength=len(found))
    control = [k for k, parts in enumerate(genes) if not parts]
    n_control = int(n_cells[control].sum())
    if n_control < FEWEST_CELLS:
        msg = (
            f"Expected at least {FEWEST_CELLS} cells without intervention, found {n_control}. Pass their labels to "
            "`pf.pp.setup_dynamics(adata, control=...)`."
        )
        raise ValueError(msg)
    kept = [k for k, parts in enumerate(genes) if parts and set(parts) <= {*adata.var_names}]
    few = [k for k in kept if n_cells[k] < FEWEST_CELLS]
    unknown = [k for k, parts in enumerate(genes) if parts and k not in kept]
    kept = [k for k in kept if k not in few]
    _warn_left_out([_name(found[k]) for k in unknown], "target genes that are not in `adata.var_names`")
    _warn_left_out([_name(found[k]) for k in few], f"have fewer than {FEWEST_CELLS} cells")

    number = np.full(len(found), -1, dtype=np.intp)
    number[control] = 0
    number[kept] = 1 + np.arange(len(kept))
    condition = number[codes]
    rows = np.flatnonzero(condition >= 0)
    held = np.zeros((1 + len(kept), adata.n_vars), dtype=bool)
    for row, k in enumerate(kept, start=1):
        held[row, adata.var_names.get_indexer(list(genes[k]))] = True
    chosen = x if len(rows) == adata.n_obs else x[rows]
    return Snapshot(
        levels=dense(chosen),
        condition=condition[rows],
        names=(fields.control, *(_name(found[k]) for k in kept)),
        held=held,
        regulators=tuple(int(k) for k in np.sort(adata.var_names.get_indexer(list(fields.regulators)))),
        context=_contexts(adata, fields, rows, condition[rows]),
    )


def _conditions(adata: AnnData, fields: SnapshotFields) -> list[NDArray[np.object_]]:
    """Label, with genes in alphabetical order, and kind of the perturbation of every cell; "" for no kind."""
    labels, kinds = fields.canonical_labels(adata), np.full(adata.n_obs, "", dtype=object)
    if fields.perturbation_key is not None and fields.perturbation_type_key is not None:
        given = text_column(adata, fields.perturbation_type_key, missing="")
        kinds = np.where(labels == fields.control, "", given)
    return [labels, kinds]


def _contexts(
    adata: AnnData, fields: SnapshotFields, rows: NDArray[np.intp], condition: NDArray[np.intp]
) -> NDArray[np.intp]:
    """Number of the context of some cells; an error if one has no control cells."""
    if not fields.context_keys:
        return np.zeros(len(rows), dtype=np.intp)
    columns = [text_column(adata, key)[rows] for key in fields.context_keys]
    codes, names = pd.factorize(pd.MultiIndex.from_arrays(columns), sort=True)
    alone = np.setdiff1d(codes, codes[condition == 0])
    expected = f"control cells in every context of {list(fields.context_keys)}"
    check_none((names[k] for k in alone), expected, found="none in ", hint="Remove these cells.")
    return codes.astype(np.intp)


def _name(condition: tuple[str, str]) -> str:
    return "|".join(part for part in condition if part)


def _warn_left_out(names: list[str], why: str) -> None:
    if names:
        warn(f"{len(names)} perturbations are omitted, because they {why}: {listing(names)}.")


def course_cells(adata: AnnData, fields: DynamicsFields) -> Snapshot:
    """Collect all cells, whatever their time and trajectory, by the genes that a perturbation holds in them.

    Time is not taken out: what genes have in common along it is part of how they covary. There is one condition without
    held genes where fewer than ten cells are unperturbed.
    """
    levels = dense(finite_expression(adata, fields.layer))
    groups, codes = trajectory_groups(adata, fields)
    labels = [fields.control, *sorted(set(groups["perturbation"]) - {fields.control})]
    condition = np.array([labels.index(label) for label in groups["perturbation"]], dtype=np.intp)[codes]
    held = clamped_genes(adata, labels, fields)
    if (condition == 0).sum() < FEWEST_CELLS:
        labels, condition, held = labels[:1], np.zeros_like(condition), held[:1]
    return Snapshot(
        levels=levels,
        condition=condition,
        names=tuple(labels),
        held=held,
        regulators=tuple(int(k) for k in np.sort(adata.var_names.get_indexer(list(fields.regulators)))),
        context=np.zeros(adata.n_obs, dtype=np.intp),
    )
