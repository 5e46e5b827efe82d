"""Findings about perturbed cells, at whatever stage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perturbflow.evaluation._tables import PRIOR
from perturbflow.predict._flow_store import read_flow
from perturbflow.report._evaluation_findings import EvaluationFindings
from perturbflow.report._screen import FEW_CONDITIONS, ScreenCounts
from perturbflow.report._summary import Findings, Step
from perturbflow.report._words import call_with, counted, listed, number

if TYPE_CHECKING:
    from anndata import AnnData

    from perturbflow.predict._fitted_flow import FittedFlow


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
        steps.append(Step("Fit a flow", call_with("tl.fit_flow", **_unless(key_added=key, usual="flow"))))
    else:
        found += _fit(flow, counts)
        unknown += _limits(flow, counts)
        if flow.settings.get("interrupted"):
            again = call_with("tl.fit_flow", checkpoint="checkpoint", **_unless(key_added=key, usual="flow"))
            steps.append(Step("Finish the fit, with a checkpoint to go on from", again))
    if f"{evaluation_key}_summary" not in adata.uns:
        if flow is not None:
            chosen = _unless(key=key, usual="flow") | _unless(key_added=evaluation_key, usual="evaluation")
            steps.append(Step("Compare with simple baselines", call_with("tl.evaluate", **chosen)))
        return Findings(tuple(asked), tuple(found), tuple(unknown), tuple(steps))
    judged = EvaluationFindings.of(adata, evaluation_key)
    found += judged.sentences()
    unknown += judged.limits()
    steps += judged.steps()
    if flow is not None:
        if is_prior_alone(flow) and _is_trained(flow):
            steps.append(Step("Get the same predictions in seconds", call_with("tl.fit_flow", preset="prior")))
        steps.append(
            Step("Choose what to measure next", call_with("tl.next_perturbations", **_unless(key=key, usual="flow")))
        )
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


def _unless(*, usual: str, **arguments: Any) -> dict[str, Any]:
    """Return an argument unless it is the default."""
    return {name: value for name, value in arguments.items() if value != usual}
