"""Labels of points, and names of metrics."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.text import Text

from perturbflow.metrics import METRICS
from perturbflow.pl._drawing import label_points, metric_name


@pytest.fixture
def ax():
    _, ax = plt.subplots(layout="constrained")
    ax.set(xlim=(0, 1), ylim=(0, 1))
    return ax


def n_covered(text, points):
    """Number of points below a text."""
    text.figure.draw_without_rendering()
    box = Text.get_window_extent(text)
    places = text.axes.transData.transform(points)
    return int(((places > box.min) & (places < box.max)).all(axis=1).sum())


def test_a_label_stands_where_no_other_point_is(ax):
    # To the right, where it would stand first, and in most other directions there are others.
    angle = np.linspace(0, 2 * np.pi, 200)
    ring = 0.5 + 0.04 * np.column_stack([np.cos(angle), np.sin(angle)])
    crowd = ring[(angle < 4) | (angle > 5.4)]
    (near,) = label_points(ax, [0.5], [0.5], ["a gene"])
    assert n_covered(near, crowd) > 0
    near.remove()
    (text,) = label_points(ax, [0.5], [0.5], ["a gene"], others=crowd)
    assert n_covered(text, crowd) == 0


def test_a_label_covers_few_points_where_they_are_everywhere(ax):
    crowd = np.random.default_rng(0).random((3000, 2))
    (text,) = label_points(ax, [0.5], [0.5], ["a gene"], others=crowd)
    (first,) = label_points(ax, [0.5], [0.5], ["a gene"])
    assert 0 < n_covered(text, crowd) <= n_covered(first, crowd)


@pytest.mark.parametrize(
    ("metric", "name"),
    [
        ("energy_distance", "energy distance"),
        ("mmd", "MMD"),
        ("rmse_of_mean_effects", "RMSE of mean effects"),
        ("pearson_against_centroids", "Pearson against centroids"),
        ("weighted_r2", "weighted R²"),
    ],
)
def test_metrics_have_names_in_words(metric, name):
    assert metric in METRICS
    assert metric_name(metric) == name
