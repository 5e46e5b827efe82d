"""Divide cells into training, validation and test, by condition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

import numpy as np

from perturbflow._checks import (
    check_between,
    check_key,
    check_one_of,
    check_type,
    check_unique_names,
    check_whole_number,
    listing,
)
from perturbflow.pp._check_split import (
    check_split_key,
    held_out_table,
    warn_without_validation,
    write_split,
)
from perturbflow.pp._held_out import (
    Conditions,
    Wanted,
    check_training,
    hold_out_cells,
    hold_out_combinations,
    hold_out_components,
    hold_out_pairs,
)
from perturbflow.screen._conditions import Vocabulary, typed_label
from perturbflow.screen._fields import read_fields, writable
from perturbflow.screen._modality import takes_modality
from perturbflow.screen._splits import condition_frame

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

Task = Literal["combination", "covariate_transfer", "unseen_perturbation", "cells"]
HeldOut: TypeAlias = str | tuple[str, Mapping[str, object]]

_HOLD_OUT = {
    "combination": hold_out_combinations,
    "covariate_transfer": hold_out_pairs,
    "unseen_perturbation": hold_out_components,
}


@takes_modality
def split_perturbations(
    adata: AnnData | MuData,
    *,
    task: Task,
    test_fraction: float = 0.3,
    valid_fraction: float = 0.15,
    held_out: Sequence[HeldOut] | None = None,
    seed: int = 0,
    key_added: str = "split",
    modality: str | None = None,
    copy: bool = False,
) -> AnnData | MuData | None:
    """Split cells into training, validation and test for one of four tasks.

    Test and validation hold out different conditions, each with all its cells, at all doses. Control cells stay in
    training, except for ``"cells"``. The split depends on the conditions and the seed, not on the order of the cells.

    Parameters
    ----------
    adata
        Cells with fields registered by :func:`perturbflow.pp.setup_perturbation`.
    task
        ``"combination"``: combinations are held out, in all contexts; all single perturbations are in training.
        Combinations with all, some or none of their components measured alone in training are held out equally often.

        ``"covariate_transfer"``: pairs of a perturbation and a context (a combination of covariates, without the batch)
        are held out, evenly over contexts. If possible, every perturbation keeps a context in training, and every
        context a perturbed condition.

        ``"unseen_perturbation"``: components are held out with all conditions that contain them. Conditions with
        components of both test and validation belong to the test split.

        ``"cells"``: random cells of every condition, including controls. No condition is held out: this measures the
        fit to known conditions.
    test_fraction, valid_fraction
        Fractions of the combinations, pairs, components, or cells of every condition. Unless the fraction is 0, at least
        one is selected if there are enough.
    held_out
        Test conditions, instead of ``test_fraction``: labels of combinations (``["KLF1+SET"]``), components
        (``["KLF1"]``), or, for covariate transfer, pairs of a label and covariates (``[("IFN-beta", {"cell_type":
        "B"})]``); omitted covariates match any value. Validation conditions are drawn from the rest.
    seed
        Random seed.
    key_added
        Key in ``obs`` and ``uns``.

    Returns
    -------
    None, or the copy. Sets:

    `adata.obs["split" | key_added]` : categorical
        ``"train"``, ``"valid"`` or ``"test"``.
    `adata.uns["split" | key_added]`
        ``task``, ``seed``, ``test_fraction`` and ``valid_fraction`` as given; ``fields``, the registered names; and
        ``held_out``, a table with one row per held-out condition: ``perturbation`` (canonical label), one column
        per covariate, ``split``, ``n_cells``; for combinations ``n_components``, ``n_seen`` (how many of them are in
        training alone) and ``seen`` (``"all"``, ``"some"`` or ``"none"``); for unseen perturbations ``unseen``, the
        components that are held out. Also ``n_cells`` of every split, and two hashes to compare splits between studies:
        ``hash`` (SHA-256 of the assignment of perturbed conditions) and ``cell_hash`` (of the assignment of cells); see
        :func:`perturbflow.pp.check_split`.

    Raises
    ------
    KeyError
        If no fields are registered.
    TypeError
        If an argument has the wrong type.
    ValueError
        If there are too few candidates for the task, no perturbed condition is left for training, ``held_out`` contains
        conditions that do not exist or do not fit the task, or ``key_added`` exists and is not a split.

    Examples
    --------
    >>> import perturbflow as pf
    >>> adata = pf.datasets.simulated_perturb_seq(n_cells=600, n_genes=50, n_perturbations=4, n_combinations=4)
    >>> pf.pp.setup_perturbation(
    ...     adata, perturbation_key="perturbation", control="control", covariate_keys=["cell_type"]
    ... )
    >>> pf.pp.split_perturbations(adata, task="combination")
    >>> adata.uns["split"]["held_out"][["split", "seen"]].drop_duplicates().to_numpy().tolist()
    [['test', 'all'], ['valid', 'all']]
    """
    check_type(task, str, name="task", expected="a string")
    check_one_of(task, get_args(Task), name="task")
    check_between(test_fraction, 0, 1, name="test_fraction")
    check_between(valid_fraction, 0, 1, name="valid_fraction")
    if test_fraction == 0 or test_fraction + valid_fraction > 1:
        msg = (
            "Expected `test_fraction` above 0 and a sum of at most 1 with `valid_fraction`, "
            f"found {test_fraction!r} and {valid_fraction!r}."
        )
        raise ValueError(msg)
    check_whole_number(seed, name="seed")
    fields = read_fields(adata)
    check_split_key(adata, key_added, fields)

    conditions = Conditions.of(adata, fields)
    rng = np.random.default_rng(seed)
    wanted = Wanted(test_fraction, valid_fraction)
    if task == "cells":
        if held_out is not None:
            msg = f"Expected no `held_out` for task='cells', which holds out no conditions, found {held_out!r}."
            raise ValueError(msg)
        check_unique_names(
            adata.obs_names,
            what="cell names in `adata.obs_names`",
            hint="Run `adata.obs_names_make_unique()` first.",
        )
        _, codes = condition_frame(adata, fields=fields, with_batch=False)
        split = hold_out_cells(codes, adata.obs_names, wanted, rng=rng)
        record = conditions.names.iloc[:0].assign(split="", n_cells=0)
    else:
        if held_out is not None:
            wanted = replace(wanted, named=_read_held_out(held_out, conditions, fields.vocabulary, task=task))
        chosen, more = _HOLD_OUT[task](conditions, wanted, rng=rng)
        check_training(chosen, conditions)
        split, record = chosen[conditions.codes], held_out_table(conditions, chosen, more)
    if valid_fraction:
        warn_without_validation(split, f"Found too few candidates for valid_fraction={valid_fraction:g}")

    adata = writable(adata, copy=copy)
    asked = {"task": task, "seed": int(seed)}
    fractions = {"test_fraction": float(test_fraction), "valid_fraction": float(valid_fraction)}
    entry = asked | fractions | {"held_out": record}
    write_split(adata, split, entry, key=key_added, fields=fields, conditions=conditions)
    return adata if copy else None


def _read_held_out(
    held_out: Sequence[HeldOut], conditions: Conditions, vocabulary: Vocabulary, *, task: Task
) -> tuple[str | int, ...]:
    """Find what ``held_out`` names: labels or components, or rows of the conditions for covariate transfer."""
    entries = [held_out] if isinstance(held_out, str) else held_out
    check_type(entries, Sequence, name="held_out", expected="a list of labels or of (label, covariates) pairs")
    if len(entries) == 0:
        msg = "Expected at least one condition in `held_out`, found none. Omit it for a random choice."
        raise ValueError(msg)
    labels, parts = np.array(conditions.labels, dtype=object), conditions.components
    options, kind = {
        "combination": ({label for label, part in zip(labels, parts, strict=True) if len(part) > 1}, "a combination"),
        "covariate_transfer": ({label for label, part in zip(labels, parts, strict=True) if part}, "a perturbation"),
        "unseen_perturbation": ({component for part in parts for component in part}, "a single component"),
    }[task]
    named: list[str | int] = []
    for entry in entries:
        label, covariates = _label_and_covariates(entry, conditions.covariate_keys, task=task)
        is_here = np.ones(len(labels), dtype=bool)
        for key, value in covariates.items():
            is_here &= (conditions.table[key] == str(value)).to_numpy()
        here = options & set(labels[is_here]) if covariates else options
        label = typed_label(
            vocabulary,
            label,
            here if set(vocabulary.readings(label)) & here else options,
            argument="held_out",
            what=f"{kind} in the data for task={task!r}",
            context={key: str(value) for key, value in covariates.items()},
        )
        if task != "covariate_transfer":
            named.append(label)
            continue
        is_named = is_here & (labels == label)
        if not is_named.any():
            observed = [context for context, yes in zip(conditions.contexts, labels == label, strict=True) if yes]
            msg = f"Expected cells of {label!r} in {dict(covariates)}, found it only in {listing(observed)}."
            raise ValueError(msg)
        named += np.flatnonzero(is_named).tolist()
    return tuple(dict.fromkeys(named))


def _label_and_covariates(
    entry: HeldOut, covariate_keys: Sequence[str], *, task: Task
) -> tuple[str, Mapping[str, object]]:
    """Read one entry of ``held_out``."""
    if task == "covariate_transfer":
        is_pair = isinstance(entry, list | tuple) and len(entry) == 2
        if not (is_pair and isinstance(entry[0], str) and isinstance(entry[1], Mapping) and entry[1]):
            msg = (
                "Expected entries of `held_out` such as ('IFN-beta', {'cell_type': 'B'}) for "
                f"task='covariate_transfer', found {entry!r}."
            )
            raise TypeError(msg)
        for key in entry[1]:
            check_key(key, covariate_keys, where="covariate_keys", hint="Register it, or choose another covariate.")
        return entry[0], entry[1]
    if not isinstance(entry, str):
        msg = (
            f"Expected entries of `held_out` to be labels for task={task!r}, found {entry!r}. "
            "Use task='covariate_transfer' to hold out a perturbation in one context."
        )
        raise TypeError(msg)
    return entry, {}
