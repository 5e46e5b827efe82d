from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.colors import to_rgb

from perturbflow.evaluation import summary_table
from perturbflow.pl import evaluation

GREY, VERMILLION = "#A8A8A8", "#D55E00"

MEANS = {"flow": 0.4, "additive effect": 1.0, "mean effect": 0.8, "control cells": 2.0, "ceiling": 0.0}
ORDER = ["flow", "mean effect", "additive effect", "control cells (floor)", "real halves (ceiling)"]


@pytest.fixture(params=[5, 30], ids=["few", "many"])
def judged(request):
    """Scores of ``n`` conditions around known means, in two splits and metrics."""
    n = request.param
    spread = np.linspace(-0.1, 0.1, n)
    rows = [
        {"split": split, "perturbation": f"P{i}", "model": model, "metric": metric, "value": mean + factor * spread[i]}
        for split, factor in (("train", 1), ("test", 2))
        for metric in ("energy_distance", "cosine_of_mean_effects")
        for model, mean in MEANS.items()
        for i in range(n)
    ]
    adata = AnnData(np.zeros((1, 1), dtype=np.float32))
    adata.uns["evaluation"] = pd.DataFrame(rows).assign(n_cells=50)
    adata.uns["evaluation_summary"] = summary_table(
        adata.uns["evaluation"], baselines=[*MEANS][1:-1], n_resamples=20, rng=np.random.default_rng(0)
    )
    adata.uns["n"] = n
    return adata


def test_points_means_and_bounds(judged):
    ax: Any = evaluation(judged, split="test")
    n = judged.uns["n"]
    assert [text.get_text() for text in ax.get_yticklabels()] == ORDER
    points = [np.asarray(each.get_offsets()) for each in ax.collections if len(each.get_offsets()) == n]
    assert len(points) == 5
    for place, model in enumerate(["flow", "mean effect", "additive effect", "control cells", "ceiling"]):
        expected = MEANS[model] + 2 * np.linspace(-0.1, 0.1, n)
        np.testing.assert_allclose(np.sort(points[place][:, 0]), expected)
        assert (np.abs(points[place][:, 1] - place) < 0.3).all()
        mean = ax.containers[place].lines[0]
        np.testing.assert_allclose([mean.get_xdata()[0], mean.get_ydata()[0]], [MEANS[model], place], atol=1e-12)
    bounds = [line.get_xdata()[0] for line in ax.lines if line.get_linestyle() == "--"]
    np.testing.assert_allclose(bounds, [MEANS["control cells"], MEANS["ceiling"]], atol=1e-12)
    assert ax.get_title(loc="left") == f"test: {n} conditions"
    assert ax.get_xlabel() == "energy distance (lower is better)"


def test_fifty_models_from_the_best_to_the_worst(tables):
    bounds = {"mean effect": 3.0, "control cells": 4.0, "ceiling": 0.0}
    models = {f"model {i}": float(50 - i) for i in range(50)}
    few: Any = evaluation(tables({"mmd": bounds}), split="test", metric="mmd")
    many: Any = evaluation(tables({"mmd": models | bounds}), split="test", metric="mmd")
    names = [text.get_text() for text in many.get_yticklabels()]
    assert names[:50] == [f"model {i}" for i in range(49, -1, -1)]
    assert names[50:] == ["mean effect", "control cells (floor)", "real halves (ceiling)"]
    assert many.get_xlabel() == "MMD (lower is better)"
    assert few.figure.get_figheight() < many.figure.get_figheight() < 15


def test_dynamic_range_stands_beside_the_energy_distance_only(judged):
    ax: Any = evaluation(judged, split="train")
    assert [text.get_text() for text in ax.texts] == ["0.80", "0.60", "0.50", "0.00", "1.00", "dynamic\nrange"]
    other: Any = evaluation(judged, split="train", metric="cosine_of_mean_effects")
    assert list(other.texts) == []
    assert other.get_xlabel() == "cosine of mean effects (higher is better)"
    assert [text.get_text() for text in other.get_yticklabels()][1:3] == ["additive effect", "mean effect"]


def test_the_model_is_highlighted(judged):
    ax: Any = evaluation(judged, split="train")
    weights = [text.get_fontweight() for text in ax.get_yticklabels()]
    assert weights == ["bold", *["normal"] * 4]
    shades = [tuple(each.get_facecolor()[0, :3]) for each in ax.collections if len(each.get_offsets()) > 1]
    np.testing.assert_allclose(shades, [to_rgb(VERMILLION), *[to_rgb(GREY)] * 4])
    judged.uns["evaluation_colors"] = {"flow": "#00FF00"}
    ax = evaluation(judged, split="train")
    shades = [tuple(each.get_facecolor()[0, :3]) for each in ax.collections if len(each.get_offsets()) > 1]
    np.testing.assert_allclose(shades[0], [0, 1, 0])


def test_a_panel_for_every_split(judged):
    axes: Any = evaluation(judged)
    assert [ax.get_title(loc="left").split(":")[0] for ax in axes] == ["train", "test"]
    assert axes[0].figure is axes[1].figure
    judged.uns["evaluation"] = judged.uns["evaluation"].query("split == 'test'")
    axes = evaluation(judged)
    assert axes.shape == (1,)


def test_given_axes(judged):
    _, ax = plt.subplots()
    assert evaluation(judged, split="test", ax=ax) is ax
    assert len(plt.get_fignums()) == 1
    with pytest.raises(ValueError, match=r"Expected `split` to be one of \['train', 'test'\] when `ax` is given"):
        evaluation(judged, ax=ax)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"key": "judged"}, KeyError, r"Run pf.tl.evaluate\(adata, key_added='judged'\) first"),
        (
            {"metric": "mmd"},
            ValueError,
            r"Expected `metric` to be one of \['cosine_of_mean_effects', 'energy_distance'\]",
        ),
        ({"split": "valid"}, ValueError, r"Expected `split` to be one of \['test', 'train'\]"),
    ],
)
def test_what_is_missing_is_said(judged, options, error, match):
    with pytest.raises(error, match=match):
        evaluation(judged, **options)
