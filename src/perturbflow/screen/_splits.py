"""The split of the cells: its names, the table of conditions, and the check against what was held out."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from perturbflow._checks import check_key, check_none, check_one_of, check_type, listing
from perturbflow.screen._fields import PerturbationFields, perturbation_columns, read_fields, text_column

logger = logging.getLogger(__name__)
SPLITS = ("train", "valid", "test")
# What others call them, in lower case and without spaces, "_" and "-".
_SYNONYMS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("valid", "val", "validation", "dev", "development"), "valid"),
    **dict.fromkeys(("test", "testing", "ood", "outofdistribution", "holdout", "heldout"), "test"),
}


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
    """Read the split; raise if cells of recorded held-out conditions are where a fit would see them."""
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
    conditions, codes = condition_frame(adata, fields=fields, with_batch=False, with_dose=False)
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


def split_named(name: Any) -> Any:
    """Return "train", "valid" or "test" for what others call them ("val", "OOD"), and anything else as it is."""
    if not isinstance(name, str):
        return name
    return _SYNONYMS.get("".join(mark for mark in name.casefold() if mark not in " _-"), name)


def split_meanings(names: Mapping[str, Any], *, where: str) -> dict[str, str]:
    """Return which split every name in a column stands for; what others call them is understood, and logged."""
    meaning = {name: split_named(name) for name in sorted(names)}
    wrong = [name for name, split in meaning.items() if split not in SPLITS]
    pairs = ", ".join(f"{names[name]!r}: ..." for name in list(meaning)[:5])
    hint = f"Rename them, for example with `{where} = {where}.map({{{pairs}}})`, or choose another column."
    check_none(wrong, f"'train', 'valid' or 'test' in `{where}`", hint=hint)
    renamed = {name: split for name, split in meaning.items() if split != name}
    if renamed:
        logger.warning("The names in `%s` are read as %s; the column is unchanged.", where, renamed)
    return meaning


def split_names(splits: str | Iterable[str], *, name: str = "splits") -> list[str]:
    """Read the names of one split or several, each once, in the order given."""
    expected = "the name of a split, or a list of names"
    check_type(splits, Iterable, name=name, expected=expected)
    entries = [splits] if isinstance(splits, str) else list(splits)
    for entry in entries:
        check_type(entry, str, name=name, expected=expected)
        check_one_of(split_named(entry), SPLITS, name=name)
    if not entries:
        msg = f"Expected at least one split in `{name}`, found none. Choose from {list(SPLITS)}."
        raise ValueError(msg)
    return list(dict.fromkeys(map(split_named, entries)))


def condition_frame(
    adata: AnnData, *, fields: PerturbationFields | None = None, with_batch: bool = True, with_dose: bool = True
) -> tuple[pd.DataFrame, NDArray[np.intp]]:
    """List the distinct conditions, controls first (perturbation, dose, context), and that of every cell (n,)."""
    fields = read_fields(adata) if fields is None else fields
    vocabulary = fields.vocabulary
    encoded, codes = vocabulary.encode_distinct(*perturbation_columns(adata, fields))
    distinct = [encoded[[row]].toarray()[0] for row in range(encoded.shape[0])]
    cells = {"perturbation": np.array([vocabulary.label(row) for row in distinct], dtype=object)[codes]}
    if with_dose and fields.dose_key is not None:
        cells["dose"] = np.array([vocabulary.dose_label(row) for row in distinct], dtype=object)[codes]
    for key in fields.context_keys if with_batch else fields.covariate_keys:
        cells[key] = text_column(adata, key)

    table = pd.DataFrame(cells)
    conditions = table.value_counts(sort=False).rename("n_cells").reset_index()
    conditions.insert(len(cells), "is_control", conditions["perturbation"] == fields.control)
    conditions = conditions.sort_values(["is_control", *cells], ascending=[False] + [True] * len(cells))
    conditions = conditions.reset_index(drop=True)
    places = pd.MultiIndex.from_frame(conditions[list(cells)]).get_indexer(pd.MultiIndex.from_frame(table))
    return conditions, places
