"""Tables of what responses consist of, condition by condition and over all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from perturbflow.evaluation._response_parts import PARTS, Responses, response_parts, split_half_reliability
from perturbflow.evaluation._tables import interval
from perturbflow.flow import GroupSums
from perturbflow.train._group_sums import sums_of_parts

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from perturbflow.screen._screen import Screen

_HALVINGS = (((0, 1), (2, 3)), ((0, 2), (1, 3)), ((0, 3), (1, 2)))  # of four quarters


def judged_cells(screen: Screen, *, min_cells: int) -> tuple[Screen, int]:
    """Cells of groups that are large enough in contexts whose controls are, and the number of conditions left out."""
    grouping = screen.grouping()
    is_control = np.diff(grouping.doses.indptr) == 0
    is_large = grouping.n_cells >= min_cells
    known = {tuple(codes) for codes in grouping.covariates[is_control & is_large].tolist()}
    has_controls = np.array([tuple(codes) in known for codes in grouping.covariates.tolist()], dtype=bool)
    keep = is_large & has_controls
    return screen.part(keep[grouping.codes]), int((~keep & ~is_control).sum())


def response_table(screen: Screen, *, seed: int) -> pd.DataFrame:
    """One row a condition, from one pass over cells: ``n_cells``, the parts and both reliabilities."""
    quarters = [part.ordered() for part in sums_of_parts(screen, 4, seed=seed)]
    whole = GroupSums.union(quarters)
    responses = Responses.of(whole)
    halvings = [
        (Responses.of(first), Responses.of(second))
        for first, second in (
            tuple(GroupSums.union([quarters[place] for place in half]) for half in pair) for pair in _HALVINGS
        )
    ]
    rows = _labels(screen, whole) | {"n_cells": responses.n_cells} | response_parts(responses)
    rows["reliability"] = split_half_reliability(halvings)
    rows["own_reliability"] = split_half_reliability(halvings, own=True)
    return pd.DataFrame(rows)


def _labels(screen: Screen, sums: GroupSums) -> dict[str, Any]:
    vocabulary = screen.fields.vocabulary
    perturbed = np.flatnonzero(~sums.is_control)
    doses = sums.doses[perturbed]
    found: dict[str, Any] = {"perturbation": [vocabulary.label(row.toarray()[0]) for row in doses]}
    for column, (key, categories) in enumerate(vocabulary.covariates):
        found[key] = [categories[code] for code in sums.covariates[perturbed, column]]
    if screen.fields.dose_key is not None:
        found["dose"] = [vocabulary.dose_label(row.toarray()[0]) for row in doses]
    return found


def summary_of_parts(table: pd.DataFrame, *, n_resamples: int, rng: np.random.Generator) -> pd.DataFrame:
    """Return what the effects of all conditions consist of, as ratios of sums, with a bootstrap over perturbations.

    A row a part: ``mean`` over the conditions that have all parts, or where no condition has more than one context, those
    with a template; ``share_of_total``, ``share_of_effect`` with its 95 % interval ``lower`` and ``upper``, and the number
    ``n_conditions``. NaN for what cannot be told, and for an interval from a single perturbation.
    """
    has = table["interaction"].notna()
    known = table[has if has.any() else table["template"].notna()]
    names, which = np.unique(known["perturbation"].to_numpy(dtype=str), return_inverse=True)
    # Sums of every perturbation: all its conditions are drawn together.
    member = sparse.csr_matrix((np.ones(len(which)), (which, np.arange(len(which)))), shape=(len(names), len(which)))
    effect = member @ known["effect"].to_numpy()
    n = len(names)
    weights = rng.multinomial(n, np.full(n, 1 / n), size=n_resamples) if n > 1 else np.zeros((0, n))
    rows = []
    for part in PARTS:
        values = member @ known[part].to_numpy(dtype=np.float64)
        share = np.array([np.nan]) if part == "noise" else _ratio(values.sum(keepdims=True), effect.sum(keepdims=True))
        draws = np.full((len(weights), 1), np.nan)
        if part != "noise":
            draws[:, 0] = _ratio(weights @ values, weights @ effect)
        low, high = interval(draws)
        total = known["total"].sum()
        rows.append(
            {"part": part, "mean": known[part].mean(), "share_of_total": values.sum() / total if total > 0 else np.nan}
            | {"share_of_effect": share[0], "lower": low[0], "upper": high[0], "n_conditions": len(known)}
        )
    return pd.DataFrame(rows)


def _ratio(values: NDArray[np.float64], sizes: NDArray[np.float64]) -> NDArray[np.float64]:
    """NaN where the cells show no effect."""
    return np.divide(values, sizes, out=np.full(len(sizes), np.nan), where=sizes > 0)
