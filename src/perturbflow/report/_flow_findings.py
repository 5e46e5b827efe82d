"""Findings about perturbed cells: what was measured, held out and fitted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from anndata import AnnData

from perturbflow.evaluation._tables import PRIOR
from perturbflow.predict._fitted_flow import FittedFlow, read_flow
from perturbflow.report._evaluation_findings import EvaluationFindings
from perturbflow.report._summary import Findings, Step
from perturbflow.report._words import call_with, counted, listed, number, unless
from perturbflow.screen._fields import PerturbationFields, read_fields, read_screen
from perturbflow.screen._splits import read_split
from perturbflow.train._validation import MIN_CELLS

HELD_OUT = ("test", "valid")
FEW_CONDITIONS = 2  # or fewer do not show which of two settings is better


@dataclass(frozen=True)
class ScreenCounts:
    """Numbers of cells and conditions of a screen.

    ``n_usable`` is the number of validation conditions with enough cells to choose settings on. ``task`` is empty if the split
    is a custom one, ``split_key`` None without a split.
    """

    fields: PerturbationFields
    n_cells: int
    n_controls: int
    n_genes: int
    n_single: int
    n_combined: int
    n_contexts: int
    split_key: str | None
    n_conditions: Mapping[str, int]
    n_usable: int
    task: str

    @classmethod
    def of(cls, adata: AnnData, split_key: str) -> ScreenCounts:
        """Count registered cells without reading expression."""
        fields = read_fields(adata)
        screen = read_screen(adata, fields=fields)
        whole = screen.grouping()
        doses = whole.doses[~whole.is_control].tocsr()
        ends = zip(doses.indptr[:-1], doses.indptr[1:], strict=True)
        sizes = np.array([len(components) for components in {frozenset(doses.indices[i:j].tolist()) for i, j in ends}])
        has_split = split_key in adata.obs
        split = read_split(adata, split_key) if has_split else np.full(adata.n_obs, "train")
        numbers, usable = {}, 0
        for name in ("train", *HELD_OUT):
            groups = screen.part(split == name).grouping()
            numbers[name] = int((~groups.is_control).sum())
            if name == "valid":
                usable = int((~groups.is_control & (groups.n_cells >= MIN_CELLS)).sum())
        record: Any = adata.uns.get(split_key, {})
        return cls(
            fields=fields,
            n_cells=adata.n_obs,
            n_controls=int(screen.is_control.sum()),
            n_genes=adata.n_vars,
            n_single=int((sizes == 1).sum()),
            n_combined=int((sizes > 1).sum()),
            n_contexts=len(np.unique(whole.covariates, axis=0)),
            split_key=split_key if has_split else None,
            n_conditions=numbers,
            n_usable=usable,
            task=str(record.get("task", "")) if hasattr(record, "get") else "",
        )

    @property
    def n_held_out(self) -> int:
        """Number of conditions that are not in training."""
        return sum(self.n_conditions[name] for name in HELD_OUT)

    def sentences(self) -> list[str]:
        """Say what was measured, and what was held out."""
        kinds = [f"{self.n_single:,} single"] if self.n_single else []
        kinds += [f"{counted(self.n_combined, 'combination')}"] if self.n_combined else []
        keys = self.fields.context_keys
        contexts = f" in {counted(self.n_contexts, 'context')} ({listed(keys)})" if keys else ""
        said = [
            f"{counted(self.n_single + self.n_combined, 'perturbation')} ({', '.join(kinds)}){contexts}: {self.n_cells:,} cells, "
            f"of which {self.n_controls:,} are controls, and {counted(self.n_genes, 'gene')}."
        ]
        if self.split_key is None or not self.n_held_out:
            said.append("No condition is held out: all cells are training cells.")
            return said
        task = f" for the task {self.task!r}" if self.task else ""
        held_out = [f"{self.n_conditions['test']:,} for test"] if self.n_conditions["test"] else []
        held_out += [f"{self.n_conditions['valid']:,} for validation"] if self.n_conditions["valid"] else []
        said.append(
            f"Held out{task}: {' and '.join(held_out)}, of "
            f"{counted(sum(self.n_conditions.values()), 'perturbed condition')} (a perturbation in a context)."
        )
        return said

    def split_step(self) -> Step:
        """Suggest a split that the data allow."""
        task = (
            "combination"
            if self.n_combined > 1
            else "covariate_transfer"
            if self.n_contexts > 1
            else "unseen_perturbation"
        )
        return Step(
            "Hold out conditions like those you want to predict", call_with("pp.split_perturbations", task=task)
        )


def flow_findings(adata: AnnData, *, key: str, evaluation_key: str, split_key: str) -> Findings:
    """Return the findings about perturbed cells, at any stage after registration."""
    counts = ScreenCounts.of(adata, split_key)
    flow = read_flow(adata, key) if key in adata.uns else None
    asked = counts.sentences()
    found: list[str] = []
    unknown: list[str] = []
    steps: list[Step] = []
    if not counts.n_held_out:
        unknown.append("The accuracy on unseen conditions: nothing is held out.")
        steps.append(counts.split_step())
    if flow is None:
        steps.append(Step("Fit a flow", call_with("tl.fit_flow", **unless("flow", key_added=key))))
    else:
        found += _fit(flow, counts)
        unknown += _limits(flow, counts)
        if flow.settings.get("interrupted"):
            again = call_with("tl.fit_flow", checkpoint="checkpoint", **unless("flow", key_added=key))
            steps.append(Step("Complete the fit, with a checkpoint so that it can be resumed", again))
    if f"{evaluation_key}_summary" not in adata.uns:
        if flow is not None:
            chosen = unless("flow", key=key) | unless("evaluation", key_added=evaluation_key)
            steps.append(Step("Compare with simple baselines", call_with("tl.evaluate", **chosen)))
        return Findings(tuple(asked), tuple(found), tuple(unknown), tuple(steps))
    judged = EvaluationFindings.of(adata, evaluation_key)
    found += judged.sentences()
    unknown += judged.limits()
    steps += judged.steps()
    if flow is not None:
        if is_prior_alone(flow) and _is_trained(flow):
            steps.append(Step("Get the same predictions in seconds", call_with("tl.fit_flow", preset="prior")))
        steps.append(Step("Choose what to measure next", call_with("tl.next_perturbations", **unless("flow", key=key))))
    if counts.n_conditions["valid"] and counts.n_usable <= FEW_CONDITIONS and (flow is None or _is_trained(flow)):
        more = call_with("pp.split_perturbations", task=counts.task or "combination", valid_fraction=0.3)
        steps.append(Step("Choose settings on more validation conditions, then fit again", more))
    return Findings(
        tuple(asked), tuple(found), tuple(unknown), tuple(steps), tables=judged.tables(), headline=judged.headline
    )


def is_prior_alone(flow: FittedFlow) -> bool:
    """Whether predictions are those of the prior, without the network."""
    return flow.flow.config.source == "control" and flow.flow.config.entry >= 1


def _is_trained(flow: FittedFlow) -> bool:
    """Whether a network was trained; only then are settings chosen on validation conditions."""
    return bool(len(flow.history.get("step", ())))


def _fit(flow: FittedFlow, counts: ScreenCounts) -> list[str]:
    """Describe how the flow was fitted, and which settings were chosen."""
    config = flow.flow.config
    is_trained = _is_trained(flow)
    training = f"with {int(flow.history['step'][-1]):,} training steps" if is_trained else "without training a network"
    said = [f"The flow was fitted {training} to the cells of {listed(flow.fitted_splits)}."]
    if is_prior_alone(flow):
        why = "no network was trained" if not is_trained else "the network did not help on validation conditions"
        said.append(
            f"Predictions use the prior alone, since {why}. The baseline {PRIOR!r} does the same: differences between the two "
            "are not due to a network."
        )
    else:
        said.append(
            f"Predictions use entry time {number(config.entry)}, correction scale {number(config.correction_scale)} and "
            f"guidance {number(config.guidance)}."
        )
    if len(flow.guidance_curve.get("weight", ())):
        said[-1] += f" This was chosen on {counted(counts.n_usable, 'validation condition')}."
    return said


def _limits(flow: FittedFlow, counts: ScreenCounts) -> list[str]:
    """Say what the fit does not show."""
    said = []
    if flow.settings.get("interrupted"):
        said.append("The result of a complete fit: this one was interrupted.")
    if not _is_trained(flow):
        return said
    if not counts.n_usable:
        said.append(
            "Which settings are best: without validation conditions, none were chosen and training was not stopped early."
        )
    elif 0 < counts.n_usable <= FEW_CONDITIONS:
        said.append(
            f"Which settings are best: they were chosen on only {counted(counts.n_usable, 'validation condition')}."
        )
    return said
