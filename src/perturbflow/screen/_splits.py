"""The split of the cells: read from ``obs``, and checked against what was held out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from perturbflow._checks import check_key, listing
from perturbflow.screen._condition_frame import condition_frame
from perturbflow.screen._fields import PerturbationFields, read_fields, text_column
from perturbflow.screen._split_names import SPLITS, split_meanings

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray


def split_identity(fields: PerturbationFields) -> dict[str, Any]:
    """Fields that give conditions their names; a split is valid for these."""
    names = {
        "perturbation_key": fields.perturbation_key,
        "control": fields.control,
        "separator": fields.separator,
        "covariate_keys": list(fields.covariate_keys),
    }
    if len(fields.controls) > 1:
        names["controls"] = list(fields.controls)
    if fields.perturbation_type_key is not None:
        names["perturbation_type_key"] = fields.perturbation_type_key
    return names


def read_split(adata: AnnData, key: str = "split") -> NDArray[np.str_]:
    """Read the split of every cell: "train", "valid" or "test". Other names for these are understood, and logged."""
    hint = f"Run `pf.pp.split_perturbations(adata, ..., key_added={key!r})` first."
    check_key(key, adata.obs.columns, where="adata.obs", hint=hint)
    names = text_column(adata, key)
    known = dict(zip(names.tolist(), adata.obs[key].tolist(), strict=True))
    meaning = split_meanings(known, where=f"adata.obs[{key!r}]")
    return np.array([meaning[name] for name in names.tolist()], dtype=str)


def check_no_leakage(
    adata: AnnData, split_key: str = "split", *, fields: PerturbationFields | None = None
) -> NDArray[np.str_]:
    """Read the split; raise if cells of held-out conditions are where a fit would see them.

    Cells of test conditions must all be "test", cells of validation conditions "valid" or "test". Conditions are
    compared by their canonical labels: the order of the components does not matter, nor does the dose. A split that
    ``pf.pp.split_perturbations`` has not written has no list of held-out conditions, and passes. Returns the split of
    every cell, see :func:`read_split`.
    """
    split = read_split(adata, split_key)
    record = adata.uns.get(split_key)
    if not isinstance(record, Mapping) or "held_out" not in record:
        return split
    fields = read_fields(adata) if fields is None else fields
    again = f"Run `pf.pp.split_perturbations(adata, ..., key_added={split_key!r})` again."
    made_for = {name: value if isinstance(value, str) else list(value) for name, value in record["fields"].items()}
    if made_for != split_identity(fields):
        msg = f"Expected a split for the registered fields {split_identity(fields)}, found one for {made_for}. {again}"
        raise ValueError(msg)

    # Elsewhere a perturbation is held out in all contexts, also in those of cells that were added later.
    names = ["perturbation", *(fields.covariate_keys if record["task"] == "covariate_transfer" else ())]
    held_out = record["held_out"].drop_duplicates(names)
    conditions, codes = condition_frame(adata, fields=fields, with_batch=False)
    recorded = pd.MultiIndex.from_frame(held_out[names].astype(object))
    places = recorded.get_indexer(pd.MultiIndex.from_frame(conditions[names].astype(object)))
    # The last entry is for conditions that are not held out, whose place is -1.
    least = np.array([*map(SPLITS.index, held_out["split"]), SPLITS.index("train")])[places][codes]
    leaking = pd.Index(SPLITS).get_indexer(split) < least
    if leaking.any():
        found = conditions.loc[np.unique(codes[leaking]), names].agg(" in ".join, axis=1)
        msg = (
            f"Expected no cells of held-out conditions in training, found {leaking.sum()} cells of "
            f"{listing(found)} in {sorted(set(split[leaking].tolist()))}. {again}"
        )
        raise ValueError(msg)
    return split
