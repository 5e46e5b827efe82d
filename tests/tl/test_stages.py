"""Every function that takes minutes says in which stage it is, and nothing where nobody looks."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

import perturbflow as pf

if TYPE_CHECKING:
    from anndata import AnnData

SCORES: dict[str, Any] = {
    "metrics": ["rmse_of_mean_effects"],
    "baselines": ["mean effect"],
    "splits": "test",
    "n_permutations": 0,
    "n_resamples": 2,
}

CALLS: dict[str, tuple[str, Callable[[AnnData], object], list[str]]] = {
    "fit_flow": (
        "registered",
        lambda adata: pf.tl.fit_flow(adata, max_steps=2, model_kwargs={"width": 16, "n_blocks": 1}),
        [
            "fit flow: loading torch",
            "fit flow: cells",
            "fit flow: prior",
            "fit flow: training",
            "fit flow: choices",
            "fit flow: prior of all cells",
            "fit flow: calibration",
            "Fitted a flow: 2 steps of training; entry time 1, correction scale 1, guidance 1, chosen on 2 validation conditions.",
        ],
    ),
    "predict_perturbation": (
        "fitted",
        lambda adata: pf.tl.predict_perturbation(adata, "A"),
        ["predict: flow and control cells", "predict: cells"],
    ),
    "evaluate": (
        "fitted",
        lambda adata: pf.tl.evaluate(adata, **SCORES),
        ["evaluate: cells and models", "evaluate: baselines", "evaluate: conditions", "evaluate: tables"],
    ),
    "fit_dynamics": (
        "time_courses",
        lambda adata: pf.tl.fit_dynamics(adata, effort=0.01, plan_kwargs={"n_candidates": 2}),
        [
            "fit dynamics: loading torch",
            "fit dynamics: trajectories",
            "fit dynamics: sparsity path",
            "fit dynamics: choice of a threshold",
            "fit dynamics: matching",
            "fit dynamics: elimination",
            "fit dynamics: shooting",
            "fit dynamics: whole trajectories",
        ],
    ),
    "infer_graph": (
        "fitted_dynamics",
        lambda adata: pf.tl.infer_graph(adata, n_bootstraps=1),
        ["infer graph: loading torch", "infer graph: edges of the fit", "infer graph: bootstraps"],
    ),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", CALLS)
def test_stages_are_lines_of_the_log_in_order(name, request, caplog, capsys):
    fixture, call, expected = CALLS[name]
    adata = request.getfixturevalue(fixture)
    with caplog.at_level(logging.INFO, logger="perturbflow"):
        call(adata)
    assert caplog.messages[: len(expected)] == expected
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["predict_perturbation", "evaluate"])
def test_by_default_nothing_is_said_in_a_log(name, request, caplog, capsys):
    fixture, call, _ = CALLS[name]
    call(request.getfixturevalue(fixture))
    assert caplog.messages == []
    assert capsys.readouterr() == ("", "")


def test_cells_are_counted_as_they_are_predicted(fitted, monkeypatch, capsys):
    monkeypatch.setattr("perturbflow._progress.is_watched", lambda: True)
    pf.tl.predict_perturbation(fitted, "A")
    n_controls = int((fitted.obs["perturbation"] == "control").sum())
    assert f"{n_controls}/{n_controls} [" in capsys.readouterr().err


def test_cells_at_rest_have_stages(caplog):
    screen = pf.datasets.simulated_perturb_seq(n_cells=300, n_genes=20, n_perturbations=4, n_combinations=0)
    pf.pp.setup_perturbation(screen, perturbation_key="perturbation", control="control")
    pf.pp.setup_dynamics(screen)
    with caplog.at_level(logging.INFO, logger="perturbflow"):
        pf.tl.fit_dynamics(screen)
    assert caplog.messages == [
        "fit dynamics: loading torch",
        "fit dynamics: moments of the cells",
        "fit dynamics: evidence for edges",
        "fit dynamics: dynamics",
    ]
