"""Record of a split in AnnData, with the hashes by which two studies can compare their splits."""

from __future__ import annotations

import hashlib
import json
import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from perturbflow.pp._held_out import Conditions
from perturbflow.screen._conditions import parse_label
from perturbflow.screen._fields import PerturbationFields
from perturbflow.screen._split_names import SPLITS
from perturbflow.screen._splits import split_identity
from perturbflow.store._keys import check_key_added

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

logger = logging.getLogger(__name__)


def check_split_key(adata: AnnData, key: str, fields: PerturbationFields) -> None:
    """Raise if the split would overwrite anything but a split."""
    check_key_added(adata, key, "split", beside=[("obs", key)])
    registered = {
        fields.perturbation_key,
        *fields.context_keys,
        *filter(None, (fields.dose_key, fields.perturbation_type_key)),
    }
    if key in registered:
        msg = (
            f"Expected `key_added` to be none of the registered columns of `adata.obs`, found {key!r}. "
            "Choose another `key_added`."
        )
        raise ValueError(msg)


def condition_hash(
    table: pd.DataFrame, codes: NDArray[np.integer], split: NDArray[np.str_], fields: PerturbationFields
) -> str:
    """Hash which perturbed condition is in which split.

    SHA-256 of the JSON, without spaces, of the sorted list of ``[components, covariates, split]``: names of the
    components in alphabetical order, and pairs of a covariate and its value in alphabetical order. Doses and the batch
    are not a part of it, nor are controls, the separator, or the numbers of cells.
    """
    pairs = pd.DataFrame({"row": codes, "split": split}).drop_duplicates()
    keys = sorted(fields.covariate_keys)
    covariates = table[keys].astype(str).to_numpy(dtype=object)
    entries = set()
    for row, name in zip(pairs["row"], pairs["split"], strict=True):
        parts = parse_label(table["perturbation"].iloc[row], control=fields.control, separator=fields.separator)
        if parts:
            entries.add((tuple(sorted(parts)), tuple(zip(keys, covariates[row], strict=True)), str(name)))
    return _sha256(sorted(entries))


def cell_hash(names: pd.Index, split: NDArray[np.str_]) -> str:
    """Hash which cell is in which split: SHA-256 of the JSON, without spaces, of the sorted list of ``[name, split]``."""
    return _sha256(sorted(zip(map(str, names), split.tolist(), strict=True)))


def _sha256(entries: list[tuple[Any, ...]]) -> str:
    return hashlib.sha256(json.dumps(entries, separators=(",", ":")).encode()).hexdigest()


def merge_doses(
    table: pd.DataFrame, fields: PerturbationFields
) -> tuple[pd.DataFrame, Conditions, NDArray[np.integer]]:
    """Take the doses of one perturbation in one context together: for a split they are one condition.

    Returns the table with ``n_cells``, the same as conditions to divide, and its row of every row of ``table``.
    """
    names = ["perturbation", *fields.covariate_keys]
    groups = table.groupby(names, sort=False)
    merged = groups["n_cells"].sum().reset_index()
    conditions = Conditions(merged[names], fields.covariate_keys, fields.control, fields.separator)
    return merged, conditions, groups.ngroup().to_numpy()


def held_out_table(
    merged: pd.DataFrame, split: NDArray[np.str_], fields: PerturbationFields, more: pd.DataFrame | None = None
) -> pd.DataFrame:
    """List the conditions that are held out, sorted by split; ``more`` has further columns."""
    names = ["perturbation", *fields.covariate_keys]
    record = pd.concat([merged[names], pd.DataFrame({"split": split}), merged[["n_cells"]], more], axis=1)
    record = record[split != "train"].sort_values(["split", *names])
    record.index = pd.Index([str(row) for row in range(len(record))])
    return record


def write_split(
    adata: AnnData,
    split: NDArray[np.str_],
    record: dict[str, Any],
    *,
    key: str,
    fields: PerturbationFields,
    conditions: tuple[pd.DataFrame, NDArray[np.intp]],
) -> None:
    """Write the split to ``obs``, and the record, with the hashes, to ``uns``."""
    n_cells = {name: int((split == name).sum()) for name in SPLITS}
    entry = {
        **record,
        "fields": split_identity(fields),
        "n_cells": n_cells,
        "hash": condition_hash(*conditions, split, fields),
        "cell_hash": cell_hash(adata.obs_names, split),
    }
    adata.obs[key] = pd.Categorical(split, categories=SPLITS)
    adata.uns[key] = entry
    logger.info(
        "Split %d cells for the task %r: %s; %d conditions held out.",
        *(adata.n_obs, record["task"], n_cells, len(record["held_out"])),
    )


def warn_without_validation(split: NDArray[np.str_], reason: str) -> None:
    """Say that there is nothing to choose on, and why."""
    if not (split == "valid").any():
        logger.warning("%s: nothing is held out for validation.", reason)
