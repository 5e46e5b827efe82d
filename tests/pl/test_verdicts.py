from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.colors import to_rgb

from perturbflow.pl import verdicts

BLUE, GREY, ORANGE, VERMILLION = "#0072B2", "#A8A8A8", "#E69F00", "#D55E00"

BETTER, TIE, BASELINE = "model better", "no difference could be shown", "a baseline is better"
UNKNOWN = "not measurable at this number of cells"


def judged(n=6, *, splits=("test",), models=("flow",)):
    """Differences from -1 to 1 with intervals of half-width 0.5; the last condition is not measurable."""
    rows = []
    for split in splits:
        for model in models:
            for i, difference in enumerate(np.linspace(-1, 1, n)):
                verdict = BETTER if difference + 0.5 < 0 else BASELINE if difference - 0.5 > 0 else TIE
                verdict = UNKNOWN if i == n - 1 else verdict
                row = {"split": split, "perturbation": f"P{i}", "cell_type": "T", "model": model}
                row |= {"best_baseline": "mean effect", "difference": difference, "lower": difference - 0.5}
                row |= {"upper": difference + 0.5, "p_value": 0.5 if i == n - 1 else 0.01, "n_cells": 30}
                rows.append(row | {"n_cells_needed": 40.0, "verdict": verdict, "finding": f"{verdict}, {i}"})
    adata = AnnData(np.zeros((1, 1), dtype=np.float32))
    adata.uns["evaluation"] = pd.DataFrame()
    adata.uns["evaluation_verdicts"] = pd.DataFrame(rows).iloc[::-1].reset_index(drop=True)
    return adata


@pytest.mark.parametrize("n", [6, 50], ids=["few", "many"])
def test_differences_with_intervals_by_verdict(n):
    adata = judged(n)
    table = adata.uns["evaluation_verdicts"].iloc[::-1]
    ax: Any = verdicts(adata, split="test")
    assert [text.get_text() for text in ax.get_yticklabels()] == [f"P{i}, T" for i in range(n)]
    counts = []
    for place, (verdict, color) in enumerate({BETTER: BLUE, TIE: ORANGE, BASELINE: VERMILLION, UNKNOWN: GREY}.items()):
        chosen = np.flatnonzero(table["verdict"] == verdict)
        lines, points = ax.collections[2 * place : 2 * place + 2]
        expected = np.column_stack([table["difference"].to_numpy()[chosen], chosen])
        np.testing.assert_allclose(np.asarray(points.get_offsets()), expected)
        ends = np.array([segment[:, 0] for segment in lines.get_segments()])
        np.testing.assert_allclose(ends, table[["lower", "upper"]].to_numpy()[chosen])
        np.testing.assert_allclose(points.get_facecolor()[0, :3], to_rgb(color))
        counts.append(f"{len(chosen)} {verdict}")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == counts
    assert ax.get_title(loc="left") == "test: flow"
    assert ax.get_xlabel().startswith("energy distance,\nflow minus best baseline")
    assert [line.get_xdata()[0] for line in ax.lines] == [0.0]


def test_no_effect_is_counted_where_it_is_better():
    adata = judged(8)
    table = adata.uns["evaluation_verdicts"]
    assert (table["verdict"] == BASELINE).sum() == 1
    table.loc[table["verdict"] == BASELINE, "finding"] = "no effect (control cells) is better than flow"
    ax: Any = verdicts(adata, split="test")
    assert ax.get_legend().get_texts()[2].get_text() == "1 a baseline is better; no effect (control cells) in 1"


def test_verdicts_of_an_earlier_version_are_refused():
    adata = judged()
    adata.uns["evaluation_verdicts"].loc[0, "verdict"] = "resolved by a baseline"
    with pytest.raises(
        ValueError, match=r"found \['resolved by a baseline'\] from an earlier version. Run `pf.tl.evaluate`"
    ):
        verdicts(adata)


def test_names_have_the_context():
    adata = judged(2)
    adata.uns["evaluation_verdicts"]["cell_type"] = ["U", "T"]
    ax: Any = verdicts(adata, split="test")
    assert [text.get_text() for text in ax.get_yticklabels()] == ["P0, T", "P1, U"]


def test_hundreds_of_conditions_have_no_names():
    ax: Any = verdicts(judged(300), split="test")
    assert list(ax.get_yticks()) == []
    assert ax.get_ylabel() == "300 conditions"
    assert sum(len(each.get_offsets()) for each in ax.collections[1::2]) == 300


def test_names_only_where_all_panels_have_room():
    adata = judged(60, splits=("valid", "test"))
    table = adata.uns["evaluation_verdicts"]
    named: Any = verdicts(adata)
    assert [len(ax.get_yticks()) for ax in named] == [60, 60]
    named[0].figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in named[0].get_yticklabels()]
    assert not any(one.overlaps(other) for one, other in zip(boxes[:-1], boxes[1:], strict=True))
    more = judged(61).uns["evaluation_verdicts"]
    adata.uns["evaluation_verdicts"] = pd.concat([table[table["split"] == "valid"], more])
    crowded: Any = verdicts(adata)
    assert [len(ax.get_yticks()) for ax in crowded] == [0, 0]


def test_panels_and_models():
    adata = judged(4, splits=("valid", "test"), models=("GEARS", "flow"))
    axes: Any = verdicts(adata, model="GEARS")
    assert [ax.get_title(loc="left") for ax in axes] == ["test: GEARS", "valid: GEARS"]
    _, ax = plt.subplots()
    assert verdicts(adata, split="test", ax=ax) is ax
    assert ax.get_title(loc="left") == "test: flow"  # the first in the table
    options: Any = {"ax": ax}
    with pytest.raises(ValueError, match=r"Expected `split` to be one of \['test', 'valid'\] when `ax` is given"):
        verdicts(adata, **options)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"key": "other"}, KeyError, r"Run pf.tl.evaluate\(adata, key_added='other'\) first"),
        ({"split": "train"}, ValueError, r"Expected `split` to be one of \['test'\], found 'train'"),
        ({"model": "GEARS"}, ValueError, r"Expected `model` to be one of \['flow'\], found 'GEARS'"),
    ],
)
def test_what_is_wrong_is_said(options, error, match):
    with pytest.raises(error, match=match):
        verdicts(judged(), **options)


def test_verdicts_are_needed():
    adata = judged()
    adata.uns["evaluation_verdicts"] = pd.DataFrame()
    with pytest.raises(ValueError, match="Expected verdicts, found an evaluation without"):
        verdicts(adata, split="test")
