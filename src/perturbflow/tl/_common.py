"""What the tools have in common: how they begin, what they write, and how their parameters are described."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from anndata import AnnData

from perturbflow._docs import shares
from perturbflow.predict._controls import ControlCells, control_cells
from perturbflow.predict._fitted_flow import FittedFlow, read_flow
from perturbflow.predict._prediction import PredictedCondition
from perturbflow.screen._fields import check_expression, check_writable, writable
from perturbflow.store._keys import check_key_added, remove_earlier

_DEVICE = (
    'Torch device of the network, such as "cuda"; "auto" takes a GPU where there is one. By default that of\n'
    "``pf.settings``, or else the CPU."
)
_OUTPUT = {
    "seed": "Seed of everything random.",
    "progress_bar": "Whether to show a progress bar.",
    "key_added": "Key of the results, or what their keys begin with; see Returns.",
}
of_cells = shares(_OUTPUT)
of_flow = shares(
    _OUTPUT
    | {
        "key": "The fitted flow in ``adata.uns``.",
        "dose": (
            "Dose of the perturbations, as in :func:`perturbflow.tl.predict_perturbation`. By default each of the doses\n"
            "at which a perturbation was measured."
        ),
        "level": "Probability of the intervals.",
        "min_cells": "Conditions with fewer cells count as not measured, at least 2.",
        "device": _DEVICE,
    },
    raises="""KeyError
    If there is no fitted flow, or a column or gene is missing.
ValueError
    If no doses are registered that are needed, a perturbation or dose is unknown or not of the kind that is asked for,
    nothing is left to look at, an option is out of range, or ``key_added`` names something else.""",
)
of_dynamics = shares(
    _OUTPUT
    | {
        "adata": "Cells with fitted dynamics (:func:`perturbflow.tl.fit_dynamics`).",
        "until": "Time up to which to solve; a quarter beyond the observed time by default.",
        "key": "The dynamics in ``adata.uns``.",
    },
    raises="""KeyError
    If there are no fitted dynamics or registered fields, or a gene is unknown, with the most similar ones.
ValueError
    If an option is wrong, or ``key_added`` names something else.""",
)
of_graph = shares(
    {
        "adata": "Cells with a graph (:func:`perturbflow.tl.infer_graph`).",
        "key": "The graph in ``adata.uns``.",
        "min_confidence": "Take edges of at least this confidence.",
    },
    raises="""KeyError
    If there is no graph, with the call that makes it.
TypeError, ValueError
    If an option is of another type, or out of range.""",
)


def flow_and_controls(adata: AnnData, key: str) -> tuple[FittedFlow, ControlCells]:
    """Return a fitted flow and the cells that it predicts from, whose expression is on the scale of the fit."""
    flow = read_flow(adata, key)
    check_expression(adata, flow.fields)
    return flow, control_cells(adata, flow.fields, genes=flow.genes)


def by_label(conditions: Sequence[PredictedCondition]) -> list[list[PredictedCondition]]:
    """Put conditions together that differ in the context only."""
    together: dict[tuple[str, str], list[PredictedCondition]] = {}
    for condition in conditions:
        together.setdefault((condition.label, condition.dose_label), []).append(condition)
    return list(together.values())


def check_result(
    adata: AnnData, key_added: str, kind: str, *, copy: bool, beside: Collection[tuple[str, str]] = ()
) -> None:
    """Raise, before any work, if a result cannot be written: see :func:`check_key_added` and :func:`check_writable`."""
    check_key_added(adata, key_added, kind, beside=beside)
    check_writable(adata, copy=copy)


def written(
    adata: AnnData, *, copy: bool, replaces: tuple[str, str] | None = None, **entries: Mapping[str, Any]
) -> AnnData | None:
    """Write entries of ``uns``, ``obsm``, ``varm`` and ``varp``, and return what a tool returns: None, or the copy.

    What is beside an earlier entry is removed before, if ``replaces`` has the key and the kind of it.
    """
    adata = writable(adata, copy=copy)
    if replaces is not None:
        remove_earlier(adata, *replaces)
    for attribute, values in entries.items():
        for name, value in values.items():
            getattr(adata, attribute)[name] = value
    return adata if copy else None


def without_none(**parameters: Any) -> dict[str, Any]:
    """Return parameters as they are stored: files of anndata before 0.12 have no None."""
    return {name: value for name, value in parameters.items() if value is not None}
