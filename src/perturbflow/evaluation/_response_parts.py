"""Parts of the responses of a screen: what all perturbations do, what is conserved over contexts, the rest, and noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from perturbflow.evaluation._tables import interval
from perturbflow.flow import GroupSums
from perturbflow.metrics._profiles import pearson
from perturbflow.screen._screen import Screen, sums_of_parts

PARTS = ("template", "conserved", "interaction", "noise")


@dataclass(frozen=True, eq=False)
class Responses:
    """Mean effects of n conditions, with what is known of their sampling."""

    effects: NDArray[np.float64]  # mean of the cells less that of the controls of the context (n, G)
    noise: NDArray[np.float64]  # sampling variance of the effects, summed over genes (n,)
    control_noise: NDArray[np.float64]  # what of it the conditions of a context share (n,)
    n_cells: NDArray[np.int64]  # (n,)
    contexts: NDArray[np.intp]  # number of the context (n,)
    doses: sparse.csr_matrix  # of every component (n, P)

    @classmethod
    def of(cls, sums: GroupSums) -> Self:
        """Effects of the groups of at least two perturbed cells, each of a context with control cells, in the order of the groups."""
        _, contexts = np.unique(sums.covariates, axis=0, return_inverse=True)
        contexts = contexts.ravel()
        n_cells = sums.n_cells[:, None].astype(np.float64)
        means = sums.total / n_cells
        variances = np.maximum(sums.squares / n_cells - np.square(means), 0) / (n_cells - 1)
        noise = variances.sum(axis=1)
        perturbed = np.flatnonzero(~sums.is_control)
        control_of = np.full(contexts.max(initial=-1) + 1, -1)
        control_of[contexts[sums.is_control]] = np.flatnonzero(sums.is_control)
        controls = control_of[contexts[perturbed]]
        return cls(
            means[perturbed] - means[controls],
            noise[perturbed] + noise[controls],
            noise[controls],
            sums.n_cells[perturbed],
            contexts[perturbed],
            sums.doses[perturbed],
        )

    def template(self) -> NDArray[np.float64]:
        """Mean effect of the other conditions of the context (n, G), of those that share no component with a condition.

        NaN where there is none.
        """
        components = self.doses.astype(bool).astype(np.float64)
        found = np.full_like(self.effects, np.nan)
        for context in np.unique(self.contexts):
            rows = np.flatnonzero(self.contexts == context)
            own = components[rows]
            related = sparse.csr_matrix((own @ own.T).astype(bool).astype(np.float64))
            n_others = len(rows) - np.asarray(related.sum(axis=1))
            total = self.effects[rows].sum(axis=0) - related @ self.effects[rows]
            found[rows] = np.divide(total, n_others, out=np.full_like(total, np.nan), where=n_others > 0)
        return found

    def elsewhere(self, own: NDArray[np.float64]) -> NDArray[np.float64]:
        """Mean over the other contexts of what the same perturbation has as its own there (n, G); NaN where there is none."""
        keys: dict[tuple[bytes, bytes], list[int]] = {}
        known = np.asarray(~np.isnan(own).any(axis=1))
        for row, (first, last) in enumerate(zip(self.doses.indptr[:-1], self.doses.indptr[1:], strict=True)):
            if known[row]:
                name = self.doses.indices[first:last].tobytes(), self.doses.data[first:last].tobytes()
                keys.setdefault(name, []).append(row)
        found = np.full_like(own, np.nan)
        for rows in keys.values():
            if len(rows) > 1:
                found[rows] = (own[rows].sum(axis=0) - own[rows]) / (len(rows) - 1)
        return found


def response_parts(responses: Responses) -> dict[str, NDArray[np.float64]]:
    r"""Divide the squared size of every response into four parts that add up to it: their means over genes (n,) by name.

    With the measured effect :math:`d_{pc}` of a perturbation in a context, the template :math:`t` (the mean effect of the
    unrelated perturbations of the context) and what is conserved, :math:`k` (the mean over the other contexts of
    :math:`d_{pc'} - t_{pc'}`),

    .. math::

        \lVert d \rVert^2 = (d \cdot t - s) + d \cdot k + \text{interaction} + n,

    with the sampling variance n of the effect, and s that of the controls, which d and t share. Neither t nor k has a
    cell of the condition itself, so that each part is unbiased, and therefore negative at times: by sampling where a part is small,
    and truly where a condition does the opposite of what others do.

    ``effect`` is the total without noise, ``own`` the effect without the template. NaN where a part cannot be told: without an
    unrelated perturbation in the context, or the same in another. Where no condition has a template, as in a screen of one
    perturbation, nothing is taken from any.
    """
    effects, n_genes = responses.effects, responses.effects.shape[1]
    template = responses.template()
    has_template = not np.isnan(template).all()
    elsewhere = responses.elsewhere(effects - template if has_template else effects)
    total, noise = np.square(effects).sum(axis=1), responses.noise
    shared = np.einsum("ng,ng->n", effects, template) - responses.control_noise
    conserved = np.einsum("ng,ng->n", effects, elsewhere)
    own = total - noise - (shared if has_template else 0)
    found = {"total": total, "effect": total - noise, "template": shared, "own": own}
    found |= {"conserved": conserved, "interaction": own - conserved, "noise": noise}
    return {name: values / n_genes for name, values in found.items()}


def split_half_reliability(halvings: list[tuple[Responses, Responses]], *, own: bool = False) -> NDArray[np.float64]:
    """Return how well the profile of a response over genes would come back in as many new cells of all groups (n,).

    The correlation r of the effects in two halves of the cells, of controls too, is that of half as many cells;
    ``2 r / (1 + r)`` is that of all (Spearman and Brown). r is the mean over some halvings; NaN where unknown. ``own`` leaves out
    the template of each half: what a condition has beyond what all perturbations do.
    """
    profiles = [[half.effects - half.template() if own else half.effects for half in pair] for pair in halvings]
    r = np.mean([pearson(*pair) for pair in profiles], axis=0)
    # Of two halves that disagree nothing would come back.
    return np.where(r > 0, 2 * r / (1 + r), r)


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
