"""What all plots share: they return what they say, draw where they are told to, and leave everything else alone."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from perturbflow import pl

SCREEN: dict[str, Callable[..., Any]] = {
    "calibration": lambda adata, **options: pl.calibration(adata, min_cells=5, **options),
    "dose_response": pl.dose_response,
    "embedding": lambda adata, **options: pl.embedding(adata, adata.uns["label"], **options),
    "evaluation": pl.evaluation,
    "expression": lambda adata, **options: pl.expression(adata, adata.uns["label"], **options),
    "guidance": pl.guidance,
    "interaction_scores": lambda adata, **options: pl.interaction_scores(adata, source="predicted", **options),
    "leaderboard": pl.leaderboard,
    "metric_ranks": pl.metric_ranks,
    "perturbation_effect": lambda adata, **options: pl.perturbation_effect(adata, adata.uns["label"], **options),
    "ranked_perturbations": pl.ranked_perturbations,
    "response_parts": pl.response_parts,
    "responders": lambda adata, **options: pl.responders(adata, adata.uns["label"], **options),
    "training": pl.training,
    "verdicts": pl.verdicts,
}
DYNAMICS: dict[str, Callable[..., Any]] = {
    "dynamics_graph": pl.dynamics_graph,
    "edge_stability": pl.edge_stability,
    "graph_comparison": lambda adata, **options: pl.graph_comparison(
        adata, ["dynamics_graph", "correlation"], **options
    ),
    "knockout_response": pl.knockout_response,
    "precision_recall": lambda adata, **options: pl.precision_recall(adata, "true_graph", **options),
    "regulators": pl.regulators,
    "sparsity_path": pl.sparsity_path,
    "trajectories": lambda adata, **options: pl.trajectories(adata, ["gene0", "gene1"], **options),
}
PLOTS = SCREEN | DYNAMICS
OF_DATA = {"skeleton"}  # draws cells of its own kind and no result; its tests are in test_skeleton.py
WITH_PANELS = {"calibration", "evaluation", "leaderboard", "metric_ranks", "verdicts"}  # one for every split
WITH_AX = sorted(name for name in PLOTS if "ax" in signature(getattr(pl, name)).parameters)


@pytest.fixture
def plot(request, _judged_screen, analysed_dynamics):
    """A plot by name, and cells with what it draws."""
    name = request.param
    return name, PLOTS[name], _judged_screen if name in SCREEN else analysed_dynamics


@pytest.fixture
def shown(monkeypatch):
    """Calls of ``plt.show``."""
    calls: list[bool] = []
    monkeypatch.setattr(plt, "show", lambda: calls.append(True))
    return calls


def options_of(name: str) -> dict[str, str]:
    return {"split": "test"} if name in WITH_PANELS else {}


def test_every_plot_is_here():
    assert {*PLOTS, *OF_DATA} == set(pl.__all__)


@pytest.mark.parametrize("plot", sorted(PLOTS), indirect=True)
def test_one_new_figure_and_nothing_else_changes(plot, shown, unchanged):
    name, draw, adata = plot
    _, other = plt.subplots()
    existing, children = plt.get_fignums(), other.get_children()
    backend, parameters = mpl.get_backend(), dict(mpl.rcParams)
    with unchanged(adata):
        result = draw(adata)
    assert (mpl.get_backend(), dict(mpl.rcParams)) == (backend, parameters)
    (new,) = set(plt.get_fignums()) - set(existing)
    assert other.get_children() == children
    assert not other.has_data()
    assert shown == []
    if name == "trajectories":
        assert isinstance(result, Figure)
        axes = result.axes
    elif name in WITH_PANELS:
        assert isinstance(result, np.ndarray)
        axes = list(result)
    else:
        axes = [result]
        assert plt.gca() is result
    assert all(isinstance(ax, Axes) and ax.figure is plt.figure(new) for ax in axes)
    assert all(ax.has_data() for ax in axes)


@pytest.mark.parametrize("plot", WITH_AX, indirect=True)
def test_given_axes_are_drawn_on_and_all_others_left_alone(plot, shown):
    name, draw, adata = plot
    figure, (left, right) = plt.subplots(1, 2, layout="constrained")
    plt.sca(left)
    children = left.get_children()
    assert draw(adata, ax=right, **options_of(name)) is right
    assert right.has_data()
    assert plt.get_fignums() == [figure.number]
    assert plt.gca() is left
    assert left.get_children() == children
    assert shown == []


@pytest.mark.parametrize("plot", sorted(PLOTS), indirect=True)
def test_shown_where_asked_with_legends_beside_the_data_and_nothing_cut_off(plot, shown):
    _, draw, adata = plot
    result = draw(adata, show=True)
    assert shown == [True]
    figure = result if isinstance(result, Figure) else np.atleast_1d(result)[0].figure
    figure.draw_without_rendering()
    box, whole = figure.get_tightbbox(), figure.get_size_inches()
    assert box.x0 > -0.02
    assert box.y0 > -0.02
    assert box.x1 < whole[0] + 0.02
    assert box.y1 < whole[1] + 0.02
    for ax in figure.axes:
        if (legend := ax.get_legend()) is not None:
            box, frame = legend.get_window_extent(), ax.get_window_extent()
            assert box.y0 >= frame.y1 - 1 or box.x0 >= frame.x1 - 1
