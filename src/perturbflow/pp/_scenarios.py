"""Named rules of splits, so that two studies can say that they asked the same question."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any, Literal


@dataclass(frozen=True)
class Scenario:
    """Rule of what a named split holds out.

    Parameters
    ----------
    name
        Its name.
    task
        Task of :func:`perturbflow.pp.split_perturbations` that the split belongs to.
    rule
        ``"combinations"``: combinations, in all contexts. ``"pairs"``: for every perturbation contexts that have not
        reached their limit. ``"contexts"``: perturbations in named contexts. ``"left_out_value"``: all perturbations in
        the contexts with a value of a covariate; another value is for validation.
    fraction
        How much of the candidates (of all combinations; of the perturbations of a context) is held out, at most.
    seed
        Seed of the random choice.
    max_conditions
        Held-out conditions: at most so many of a context, or combinations.
    min_train_contexts, max_held_out_contexts
        Contexts in training and contexts held out of a perturbation, for ``"pairs"``.
    contexts
        Covariates and their values that name the contexts, for ``"contexts"``.
    valid_control_fraction, test_control_fraction
        Fractions of the control cells of every context that are for validation and test.
    """

    name: str
    task: Literal["combination", "covariate_transfer"]
    rule: Literal["combinations", "pairs", "contexts", "left_out_value"]
    fraction: float = 1.0
    seed: int = 0
    max_conditions: int | None = None
    min_train_contexts: int | None = None
    max_held_out_contexts: int | None = None
    contexts: tuple[tuple[str, tuple[str, ...]], ...] = ()
    valid_control_fraction: float = 0.25
    test_control_fraction: float = 0.25

    def parameters(self) -> dict[str, Any]:
        """Return plain values, for AnnData; what is not set is left out."""
        names = [field.name for field in fields(self) if field.name not in {"name", "task", "contexts"}]
        contexts = {key: list(values) for key, values in self.contexts}
        values = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return {**values, "contexts": contexts} if contexts else values


_JIANG24 = (("cell_type", ("k562", "mcf7", "ht29", "hap1")), ("treatment", ("IFNG", "INS", "TGFB")))
_COMBINATIONS: dict[str, Any] = {"task": "combination", "rule": "combinations", "seed": 42, "max_conditions": 200}
_NAMED: dict[str, Any] = {"task": "covariate_transfer", "rule": "contexts", "fraction": 0.7, "seed": 0}

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
