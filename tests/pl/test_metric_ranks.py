from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from perturbflow.metrics import METRICS
from perturbflow.pl import metric_ranks

BLUE, VERMILLION = "#0072B2", "#D55E00"
PALETTE = ["#D55E00", "#0072B2", "#009E73", "#E69F00", "#56B4E9", "#663300"]

MEANS = {
    "energy_distance": {"flow": 0.1, "GEARS": 0.2, "mean effect": 0.3, "control cells": 0.4, "ceiling": 0.0},
    "pearson_of_mean_effects": {"flow": 0.1, "GEARS": 0.2, "mean effect": 0.3, "control cells": 0.4, "ceiling": 0.9},
    "mmd": {"flow": 0.1, "GEARS": 0.1, "mean effect": 0.3, "control cells": np.nan, "ceiling": 0.0},
    "rmse_of_mean_effects": {"flow": 0.1, "GEARS": 0.2, "mean effect": 0.3, "control cells": 0.4, "ceiling": 0.0},
}


@pytest.fixture
def judged(tables):
    return tables(MEANS, splits=("valid", "test"))


def ranks(ax: Any) -> dict[str, dict[str, float]]:
    """Ranks by model and metric, read from the lines and the labels at their ends."""
    metrics = [text.get_text() for text in ax.get_xticklabels()]
    lines = [line for line in ax.lines if line.get_linestyle() == "-"]
    names = [text.get_text().split("  ")[0] for text in ax.texts]
    return {
        name: dict(zip(metrics, map(float, line.get_ydata()), strict=False))
        for name, line in zip(names, lines, strict=True)
    }


def test_lines_are_ranks(judged):
    ax: Any = metric_ranks(judged, split="test")
    found = ranks(ax)
    assert found["flow"] == {
        **{"energy distance": 1.0, "RMSE of mean effects": 1.0, "MMD": 1.5, "Pearson of mean effects": 4.0}
    }
    assert found["GEARS"]["MMD"] == 1.5
    assert np.isnan(found["control cells (floor)"]["MMD"])
    assert found["control cells (floor)"]["Pearson of mean effects"] == 1.0
    assert set(found) == {"flow", "GEARS", "mean effect", "control cells (floor)"}  # the ceiling has none


def test_models_are_named_in_the_order_of_their_mean_rank(judged):
    ax: Any = metric_ranks(judged, split="test")
    said = {text.get_text(): text.xy[1] for text in ax.texts}
    assert said == {"flow  1.9": 1, "GEARS  2.1": 2, "mean effect  2.8": 3, "control cells (floor)  3.0": 4}
    assert ax.get_xticklabels()[-1].get_text() == "mean rank"


def test_the_metric_that_disagrees_stands_aside(judged):
    ax: Any = metric_ranks(judged, split="test")
    names = [text.get_text() for text in ax.get_xticklabels()][:-1]
    assert names.index("Pearson of mean effects") in {0, 3}
    # Pairs: 1 (energy, RMSE), sqrt(3)/2 (MMD with both), -1 twice and -sqrt(3)/2 with Pearson.
    expected = (1 + np.sqrt(3) / 2 * 2 - 2 - np.sqrt(3) / 2) / 6
    assert f"{expected:.2f}".replace("-", "−") in ax.get_title(loc="left")
    assert ax.get_title(loc="left").startswith("test: 7 conditions\nmean rank correlation ")


def test_models_are_coloured_and_baselines_grey(judged):
    ax: Any = metric_ranks(judged, split="test")
    lines = [line for line in ax.lines if len(line.get_xdata()) == 4]
    colors = [to_rgb(line.get_color()) for line in lines]
    assert colors[:2] == [to_rgb(VERMILLION), to_rgb(BLUE)]
    assert all(max(color) == min(color) for color in colors[2:])
    assert [text.get_fontweight() for text in ax.texts] == ["bold", "bold", "normal", "normal"]
    judged.uns["evaluation_colors"] = {"GEARS": "#00FF00"}
    ax = metric_ranks(judged, split="test")
    assert [line.get_color() for line in ax.lines if len(line.get_xdata()) == 4][1] == "#00FF00"


def test_a_list_of_colours_is_in_the_order_of_the_table(judged):
    judged.uns["evaluation_colors"] = ["#111111", "#222222", "#333333", "#444444", "#555555"]
    ax: Any = metric_ranks(judged, split="test", models=["mean effect", "GEARS"])
    drawn = [line.get_color() for line in ax.lines if line.get_linestyle() == "-"]
    assert drawn == ["#222222", "#333333"]


def test_of_50_models_the_best_are_coloured(tables):
    models = {f"model {i}": float(i) for i in range(50)}
    ax: Any = metric_ranks(tables({"mmd": models, "energy_distance": models}), split="test")
    drawn = [line for line in ax.lines if line.get_linestyle() == "-"]
    assert [line.get_color() for line in drawn[:6]] == list(PALETTE)
    assert len({line.get_color() for line in drawn[6:]}) == 1
    assert min(line.get_linewidth() for line in drawn[:6]) > max(line.get_linewidth() for line in drawn[6:])


def test_a_panel_for_every_split(judged):
    axes: Any = metric_ranks(judged)
    assert [ax.get_title(loc="left").split(":")[0] for ax in axes] == ["valid", "test"]


def test_chosen_models_are_ranked_among_each_other(judged):
    found = ranks(
        metric_ranks(judged, split="test", models=["mean effect", "GEARS"], metrics=["mmd", "energy_distance"])
    )
    assert found == {"GEARS": {"MMD": 1.0, "energy distance": 1.0}, "mean effect": {"MMD": 2.0, "energy distance": 2.0}}


def test_many_models_and_metrics_are_all_drawn(tables):
    names = [name for name, metric in METRICS.items() if metric.scope != "dataset"][:35]
    rng = np.random.default_rng(0)
    means = {name: {f"model {i}": value for i, value in enumerate(rng.random(14))} for name in names}
    ax: Any = metric_ranks(tables(means), split="test")
    assert {len(values) for values in ranks(ax).values()} == {35}
    assert len(ax.texts) == 14
    for metric in next(iter(ranks(ax).values())):
        assert sorted(values[metric] for values in ranks(ax).values()) == list(range(1, 15))
    ax.figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in ax.texts]
    assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])


def test_given_axes(judged):
    _, ax = plt.subplots()
    assert metric_ranks(judged, split="test", ax=ax) is ax
    assert len(plt.get_fignums()) == 1
    options: Any = {"ax": ax}
    with pytest.raises(ValueError, match=r"Expected `split` to be one of \['valid', 'test'\] when `ax` is given"):
        metric_ranks(judged, **options)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"key": "other"}, KeyError, r"Run pf.tl.evaluate\(adata, key_added='other'\) first"),
        ({"split": "train"}, ValueError, r"Expected `split` to be one of \['test', 'valid'\], found 'train'"),
        ({"models": ["flow", "ceiling"]}, ValueError, r"Expected at least two models to rank, found \['flow'\]"),
        ({"metrics": ["cosine"]}, ValueError, "Expected `metrics` to be one of .*found 'cosine'"),
    ],
)
def test_what_is_wrong_is_said(judged, options, error, match):
    with pytest.raises(error, match=match):
        metric_ranks(judged, **options)
