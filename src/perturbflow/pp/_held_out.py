"""Choice of the conditions that a split holds out. Pure: a table of conditions in, one split per condition out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import cached_property, partial
from heapq import heappop, heappush
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from perturbflow.screen._conditions import parse_label
from perturbflow.screen._fields import PerturbationFields
from perturbflow.screen._splits import condition_frame


@dataclass(frozen=True, eq=False)
class Conditions:
    """The conditions to divide: perturbations in contexts, without the batch and in all doses."""

    table: pd.DataFrame  # one row a condition: `perturbation`, covariates, in an order that is not that of cells
    covariate_keys: tuple[str, ...]  # columns of the covariates
    control: str  # how labels are written
    separator: str
    codes: NDArray[np.intp] | None = None  # condition of every cell (n,), where there are cells

    @classmethod
    def of(cls, adata: AnnData, fields: PerturbationFields) -> Conditions:
        """Conditions of cells."""
        table, codes = condition_frame(adata, fields=fields, with_batch=False, with_dose=False)
        return cls(table, fields.covariate_keys, fields.control, fields.separator, codes)

    @property
    def names(self) -> pd.DataFrame:
        """What tells conditions apart: label and covariates."""
        return self.table[["perturbation", *self.covariate_keys]]

    @cached_property
    def labels(self) -> list[str]:
        """Label of every condition."""
        return self.table["perturbation"].tolist()

    @cached_property
    def components(self) -> list[tuple[str, ...]]:
        """Components of every condition."""
        return [parse_label(label, control=self.control, separator=self.separator) for label in self.labels]

    @cached_property
    def contexts(self) -> list[tuple[str, ...]]:
        """Covariates of every condition."""
        return [tuple(row) for row in self.table[list(self.covariate_keys)].to_numpy(dtype=object)]

    @property
    def is_perturbed(self) -> NDArray[np.bool_]:
        """Return which are no controls (P,)."""
        return np.array([bool(part) for part in self.components])


@dataclass(frozen=True)
class Wanted:
    """Amount to hold out."""

    test_fraction: float  # of the candidates
    valid_fraction: float
    named: tuple[Any, ...] | None = None  # candidates to test on instead, rows of the table for covariate transfer


def hold_out_combinations(
    conditions: Conditions, wanted: Wanted, *, rng: np.random.Generator
) -> tuple[NDArray[np.str_], pd.DataFrame]:
    """Hold out combinations in all contexts, spread over how many of their components are known alone."""
    known = known_components(conditions)
    columns = known["seen"].tolist(), known["n_components"].tolist()
    candidates = {label: kind for label, kind, n in zip(conditions.labels, *columns, strict=True) if n > 1}
    if not candidates:
        msg = (
            "Expected combinations of perturbations for task='combination', found none. "
            "Use task='unseen_perturbation', 'covariate_transfer' or 'cells'."
        )
        raise ValueError(msg)
    role = _divide(candidates, wanted, rng=rng, n_kept=0 if 1 in columns[1] else 1)
    split = np.array([role.get(label, "train") for label in conditions.labels])
    return split, known


def known_components(conditions: Conditions) -> pd.DataFrame:
    """Columns of every condition: ``n_components``, those seen alone ``n_seen``, and ``seen`` (all, some or none)."""
    parts = conditions.components
    singles = {part[0] for part in parts if len(part) == 1}
    n_components = np.array([len(part) for part in parts])
    n_seen = np.array([len(singles.intersection(part)) for part in parts])
    seen = np.where(n_seen == n_components, "all", np.where(n_seen == 0, "none", "some"))
    return pd.DataFrame({"n_components": n_components, "n_seen": n_seen, "seen": seen})


def hold_out_pairs(
    conditions: Conditions, wanted: Wanted, *, rng: np.random.Generator
) -> tuple[NDArray[np.str_], pd.DataFrame]:
    """Hold out pairs of a perturbation and a context, spread over contexts; each keeps one in training."""
    labels, contexts = conditions.labels, conditions.contexts
    perturbed = {row: contexts[row] for row, part in enumerate(conditions.components) if part}
    n_contexts = Counter(labels[row] for row in perturbed)
    n_perturbations = Counter(perturbed.values())
    candidates = {row: context for row, context in perturbed.items() if n_contexts[labels[row]] > 1}
    if not candidates:
        reason = "a perturbation with cells in two contexts" if conditions.covariate_keys else "registered covariates"
        msg = (
            f"Expected {reason} for task='covariate_transfer', found none. "
            "Register `covariate_keys` with `pf.pp.setup_perturbation`, or use task='combination', "
            "'unseen_perturbation' or 'cells'."
        )
        raise ValueError(msg)

    def take(row: int, *, spare_context: bool = True) -> bool:
        """Hold out a row if its perturbation, and its context, keep another."""
        label, context = labels[row], contexts[row]
        if n_contexts[label] < 2 or (spare_context and n_perturbations[context] < 2):
            return False
        n_contexts[label] -= 1
        n_perturbations[context] -= 1
        return True

    test: list[int] = []
    for row in wanted.named or ():
        if not take(row, spare_context=False):
            msg = (
                f"Expected {labels[row]!r} to keep a context in training, found all of them in `held_out`. "
                "Leave one out of the list, or use task='unseen_perturbation'."
            )
            raise ValueError(msg)
        test.append(row)

    n_test = len(test) if wanted.named is not None else _share(len(candidates), wanted.test_fraction)
    n_valid = _share(len(candidates), wanted.valid_fraction)
    order = [row for row in _spread(candidates, rng=rng) if row not in test]
    taken: list[int] = []
    # Contexts without any perturbation in training only where there is no other way, as with a single perturbation.
    for spare_context in (True, False):
        rest = {row: candidates[row] for row in order if row not in taken}
        taken += _take_in_turn(
            rest, n_test + n_valid - len(test) - len(taken), partial(take, spare_context=spare_context)
        )
    # If there are too few, the test gets all but one, so that a fit can still be stopped in time.
    n_more = min(n_test - len(test), max(1, len(taken) - min(n_valid, 1)))
    test += taken[:n_more]
    valid = taken[n_more:]

    split = np.full(len(labels), "train")
    split[test], split[valid] = "test", "valid"
    return split, pd.DataFrame(index=conditions.table.index)


def hold_out_components(
    conditions: Conditions, wanted: Wanted, *, rng: np.random.Generator
) -> tuple[NDArray[np.str_], pd.DataFrame]:
    """Hold out components with every condition that contains them; the column ``unseen`` names those of a condition."""
    parts = conditions.components
    candidates = dict.fromkeys(sorted({component for part in parts for component in part}), "")
    if len(candidates) < 2:
        msg = (
            f"Expected at least two perturbations for task='unseen_perturbation', found {list(candidates)}. "
            "Use task='covariate_transfer' or 'cells'."
        )
        raise ValueError(msg)
    role = _divide(
        candidates,
        wanted,
        rng=rng,
        n_kept=1,
        # A component that occurs only beside test components would leave nothing to validate on.
        can_validate=lambda component, test: any(component in part and not test & {*part} for part in parts),
    )
    split = np.full(len(parts), "train")
    unseen = []
    for row, part in enumerate(parts):
        roles = {role[component] for component in part if component in role}
        split[row] = "test" if "test" in roles else "valid" if "valid" in roles else "train"
        unseen.append(conditions.separator.join(component for component in part if component in role))
    return split, pd.DataFrame({"unseen": unseen})


def hold_out_cells(
    conditions: NDArray[np.integer], names: pd.Index, wanted: Wanted, *, rng: np.random.Generator
) -> NDArray[np.str_]:
    """Split the cells of every condition as :func:`divide_cells`; raise if there is none to test on."""
    split = divide_cells(conditions, names, wanted, rng=rng)
    if not (split == "test").any():
        msg = (
            f"Expected test cells, found conditions of at most {np.bincount(conditions).max()} cells, which are too few for "
            f"test_fraction={wanted.test_fraction:g}. Raise it, or use task='unseen_perturbation'."
        )
        raise ValueError(msg)
    return split


def divide_cells(
    conditions: NDArray[np.integer], names: pd.Index, wanted: Wanted, *, rng: np.random.Generator
) -> NDArray[np.str_]:
    """Split the cells of every condition at random (n,), by name and not by order; each keeps one in training."""
    split = np.full(len(conditions), "train")
    order = np.lexsort((names.to_numpy(dtype=str), conditions))
    for cells in np.split(order, np.flatnonzero(np.diff(conditions[order])) + 1):
        shuffled = rng.permutation(cells)
        n_test = min(_round(len(cells) * wanted.test_fraction), len(cells) - 1)
        n_valid = min(_round(len(cells) * wanted.valid_fraction), len(cells) - 1 - n_test)
        split[shuffled[:n_test]] = "test"
        split[shuffled[n_test : n_test + n_valid]] = "valid"
    return split


def _divide(
    candidates: dict[str, str],
    wanted: Wanted,
    *,
    rng: np.random.Generator,
    n_kept: int,
    can_validate: Callable[[str, set[str]], bool] = lambda candidate, test: True,
) -> dict[str, str]:
    """Give test and validation shares of the candidates, spread over their values; some are kept to train."""
    order = _spread(candidates, rng=rng)
    if wanted.named is None:
        test = order[: _share(len(order), wanted.test_fraction)]
    else:
        test = [candidate for candidate in order if candidate in wanted.named]
    rest = [candidate for candidate in order if candidate not in test and can_validate(candidate, set(test))]
    valid = rest[: max(0, min(_share(len(order), wanted.valid_fraction), len(order) - len(test) - n_kept))]
    return {**dict.fromkeys(test, "test"), **dict.fromkeys(valid, "valid")}


def _spread(candidates: dict, *, rng: np.random.Generator) -> list:
    """Shuffle candidates such that every beginning of the list takes about the same share of every stratum."""
    strata: dict[Hashable, list] = {}
    for candidate, stratum in candidates.items():
        strata.setdefault(stratum, []).append(candidate)
    place = {}
    for stratum in sorted(strata):  # type: ignore[type-var]
        members, offset = strata[stratum], rng.random()
        for k, member in enumerate(rng.permutation(len(members)).tolist()):
            place[members[member]] = (k + offset) / len(members)
    return sorted(place, key=lambda candidate: place[candidate])


def _take_in_turn(candidates: dict[int, tuple[str, ...]], n: int, take: Callable[[int], bool]) -> list[int]:
    """Take up to n candidates in their order, the next from the stratum of which the smallest share is taken so far."""
    queues: dict[tuple[str, ...], list[int]] = {}
    for candidate, stratum in candidates.items():
        queues.setdefault(stratum, []).append(candidate)
    # Strata stand in the order of their first candidates, which breaks ties.
    turns = [(0.0, place, stratum, iter(queue)) for place, (stratum, queue) in enumerate(queues.items())]
    taken: list[int] = []
    while turns and len(taken) < n:
        share, place, stratum, queue = heappop(turns)
        found = next(filter(take, queue), None)
        if found is not None:
            taken.append(found)
            heappush(turns, (share + 1 / len(queues[stratum]), place, stratum, queue))
    return taken


def _round(number: float) -> int:
    return math.floor(number + 0.5)


def _share(n: int, fraction: float) -> int:
    """Number of n candidates, at least one unless the fraction is 0."""
    return max(1, _round(n * fraction)) if fraction else 0


def check_training(split: NDArray[np.str_], conditions: Conditions) -> None:
    """Raise unless perturbed conditions are left for training."""
    perturbed = conditions.is_perturbed
    if not (perturbed & (split == "train")).any():
        msg = (
            f"Expected perturbed conditions in training, found all {perturbed.sum()} of them held out. "
            "Lower `test_fraction` and `valid_fraction`, or list fewer conditions in `held_out`."
        )
        raise ValueError(msg)
