"""Check that a split is the one that was made, and that nothing held out leaks into training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from perturbflow._checks import check_key, check_one_of, check_text, check_type, listing
from perturbflow.pp._held_out import Conditions
from perturbflow.pp._scenarios import in_contexts
from perturbflow.pp._split_record import cell_hash, condition_hash, merge_doses
from perturbflow.screen._condition_frame import condition_frame
from perturbflow.screen._fields import read_fields
from perturbflow.screen._modality import takes_modality
from perturbflow.screen._split_names import SPLITS
from perturbflow.screen._splits import check_no_leakage

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData
    from numpy.typing import NDArray


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

    fields = read_fields(adata)
    table, codes = condition_frame(adata, fields=fields, with_batch=False)
    if record["task"] != "cells":
        _, conditions, rows = merge_doses(table, fields)
        of_condition = _one_split_each(conditions, rows[codes], split, advice=again)
        left_out = record["parameters"].get("contexts") if record.get("scenario") == "leave_one_out" else None
        check_rules(conditions, of_condition, task=record["task"], left_out=left_out, advice=again)

    if condition_hash(table, codes, split, fields) != record["hash"]:
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
    """Raise if a split of conditions (P,) breaks the rule of its task; ``"cells"`` has none.

    ``left_out`` are values of covariates whose perturbed conditions must all be in the test, ``advice`` is what to do
    next.
    """
    check_one_of(task, ("combination", "covariate_transfer", "unseen_perturbation"), name="task")
    labels, parts = conditions.table["perturbation"].tolist(), conditions.components
    frame = pd.DataFrame({"label": labels, "split": split, "n": [len(part) for part in parts]})
    held_out = (frame["split"] != "train") & (frame["n"] > 0)
    if task == "combination":
        _raise_if(
            sorted(set(frame.loc[held_out & (frame["n"] == 1), "label"])),
            "all single perturbations in training for task='combination'",
            advice,
        )
        n_splits = frame.groupby("label")["split"].nunique()
        several = n_splits.index[n_splits > 1].difference([conditions.control])
        _raise_if(several, "every combination in one split in all contexts for task='combination'", advice)
    elif task == "covariate_transfer":
        trained = set(frame.loc[frame["split"] == "train", "label"])
        _raise_if(
            sorted(set(frame.loc[held_out, "label"]) - trained),
            "every held-out perturbation in another context in training for task='covariate_transfer'",
            advice,
        )
    else:
        present = {
            name: {c for part, of in zip(parts, split, strict=True) if of == name for c in part} for name in SPLITS
        }
        for place, name in enumerate(SPLITS[1:], start=1):
            known = set().union(*(present[earlier] for earlier in SPLITS[:place]))
            rows = zip(labels, parts, split, strict=True)
            _raise_if(
                sorted({label for label, part, of in rows if of == name and part and known.issuperset(part)}),
                f"an unseen component in every {name} condition for task='unseen_perturbation'",
                advice,
            )
    if left_out is not None:
        wanted = {key: tuple(map(str, values)) for key, values in left_out.items()}
        inside = in_contexts(conditions, wanted) & (frame["n"] > 0).to_numpy() & (split != "test")
        _raise_if(sorted(set(frame.loc[inside, "label"])), f"all perturbed cells of {wanted} in the test", advice)


def _raise_if(found: Iterable[str], expected: str, advice: str) -> None:
    found = list(found)
    if found:
        msg = f"Expected {expected}, found {listing(found)} elsewhere. {advice}"
        raise ValueError(msg)


def _read_record(adata: AnnData, key: str) -> Mapping[str, Any]:
    """Read what was recorded when the split was made."""
    hint = (
        f"Split with `pf.pp.split_perturbations` or `pf.pp.split_scenario`; what they write to `adata.uns[{key!r}]` has "
        "to stay with `adata.obs`."
    )
    check_key(key, adata.uns, where="adata.uns", hint=hint)
    record = adata.uns[key]
    check_type(record, Mapping, name=f"adata.uns[{key!r}]", expected="the record of a split")
    for name in ("task", "held_out", "fields", "hash", "cell_hash", "n_cells"):
        check_key(name, record, where=f"adata.uns[{key!r}]", hint=hint)
    return record


def _one_split_each(
    conditions: Conditions, rows: NDArray[np.integer], split: NDArray[np.str_], *, advice: str
) -> NDArray[np.str_]:
    """Split of every condition (P,); raise if a perturbed one is in several. Controls count as training."""
    pairs = pd.DataFrame({"row": rows, "split": split}).drop_duplicates()
    perturbed = np.array([bool(part) for part in conditions.components])
    pairs = pairs[perturbed[pairs["row"]]]
    several = np.unique(pairs.loc[pairs["row"].duplicated(), "row"])
    if several.size:
        found = conditions.table.iloc[several].agg(" in ".join, axis=1)
        msg = f"Expected every perturbed condition in one split, found {listing(found)} in several. {advice}"
        raise ValueError(msg)
    of_condition = np.full(len(perturbed), "train")
    of_condition[pairs["row"]] = pairs["split"]
    return of_condition
