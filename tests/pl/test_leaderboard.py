from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest

from perturbflow.metrics import METRICS
from perturbflow.pl import leaderboard

MEANS = {
    "energy_distance": {"flow": 0.5, "mean effect": 1.5, "control cells": 2.0, "ceiling": 0.0},
    "pearson_of_mean_effects": {"flow": 0.6, "mean effect": 0.7, "control cells": 0.0, "ceiling": 0.8},
    "mmd": {"flow": 4e-4, "mean effect": 6e-4, "control cells": 2e-4, "ceiling": 3e-4},
}
ROWS = ["flow", "mean effect", "control cells", "ceiling"]


@pytest.fixture
def judged(tables):
    return tables(MEANS, splits=("valid", "test"), beats={("flow", "energy_distance"), ("mean effect", "mmd")})


def numbers(ax: Any, n_metrics: int = 3) -> list[list[str]]:
    """Texts of the cells, row by row."""
    texts = {text.get_position(): text.get_text() for text in ax.texts}
    n_models = len(ax.get_yticks())
    return [[texts.get((float(column), float(row)), "") for column in range(n_metrics)] for row in range(n_models)]


def test_numbers_are_means(judged):
    ax: Any = leaderboard(judged, split="test")
    assert numbers(ax) == [
        ["0.50", "0.60", "0.40"],
        ["1.50", "0.70", "0.60"],
        ["2.00", "0.00", "0.20"],
        ["0.00", "0.80", "0.30"],
    ]
    assert [text.get_text() for text in ax.get_yticklabels()] == [
        *("flow", "mean effect", "control cells (floor)", "real halves (ceiling)")
    ]
    assert [text.get_text() for text in ax.get_xticklabels()] == [
        *("energy distance ↓", "Pearson of mean effects ↑", "MMD (×$10^{-3}$) ↓")
    ]
    assert ax.get_title(loc="left") == "test: 7 conditions"


def test_metrics_without_any_value_are_not_drawn_unless_named(tables):
    means = MEANS | {"weighted_r2": dict.fromkeys(ROWS, np.nan)}
    by_default: Any = leaderboard(tables(means), split="test")
    assert len(by_default.get_xticks()) == 3
    named: Any = leaderboard(tables(means), split="test", metrics=list(means))
    assert len(named.get_xticks()) == 4


def test_colours_are_positions_between_controls_and_ceiling(judged):
    ax: Any = leaderboard(judged, split="test")
    drawn = np.ma.filled(ax.images[0].get_array(), np.nan)
    # The ceiling of the MMD is worse than the controls, so nothing can be told from it.
    expected = [[0.75, 0.75, np.nan], [0.25, 0.875, np.nan], [0.0, 0.0, np.nan], [1.0, 1.0, np.nan]]
    np.testing.assert_allclose(drawn, expected)
    assert ax.images[0].get_clim() == (-1.0, 1.0)


def test_the_best_are_bold_and_the_ceiling_does_not_compete(judged):
    ax: Any = leaderboard(judged, split="test")
    bold = {text.get_position() for text in ax.texts if text.get_fontweight() == "bold"}
    assert bold == {(0, 0), (1, 1), (2, 2)}  # flow, mean effect, control cells
    assert [text.get_fontweight() for text in ax.get_yticklabels()] == ["bold", "normal", "normal", "normal"]


def test_what_beats_the_baselines_is_marked(judged):
    ax: Any = leaderboard(judged, split="test")
    (marks,) = ax.collections
    places = np.round(np.asarray(marks.get_offsets()) - [0.41, -0.3])
    assert {tuple(place) for place in places} == {(0, 0), (2, 1)}
    assert ax.get_xlabel().startswith("▲ better than the best baseline")


def test_ties_are_all_bold(tables):
    means = {"mmd": dict.fromkeys(("flow", "mean effect"), 0.5) | {"control cells": 1.0, "ceiling": 0.1}}
    ax: Any = leaderboard(tables(means), split="test")
    assert [text.get_fontweight() for text in ax.texts] == ["bold", "bold", "normal", "normal"]


def test_a_panel_for_every_split_and_scenario(judged, tables):
    axes: Any = leaderboard(judged)
    assert [ax.get_title(loc="left") for ax in axes] == ["valid: 7 conditions", "test: 7 conditions"]
    other = tables({"energy_distance": {"GEARS": 3.0, "control cells": 2.0, "ceiling": 0.0}})
    axes = leaderboard({"Norman": judged, "Kang": other}, split="test")
    assert [ax.get_title(loc="left") for ax in axes] == ["Norman: 7 conditions", "Kang: 7 conditions"]
    # Every panel has all models and metrics; what a scenario lacks is empty.
    assert numbers(axes[1])[[text.get_text() for text in axes[0].get_yticklabels()].index("GEARS")] == ["3.00", "", ""]
    drawn = np.ma.filled(axes[1].images[0].get_array(), np.nan)
    assert np.nanmin(drawn) == -0.5
    axes = leaderboard({"Norman": judged})
    assert [ax.get_title(loc="left").split(":")[0] for ax in axes] == ["Norman, valid", "Norman, test"]


def test_chosen_metrics_and_models(judged):
    ax: Any = leaderboard(
        judged, split="test", metrics=["pearson_of_mean_effects", "energy_distance"], models=["mean effect", "flow"]
    )
    # Of equal mean ranks as asked for, and coloured by controls that are not drawn.
    assert numbers(ax, 2) == [["0.70", "1.50"], ["0.60", "0.50"]]
    np.testing.assert_allclose(ax.images[0].get_array(), [[0.875, 0.25], [0.75, 0.75]])
    ax = leaderboard(judged, split="test", metrics=["energy_distance"], models=["mean effect", "flow"])
    assert numbers(ax, 1) == [["0.50"], ["1.50"]]  # the best first
    ax = leaderboard(judged, split="test", metrics="cell_eval")
    assert [text.get_text() for text in ax.get_xticklabels()] == ["Pearson of mean effects ↑"]


def test_many_metrics_become_rows(tables):
    names = [name for name, metric in METRICS.items() if metric.scope != "dataset"][:35]
    models = {f"model {i}": 0.1 * i for i in range(12)} | {"control cells": 0.05, "ceiling": 0.9}
    adata = tables(dict.fromkeys(names, models))
    ax: Any = leaderboard(adata, split="test")
    assert ax.images[0].get_array().shape == (35, 14)
    assert len(ax.texts) == 35 * 14
    assert ax.get_yticklabels()[0].get_text().startswith("energy distance")
    wide: Any = leaderboard(adata, split="test", swap_axes=False)
    assert wide.images[0].get_array().shape == (14, 35)
    # Nothing is cut off, and no number is wider than its cell.
    figure = ax.figure
    figure.draw_without_rendering()
    assert all(text.get_window_extent().x0 >= 0 for text in ax.get_yticklabels())
    width = ax.get_window_extent().width / 14
    assert max(text.get_window_extent().width for text in ax.texts) < width


@pytest.mark.parametrize(
    ("values", "texts", "label"),
    [
        ((0.0123, 0.0456), ["0.012", "0.046"], "MMD ↓"),
        ((1.234e-5, 5e-5), ["12.3", "50.0"], "MMD (×$10^{-6}$) ↓"),
        ((123456.0, 99000.0), ["0.12", "0.10"], "MMD (×$10^{6}$) ↓"),
        ((-0.004, 3.0), ["0.00", "3.00"], "MMD ↓"),
        ((0.5, 0.625, -1234.0), ["0.50", "0.62", "−1234"], "MMD ↓"),
    ],
    ids=["small", "tiny", "huge", "negative", "outlier"],
)
def test_numbers_fit_into_their_cells(tables, values, texts, label):
    ax: Any = leaderboard(tables({"mmd": dict(zip("abc", values, strict=False))}), split="test")
    assert [text.get_text() for text in ax.get_xticklabels()] == [label]
    assert sorted(text.get_text() for text in ax.texts) == sorted(texts)
    assert np.isnan(np.ma.filled(ax.images[0].get_array(), np.nan)).all()  # no ceiling, no position


def test_given_axes(judged):
    _, ax = plt.subplots()
    assert leaderboard(judged, split="test", ax=ax) is ax
    assert len(plt.get_fignums()) == 1
    options: Any = {"ax": ax}
    with pytest.raises(ValueError, match=r"Expected one panel to draw on `ax`, found \['valid', 'test'\]"):
        leaderboard(judged, **options)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"key": "other"}, KeyError, r"Run pf.tl.evaluate\(adata, key_added='other'\) first"),
        ({"split": "train"}, ValueError, r"Expected `split` to be one of \['test', 'valid'\], found 'train'"),
        ({"metrics": ["cosine"]}, ValueError, "Expected `metrics` to be one of .*found 'cosine'"),
        ({"metrics": "cosine"}, ValueError, "Expected `metrics` to be one of .*'perturbench'"),
        ({"metrics": "vcc"}, ValueError, "Expected metrics of the suite 'vcc' in the evaluation"),
        ({"metrics": []}, ValueError, r"Expected a list of at least one of .* in `metrics`, found \[\]"),
        ({"models": ["GEARS"]}, ValueError, "Expected `models` to be one of .*found 'GEARS'"),
        ({"models": ["flow", "flow"]}, ValueError, "Expected `models` to be unique"),
    ],
)
def test_what_is_wrong_is_said(judged, options, error, match):
    with pytest.raises(error, match=match):
        leaderboard(judged, **options)


def test_scenarios_are_needed():
    with pytest.raises(ValueError, match="Expected at least one AnnData, found an empty mapping"):
        leaderboard({})
