"""Single cells along time as a snapshot of all of them: how they covary."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from perturbflow.dynamics import Snapshot
from perturbflow.screen._expression import dense
from perturbflow.trajectories._fields import clamped_genes, finite_expression, trajectory_groups

if TYPE_CHECKING:
    from anndata import AnnData

    from perturbflow.trajectories._fields import DynamicsFields

FEWEST_CELLS = 10


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
