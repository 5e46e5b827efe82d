"""Held-out conditions that a user names: a table, or the covariates of whole contexts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from perturbflow._checks import check_key, check_type, listing
from perturbflow.pp._held_out import Conditions
from perturbflow.pp._scenarios import halve

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from perturbflow.screen._conditions import Vocabulary


def split_by_table(
    table: pd.DataFrame, conditions: Conditions, vocabulary: Vocabulary, *, task: str, rng: np.random.Generator
) -> NDArray[np.str_]:
    """Split of every condition (P,) by a table with ``perturbation``, every covariate (for transfer), and ``split``.

    Without ``split`` the conditions are divided in halves. Further columns do not count.
    """
    keys = list(conditions.covariate_keys) if task == "covariate_transfer" else []
    for column in ("perturbation", *keys):
        check_key(column, table.columns, where="held_out.columns", hint="Add the column, or rename one.")
    if table.empty:
        msg = "Expected at least one condition in the table `held_out`, found none. Leave it out for a random choice."
        raise ValueError(msg)
    rows_of: dict[tuple[str, ...], list[int]] = {}
    for row, part in enumerate(conditions.components):
        if len(part) > (task == "combination"):
            name = tuple(conditions.table.iloc[row][["perturbation", *keys]])
            rows_of.setdefault(name, []).append(row)

    covariates = table[keys].astype(str).to_numpy(dtype=object)
    names = [
        (vocabulary.canonical(str(label)), *values)
        for label, values in zip(table["perturbation"], covariates, strict=True)
    ]
    missing = [name for name in dict.fromkeys(names) if name not in rows_of]
    if missing:
        kind = "combinations" if task == "combination" else "perturbed conditions"
        msg = (
            f"Expected {kind} with cells in the table `held_out`, found {len(missing)} others: "
            f"{listing(' in '.join(name) for name in missing)}. Remove these rows, or correct the names."
        )
        raise ValueError(msg)
    if "split" not in table:
        held_out = [row for name in dict.fromkeys(names) for row in rows_of[name]]
        return halve(conditions, held_out, task, rng=rng)
    return _given_split(table["split"].astype(str).tolist(), names, rows_of, n_conditions=len(conditions.table))


def _given_split(
    splits: Sequence[str],
    names: Sequence[tuple[str, ...]],
    rows_of: Mapping[tuple[str, ...], list[int]],
    *,
    n_conditions: int,
) -> NDArray[np.str_]:
    """Split of every condition, of a table that says which are to validate and which to test."""
    wrong = sorted(set(splits) - {"valid", "test"})
    if wrong or "test" not in splits:
        msg = (
            "Expected 'valid' or 'test' in `held_out['split']`, at least once 'test', found "
            f"{listing(wrong or ['valid'])}. Say which is which with `held_out['split'].map({{...}})`, or leave the column "
            "out to divide the conditions in halves."
        )
        raise ValueError(msg)
    given: dict[tuple[str, ...], set[str]] = {}
    for name, of in zip(names, splits, strict=True):
        given.setdefault(name, set()).add(of)
    both = [" in ".join(name) for name, found in given.items() if len(found) > 1]
    if both:
        msg = f"Expected one split a condition in `held_out`, found two of {listing(both)}. Remove one of the rows."
        raise ValueError(msg)
    split = np.full(n_conditions, "train")
    for name, (of,) in given.items():
        split[rows_of[name]] = of
    return split


def read_contexts(
    held_out: Mapping[str, object], conditions: Conditions, *, only_one: bool
) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Read covariates with one or several values each, such as ``{"cell_type": ["B", "NK"]}``."""
    if not held_out or (only_one and len(held_out) > 1):
        number = "one covariate" if only_one else "covariates"
        msg = f"Expected {number} in `held_out`, such as {{'cell_type': 'B'}}, found {dict(held_out)!r}."
        raise ValueError(msg)
    contexts = []
    for key, value in held_out.items():
        check_type(key, str, name="held_out", expected="a mapping of covariates to values")
        check_key(
            key, conditions.covariate_keys, where="covariate_keys", hint="Register it, or name another covariate."
        )
        several = isinstance(value, list | tuple | set | np.ndarray | pd.Index | pd.Series)
        values = tuple(sorted({str(one) for one in value})) if several else (str(value),)  # type: ignore[attr-defined]
        check_values(key, values, conditions)
        contexts.append((key, values))
    return tuple(contexts)


def check_values(key: str, values: Sequence[str], conditions: Conditions) -> None:
    """Raise if a covariate has not all of the values."""
    known = sorted(set(conditions.table[key]))
    missing = [value for value in values if value not in known]
    if missing or not values:
        msg = (
            f"Expected values of {key!r} among {listing(known)} to hold out, found {listing(missing)}. "
            f"Name them as in `adata.obs[{key!r}]`, for example held_out={{{key!r}: {known[0]!r}}}."
        )
        raise ValueError(msg)
