"""Shared parts of the tools: reading inputs, writing results, and descriptions of parameters."""

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
    'Torch device of the network, such as "cuda"; "auto" uses a GPU if available. By default that of\n'
    "``pf.settings``, otherwise the CPU."
)
_OUTPUT = {
    "seed": "Random seed.",
    "progress_bar": "Whether to show a progress bar.",
    "key_added": "Key, or prefix of the keys, of the results; see Returns.",
}
of_cells = shares(_OUTPUT)
of_flow = shares(
    _OUTPUT
    | {
        "key": "Key of the fitted flow in ``adata.uns``.",
        "dose": (
            "Dose of the perturbations, as in :func:`perturbflow.tl.predict_perturbation`. By default each of the doses\n"
            "at which a perturbation was measured."
        ),
        "level": "Probability of the intervals.",
        "min_cells": "Conditions with fewer cells are treated as unmeasured; at least 2.",
        "device": _DEVICE,
    },
    raises="""KeyError
    If there is no fitted flow, or a column or gene is missing.
ValueError
    If required doses are not registered, a perturbation or dose is unknown or of the wrong kind, no condition is left,
    an option is out of range, or ``key_added`` exists and is of another kind.""",
)
of_dynamics = shares(
    _OUTPUT
    | {
        "adata": "Cells with fitted dynamics (:func:`perturbflow.tl.fit_dynamics`).",
        "until": "Last time of the solution; by default a quarter beyond the observed times.",
        "key": "Key of the dynamics in ``adata.uns``.",
    },
    raises="""KeyError
    If there are no fitted dynamics or registered fields, or a gene is unknown; the error lists similar names.
ValueError
    If an option is invalid, or ``key_added`` exists and is of another kind.""",
)
of_graph = shares(
    {
        "adata": "Cells with a graph (:func:`perturbflow.tl.infer_graph`).",
        "key": "Key of the graph in ``adata.uns``.",
        "min_confidence": "Use edges with at least this confidence.",
    },
    raises="""KeyError
    If there is no graph; the error names the function to run.
TypeError, ValueError
    If an option has the wrong type, or is out of range.""",
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
