"""Check that a split is the one that was made, and that nothing held out leaks into training."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from perturbflow._checks import check_key, check_none, check_one_of, check_text, check_type
from perturbflow.pp._held_out import Conditions
from perturbflow.pp._scenarios import in_contexts
from perturbflow.screen._fields import PerturbationFields, read_fields
from perturbflow.screen._modality import takes_modality
from perturbflow.screen._splits import SPLITS, check_no_leakage, split_identity
from perturbflow.store._keys import check_key_added

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData
    from numpy.typing import NDArray


logger = logging.getLogger(__name__)


@takes_modality
def check_split(adata: AnnData | MuData, *, split_key: str = "split", modality: str | None = None) -> None:
    """Check that a split is the one that was made, and that no held-out condition leaks into training.

    A condition is a perturbation in a context (a combination of covariates, without the batch). All doses of a
    perturbation count as the same condition, and so do all orders of the components of a combination. What is checked,
    on the cells as they are now:

    - The fields that give conditions their names are those of the split.
    - No perturbed condition is in two splits, except for the task ``"cells"``.
    - ``"combination"``: all single perturbations are in training; a combination is in one split in all contexts.
    - ``"covariate_transfer"``: every held-out perturbation is in training in another context. For the scenario
      ``"leave_one_out"``, all perturbed cells of the left-out value are in the test.
    - ``"unseen_perturbation"``: every validation condition has a component that is in no training condition, every test
      condition one that is in neither a training nor a validation condition.
    - The hashes are those that were recorded: every condition, and every cell by its name, is where it was put, and no
      cells were added or removed.

    Parameters
    ----------
    adata
        Cells with a split by :func:`perturbflow.pp.split_perturbations` or :func:`perturbflow.pp.split_scenario`.
    split_key
        Column of ``obs`` with the split, and entry of ``uns`` with its record.

    Returns
    -------
    Nothing.

    Raises
    ------
    KeyError
        If there is no split, or no record of it.
    ValueError
        If something leaks, or the split is not the one that was made.

    Notes
    -----
    ``uns["split"]["hash"]`` is the SHA-256 of the JSON, without spaces, of the sorted list of ``[components, covariates,
    split]``, one entry a perturbed condition: the names of the components and pairs of a covariate and its value, both
    in alphabetical order. ``uns["split"]["cell_hash"]`` is that of the sorted list of ``[name of the cell, split]``.
    Two studies with the same ``hash`` train, validate and test on the same conditions, however many cells passed their
    filters; with the same ``cell_hash``, on the same cells.

    Examples
    --------
    >>> import perturbflow as pf
    >>> adata = pf.datasets.simulated_perturb_seq(n_cells=600, n_genes=50, n_perturbations=4, n_combinations=4)
    >>> pf.pp.setup_perturbation(adata, perturbation_key="perturbation", control="control")
    >>> pf.pp.split_scenario(adata, "perturbench_norman19")
    >>> pf.pp.check_split(adata)
    >>> adata.obs["split"] = "train"
    >>> pf.pp.check_split(adata)
    Traceback (most recent call last):
    ...
    ValueError: Expected no cells of held-out conditions in training, found ...
    """
    check_text(split_key, name="split_key")
    hint = f"Run `pf.pp.split_perturbations(adata, ..., key_added={split_key!r})` first."
    check_key(split_key, adata.obs.columns, where="adata.obs", hint=hint)
    record = _read_record(adata, split_key)
    split = check_no_leakage(adata, split_key)
    again = f"Split again with `key_added={split_key!r}`, or restore `adata.obs[{split_key!r}]`."

    conditions = Conditions.of(adata, read_fields(adata))
    if record["task"] != "cells":
        of_condition = _one_split_each(conditions, split, advice=again)
        left_out = record["parameters"].get("contexts") if record.get("scenario") == "leave_one_out" else None
        check_rules(conditions, of_condition, task=record["task"], left_out=left_out, advice=again)

    if condition_hash(conditions, split) != record["hash"]:
        msg = (
            f"Expected the conditions of the recorded split, with hash {record['hash'][:12]}..., found others: "
            f"conditions were moved between splits, added or removed. {again}"
        )
        raise ValueError(msg)
    if cell_hash(adata.obs_names, split) != record["cell_hash"]:
        n_then = {name: int(n) for name, n in record["n_cells"].items()}
        n_now = {name: int((split == name).sum()) for name in n_then}
        msg = (
            f"Expected the cells of the recorded split, with cell_hash {record['cell_hash'][:12]}... and {n_then}, found "
            f"{n_now}: cells were moved between splits, added, removed or renamed; the conditions are the same. {again}"
        )
        raise ValueError(msg)


def check_rules(
    conditions: Conditions,
    split: NDArray[np.str_],
    *,
    task: str,
    left_out: Mapping[str, Iterable[str]] | None = None,
    advice: str,
) -> None:
    """Raise if a split of conditions (P,) breaks the rule of its task, or trains on what is left out."""
    check_one_of(task, ("combination", "covariate_transfer", "unseen_perturbation"), name="task")
    labels, parts = conditions.labels, conditions.components
    elsewhere = {"which": " elsewhere", "hint": advice}
    frame = pd.DataFrame({"label": labels, "split": split, "n": [len(part) for part in parts]})
    held_out = (frame["split"] != "train") & (frame["n"] > 0)
    if task == "combination":
        singles = sorted(set(frame.loc[held_out & (frame["n"] == 1), "label"]))
        check_none(singles, "all single perturbations in training for task='combination'", **elsewhere)
        n_splits = frame.groupby("label")["split"].nunique()
        several = n_splits.index[n_splits > 1].difference([conditions.control])
        check_none(several, "every combination in one split in all contexts for task='combination'", **elsewhere)
    elif task == "covariate_transfer":
        trained = set(frame.loc[frame["split"] == "train", "label"])
        expected = "every held-out perturbation in another context in training for task='covariate_transfer'"
        check_none(sorted(set(frame.loc[held_out, "label"]) - trained), expected, **elsewhere)
    else:
        present = {
            name: {c for part, of in zip(parts, split, strict=True) if of == name for c in part} for name in SPLITS
        }
        for place, name in enumerate(SPLITS[1:], start=1):
            known = set().union(*(present[earlier] for earlier in SPLITS[:place]))
            rows = zip(labels, parts, split, strict=True)
            seen = sorted({label for label, part, of in rows if of == name and part and known.issuperset(part)})
            check_none(
                seen, f"an unseen component in every {name} condition for task='unseen_perturbation'", **elsewhere
            )
    if left_out is not None:
        wanted = {key: tuple(map(str, values)) for key, values in left_out.items()}
        inside = in_contexts(conditions, wanted) & (frame["n"] > 0).to_numpy() & (split != "test")
        check_none(sorted(set(frame.loc[inside, "label"])), f"all perturbed cells of {wanted} in the test", **elsewhere)


def _read_record(adata: AnnData, key: str) -> Mapping[str, Any]:
    """Read what was recorded when the split was made."""
    hint = (
        f"Split with `pf.pp.split_perturbations` or `pf.pp.split_scenario`, and keep the record that they write to "
        f"`adata.uns[{key!r}]` together with `adata.obs`."
    )
    check_key(key, adata.uns, where="adata.uns", hint=hint)
    record = adata.uns[key]
    check_type(record, Mapping, name=f"adata.uns[{key!r}]", expected="the record of a split")
    for name in ("task", "held_out", "fields", "hash", "cell_hash", "n_cells"):
        check_key(name, record, where=f"adata.uns[{key!r}]", hint=hint)
    return record


def _one_split_each(conditions: Conditions, split: NDArray[np.str_], *, advice: str) -> NDArray[np.str_]:
    """Split of every condition (P,); raise if a perturbed one is in several. Controls count as training."""
    pairs = pd.DataFrame({"row": conditions.codes, "split": split}).drop_duplicates()
    pairs = pairs[conditions.is_perturbed[pairs["row"]]]
    several = np.unique(pairs.loc[pairs["row"].duplicated(), "row"])
    found = [" in ".join(row) for row in conditions.names.iloc[several].to_numpy()]
    check_none(found, "every perturbed condition in one split", which=" in several", hint=advice)
    of_condition = np.full(len(conditions.table), "train")
    of_condition[pairs["row"]] = pairs["split"]
    return of_condition


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
            f"Expected `key_added` to differ from the registered columns of `adata.obs`, found {key!r}. "
            "Choose another `key_added`."
        )
        raise ValueError(msg)


def condition_hash(conditions: Conditions, split: NDArray[np.str_]) -> str:
    """Hash which perturbed condition is in which split of the cells, as the notes of :func:`check_split` say."""
    keys = sorted(conditions.covariate_keys)
    covariates = conditions.table[keys].astype(str).to_numpy(dtype=object)
    parts = conditions.components
    pairs = pd.DataFrame({"row": conditions.codes, "split": split}).drop_duplicates().itertuples(index=False)
    entries = {
        (tuple(sorted(parts[row])), tuple(zip(keys, covariates[row], strict=True)), str(name))
        for row, name in pairs
        if parts[row]
    }
    return _sha256(sorted(entries))


def cell_hash(names: pd.Index, split: NDArray[np.str_]) -> str:
    """Hash which cell is in which split: SHA-256 of the JSON, without spaces, of the sorted list of ``[name, split]``."""
    return _sha256(sorted(zip(map(str, names), split.tolist(), strict=True)))


def _sha256(entries: list[tuple[Any, ...]]) -> str:
    return hashlib.sha256(json.dumps(entries, separators=(",", ":")).encode()).hexdigest()


def held_out_table(conditions: Conditions, split: NDArray[np.str_], more: pd.DataFrame | None = None) -> pd.DataFrame:
    """List the conditions that are held out, sorted by split; ``more`` has further columns."""
    names = conditions.names
    record = pd.concat([names, pd.DataFrame({"split": split}), conditions.table[["n_cells"]], more], axis=1)
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
    conditions: Conditions,
) -> None:
    """Write the split to ``obs``, and the record, with the hashes, to ``uns``."""
    n_cells = {name: int((split == name).sum()) for name in SPLITS}
    entry = {
        **record,
        "fields": split_identity(fields),
        "n_cells": n_cells,
        "hash": condition_hash(conditions, split),
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
