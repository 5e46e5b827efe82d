"""Findings about perturbed cells, at whatever stage: how many there are, which were held out, how they are predicted."""

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
FEW_CONDITIONS = 2  # or fewer do not tell which of two settings is better


@dataclass(frozen=True)
class ScreenCounts:
    """Numbers of cells and conditions of a screen.

    ``n_usable`` is how many of the validation conditions have enough cells to choose settings on. The task of the split is empty
    if it is not one of perturbflow, its column None where there is no split.
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
        """Count registered cells; no expression is read."""
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
        """Conditions that are not in training."""
        return sum(self.n_conditions[name] for name in HELD_OUT)

    def sentences(self) -> list[str]:
        """Say what was measured, and what was held out."""
        kinds = [f"{self.n_single:,} alone"] if self.n_single else []
        kinds += [f"{self.n_combined:,} in combination"] if self.n_combined else []
        keys = self.fields.context_keys
        contexts = f" in {counted(self.n_contexts, 'context')} ({listed(keys)})" if keys else ""
        said = [
            f"{counted(self.n_single + self.n_combined, 'perturbation')} ({', '.join(kinds)}){contexts}, measured in "
            f"{self.n_cells:,} cells of {counted(self.n_genes, 'gene')}; {self.n_controls:,} of the cells are controls."
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
        """Say how to hold conditions out, as the data allow."""
        task = (
            "combination"
            if self.n_combined > 1
            else "covariate_transfer"
            if self.n_contexts > 1
            else "unseen_perturbation"
        )
        return Step("Hold out conditions as you want to predict them", call_with("pp.split_perturbations", task=task))


def flow_findings(adata: AnnData, *, key: str, evaluation_key: str, split_key: str) -> Findings:
    """Say what is known of perturbed cells with registered fields."""
    counts = ScreenCounts.of(adata, split_key)
    flow = read_flow(adata, key) if key in adata.uns else None
    asked = counts.sentences()
    found: list[str] = []
    unknown: list[str] = []
    steps: list[Step] = []
    if not counts.n_held_out:
        unknown.append("How good predictions of unseen conditions are: nothing is held out.")
        steps.append(counts.split_step())
    if flow is None:
        steps.append(Step("Fit a flow", call_with("tl.fit_flow", **unless("flow", key_added=key))))
    else:
        found += _fit(flow, counts)
        unknown += _limits(flow, counts)
        if flow.settings.get("interrupted"):
            again = call_with("tl.fit_flow", checkpoint="checkpoint", **unless("flow", key_added=key))
            steps.append(Step("Finish the fit, with a checkpoint to go on from", again))
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
    """Return whether a flow predicts what its prior predicts, without its network."""
    return flow.flow.config.source == "control" and flow.flow.config.entry >= 1


def _is_trained(flow: FittedFlow) -> bool:
    """Return whether there is a network: without one nothing is chosen on validation conditions."""
    return bool(len(flow.history.get("step", ())))


def _fit(flow: FittedFlow, counts: ScreenCounts) -> list[str]:
    """Say how the flow was fitted and what was chosen."""
    config = flow.flow.config
    is_trained = _is_trained(flow)
    training = f"{int(flow.history['step'][-1]):,} steps of training" if is_trained else "no training of a network"
    said = [f"The flow was fitted with {training}, on the cells of {listed(flow.fitted_splits)}."]
    if is_prior_alone(flow):
        why = "no network was trained" if not is_trained else "validation conditions do not show that the network helps"
        said.append(
            f"The prior alone predicts, since {why}: as the baseline {PRIOR!r} does, and no difference between the two is due "
            "to a network."
        )
    else:
        said.append(
            f"Predictions enter the path at {number(config.entry)}, with correction scale {number(config.correction_scale)} and "
            f"guidance {number(config.guidance)}."
        )
    if len(flow.guidance_curve.get("weight", ())):
        said[-1] += f" This was chosen on {counted(counts.n_usable, 'validation condition')}."
    return said


def _limits(flow: FittedFlow, counts: ScreenCounts) -> list[str]:
    """Say what the fit cannot know."""
    said = []
    if flow.settings.get("interrupted"):
        said.append(
            "What a whole fit would predict: the fit was interrupted, and the flow is what it had learned by then."
        )
    if not _is_trained(flow):
        return said
    if not counts.n_usable:
        said.append(
            "Which settings are best: without validation conditions nothing was chosen, and training was not stopped early."
        )
    elif 0 < counts.n_usable <= FEW_CONDITIONS:
        said.append(
            f"Which settings are best: they were chosen on {counted(counts.n_usable, 'validation condition')}, which is "
            "too few to tell."
        )
    return said
