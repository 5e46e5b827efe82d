"""Register cells without a time for dynamics at rest."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from perturbflow._checks import check_columns, check_text, listing, nearest
from perturbflow.screen._fields import FIELDS_KEY, read_fields, text_column
from perturbflow.screen._labels import naming
from perturbflow.trajectories._snapshot_fields import SnapshotFields, snapshot_of

if TYPE_CHECKING:
    from anndata import AnnData

logger = logging.getLogger(__name__)


def snapshot_fields(adata: AnnData, fields: SnapshotFields) -> SnapshotFields:
    """Check the fields of a snapshot, completed by what :func:`perturbflow.pp.setup_perturbation` registered.

    Where no perturbation was named, that of the screen is taken, and its contexts and layer.
    """
    if fields.perturbation_key is None and FIELDS_KEY in adata.uns:
        screen = read_fields(adata)
        first, *others = screen.controls
        fields = replace(
            fields,
            perturbation_key=screen.perturbation_key,
            perturbation_type_key=fields.perturbation_type_key or screen.perturbation_type_key,
            control=first,
            other_controls=tuple(others),
            separator=screen.separator,
            layer=fields.layer or screen.layer,
            context_keys=screen.context_keys,
        )
    for name in ("perturbation_key", "perturbation_type_key", "layer"):
        if getattr(fields, name) is not None:
            check_text(getattr(fields, name), name=name)
    check_text(fields.separator, name="separator")
    if fields.perturbation_type_key is not None and fields.perturbation_key is None:
        msg = (
            f"Expected `perturbation_key` beside `perturbation_type_key`, found only the latter, "
            f"{fields.perturbation_type_key!r}. Name the column with the perturbed genes."
        )
        raise ValueError(msg)
    keys = [fields.perturbation_key, fields.perturbation_type_key, *fields.context_keys]
    check_columns(adata.obs.columns, [key for key in keys if key is not None])
    if fields.perturbation_key is not None:
        _check_names_genes(adata, fields)
    cells = snapshot_of(adata, fields)
    logger.info(
        "Registered a snapshot of %d cells under %d perturbations of measured genes, with %d regulators of %d genes.",
        len(cells.condition),
        len(cells.names) - 1,
        len(fields.regulators),
        adata.n_vars,
    )
    return fields


def _check_names_genes(adata: AnnData, fields: SnapshotFields) -> None:
    """Raise unless some label names measured genes."""
    labels = sorted(set(text_column(adata, str(fields.perturbation_key))))
    named = sorted({gene for label in labels for gene in fields.genes_of(label)})
    if named and not any(name in adata.var_names for name in named):
        msg = (
            f"Expected labels of `adata.obs[{fields.perturbation_key!r}]` that name genes of `adata.var_names`, or "
            f"{naming(fields.controls)}, found {listing(named)}, none of which is a gene. The most similar genes to "
            f"{named[0]!r} are {nearest(named[0], adata.var_names, n=3)}. Name the genes that are held, joined by "
            f"{fields.separator!r}, and what else was done to them in `perturbation_type_key`."
        )
        raise ValueError(msg)
