"""Named rules of splits, so that two studies can say that they asked the same question, and what they hold out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from perturbflow._checks import check_none
from perturbflow.pp._held_out import Conditions

_JIANG24 = (("cell_type", ("k562", "mcf7", "ht29", "hap1")), ("treatment", ("IFNG", "INS", "TGFB")))
_COMBINATIONS: dict[str, Any] = {"task": "combination", "rule": "combinations", "seed": 42, "max_conditions": 200}
_NAMED: dict[str, Any] = {"task": "covariate_transfer", "rule": "contexts", "fraction": 0.7, "seed": 0}


@dataclass(frozen=True)
class Scenario:
    """Rule of what a named split holds out.

    - ``"combinations"``: combinations, in all contexts.
    - ``"pairs"``: for every perturbation contexts that have not reached their limit.
    - ``"contexts"``: perturbations in named contexts.
    - ``"left_out_value"``: all perturbations in the contexts with a value of a covariate; another is for validation.
    """

    name: str
    task: Literal["combination", "covariate_transfer"]  # of `pp.split_perturbations`
    rule: Literal["combinations", "pairs", "contexts", "left_out_value"]
    fraction: float = 1.0  # held out at most: of all combinations, or of the perturbations of a context
    seed: int = 0
    max_conditions: int | None = None  # held out at most: of a context, or combinations
    min_train_contexts: int | None = None  # of a perturbation, for "pairs"
    max_held_out_contexts: int | None = None
    contexts: tuple[tuple[str, tuple[str, ...]], ...] = ()  # covariates and their values, for "contexts"
    valid_control_fraction: float = 0.25  # of the control cells of every context
    test_control_fraction: float = 0.25

    def parameters(self) -> dict[str, Any]:
        """Return plain values, for AnnData; what is not set is left out."""
        names = [field.name for field in fields(self) if field.name not in {"name", "task", "contexts"}]
        contexts = {key: list(values) for key, values in self.contexts}
        values = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return {**values, "contexts": contexts} if contexts else values


SCENARIOS: Mapping[str, Scenario] = MappingProxyType(
    {
        scenario.name: scenario
        for scenario in (
            Scenario("perturbench_norman19", fraction=0.7, **_COMBINATIONS),
            Scenario("perturbench_combination", fraction=0.3, **_COMBINATIONS),
            Scenario(
                "perturbench_srivatsan20",
                task="covariate_transfer",
                rule="pairs",
                fraction=0.3,
                seed=42,
                max_conditions=200,
                min_train_contexts=1,
                max_held_out_contexts=1,
            ),
            Scenario("perturbench_jiang24", contexts=_JIANG24, **_NAMED),
            Scenario("perturbench_frangieh21", contexts=(("treatment", ("co-culture",)),), **_NAMED),
            Scenario(
                "leave_one_out",
                task="covariate_transfer",
                rule="left_out_value",
                valid_control_fraction=0.0,
                test_control_fraction=0.0,
            ),
        )
    }
)


def draw_split(conditions: Conditions, scenario: Scenario, *, rng: np.random.Generator) -> NDArray[np.str_]:
    """Draw the split of every condition (P,) by the rule of a scenario, whose contexts are filled in."""
    if scenario.rule == "left_out_value":
        return _leave_value_out(conditions, scenario, rng=rng)
    if scenario.rule == "combinations":
        return halve(conditions, _draw_combinations(conditions, scenario, rng=rng), scenario.task, rng=rng)
    draw = _draw_pairs if scenario.rule == "pairs" else _draw_in_contexts
    drawn = draw(conditions, scenario, rng=rng)
    contexts = conditions.contexts
    n_drawn = Counter(contexts[row] for row in drawn)
    # A context with one held-out pair could be validated on or tested, not both.
    drawn = [row for row in drawn if n_drawn[contexts[row]] > 1]
    if not drawn:
        msg = (
            f"Expected two perturbations to hold out in a context for {scenario.name!r}, found at most "
            f"{max(n_drawn.values(), default=0)} with fraction={scenario.fraction:g} that can be in training in "
            "another context. Raise `fraction`, or give a table of conditions as `held_out`."
        )
        raise ValueError(msg)
    return halve(conditions, drawn, scenario.task, rng=rng)


def halve(conditions: Conditions, held_out: list[int], task: str, *, rng: np.random.Generator) -> NDArray[np.str_]:
    """Halve the held-out conditions, in every context as nearly as possible; combinations in all contexts alike."""
    labels, contexts = conditions.labels, conditions.contexts
    strata: dict[Hashable, tuple] = {}
    for row in sorted(held_out):
        if task == "combination":
            strata[labels[row]] = (*strata.get(labels[row], ()), contexts[row])
        else:
            strata[row] = contexts[row]
    members: dict[tuple, list[Hashable]] = {}
    for candidate, stratum in strata.items():
        members.setdefault(stratum, []).append(candidate)
    order = [members[stratum][place] for stratum in sorted(members) for place in rng.permutation(len(members[stratum]))]
    role = {candidate: ("test", "valid")[turn % 2] for turn, candidate in enumerate(order)}
    split = np.full(len(labels), "train")
    for row in held_out:
        split[row] = role[labels[row] if task == "combination" else row]
    return split


def in_contexts(conditions: Conditions, wanted: Mapping[str, tuple[str, ...]]) -> NDArray[np.bool_]:
    """Return whether the covariates of every condition have the wanted values (P,)."""
    found = np.ones(len(conditions.table), dtype=bool)
    for key, values in wanted.items():
        found &= conditions.table[key].isin(values).to_numpy()
    return found


def _floor(number: float) -> int:
    """Round down; 0.29 * 100 is 29."""
    return math.floor(number + 1e-9)


def _draw_combinations(conditions: Conditions, scenario: Scenario, *, rng: np.random.Generator) -> list[int]:
    pairs = zip(conditions.labels, conditions.components, strict=True)
    combinations = sorted({label for label, part in pairs if len(part) > 1})
    n_drawn = _floor(scenario.fraction * len(combinations))
    if scenario.max_conditions is not None:
        n_drawn = min(n_drawn, scenario.max_conditions)
    if n_drawn < 2:
        msg = (
            f"Expected two combinations of perturbations to hold out for {scenario.name!r}, found {n_drawn} with "
            f"fraction={scenario.fraction:g} of {len(combinations)}. "
            "Raise `fraction`, or give a table of conditions as `held_out`."
        )
        raise ValueError(msg)
    drawn = {combinations[place] for place in rng.choice(len(combinations), n_drawn, replace=False)}
    return [row for row, label in enumerate(conditions.labels) if label in drawn]


def _draw_pairs(conditions: Conditions, scenario: Scenario, *, rng: np.random.Generator) -> list[int]:
    """Draw contexts for each perturbation, of those below their limit; first for those with the most contexts."""
    rows_of: dict[str, list[int]] = {}
    for row, (label, part) in enumerate(zip(conditions.labels, conditions.components, strict=True)):
        if part:
            rows_of.setdefault(label, []).append(row)
    contexts = conditions.contexts
    n_perturbations = Counter(contexts[row] for rows in rows_of.values() for row in rows)
    most = math.inf if scenario.max_conditions is None else scenario.max_conditions
    left = {context: min(_floor(scenario.fraction * n), most) for context, n in n_perturbations.items()}

    names = sorted(rows_of)
    shuffled = [names[place] for place in rng.permutation(len(names))]
    drawn: list[int] = []
    for label in sorted(shuffled, key=lambda name: -len(rows_of[name])):  # stable: shuffled among equals
        free = [row for row in rows_of[label] if left[contexts[row]] >= 1]
        n_spare = len(rows_of[label]) - (scenario.min_train_contexts or 1)
        n_drawn = min(n_spare, scenario.max_held_out_contexts or 1, len(free))
        if n_drawn < 1:
            continue
        for place in rng.choice(len(free), n_drawn, replace=False):
            drawn.append(free[place])
            left[contexts[free[place]]] -= 1
    return drawn


def _draw_in_contexts(conditions: Conditions, scenario: Scenario, *, rng: np.random.Generator) -> list[int]:
    """Draw perturbations in every named context, of those that are in other contexts, too."""
    named = in_contexts(conditions, dict(scenario.contexts))
    labels, contexts, parts = conditions.labels, conditions.contexts, conditions.components
    elsewhere = {labels[row] for row in np.flatnonzero(~named)}
    drawn: list[int] = []
    for context in sorted({contexts[row] for row in np.flatnonzero(named)}):
        rows = [row for row in np.flatnonzero(named).tolist() if contexts[row] == context and parts[row]]
        candidates = [row for row in rows if labels[row] in elsewhere]
        n_drawn = min(_floor(scenario.fraction * len(rows)), len(candidates))
        if scenario.max_conditions is not None:
            n_drawn = min(n_drawn, scenario.max_conditions)
        drawn += [candidates[place] for place in rng.choice(len(candidates), n_drawn, replace=False)] if n_drawn else []
    return drawn


def _leave_value_out(conditions: Conditions, scenario: Scenario, *, rng: np.random.Generator) -> NDArray[np.str_]:
    """Test on all perturbations in the contexts with a value of a covariate, validate on another value."""
    ((key, values),) = scenario.contexts
    labels = np.array(conditions.labels, dtype=object)
    of = conditions.table[key].to_numpy(dtype=object)
    perturbed = conditions.is_perturbed
    test = perturbed & np.isin(of, values)
    if not test.any():
        msg = f"Expected perturbed test cells of {key} {list(values)}, found none. Choose another value."
        raise ValueError(msg)
    only_here = sorted(set(labels[test]) - set(labels[perturbed & ~test]))
    expected = f"every perturbation of {key} {list(values)} in another {key}, too"
    hint = "Remove their cells from this context first, or give a table of conditions as `held_out`."
    check_none(only_here, expected, which=" nowhere else", hint=hint)
    options = []
    for other in sorted(set(of[perturbed]) - set(values)):
        valid = perturbed & (of == other)
        if set(labels[test | valid]) <= set(labels[perturbed & ~test & ~valid]):
            options.append(valid)
    split = np.full(len(labels), "train")
    if options:
        split[options[rng.integers(len(options))]] = "valid"
    split[test] = "test"
    return split
