"""Colours: apart for everybody, and those that are kept in ``adata.uns`` are used."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_hex, to_rgb

from perturbflow import pl
from perturbflow.flow import KINDS
from perturbflow.pl import _drawing, _evaluation, _graph_style

# Machado, Oliveira and Fernandes (2009): how linear RGB looks without red-, green- or blue-sensitive cones.
VISION = {
    "full": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}
TO_XYZ = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
PALETTES = {
    "models and trajectories": [*_drawing.PALETTE, _drawing.GREY, _drawing.DARK],
    "cells": [*_drawing.SOURCES.values()],
    "kinds of conditions": [*_drawing.KIND_COLORS.values()],
    "verdicts": [color for color, _ in _evaluation._STYLES.values()],
    "signs of edges": [*_graph_style.COLORS.values()],
}


def lab(color: str, vision: Any) -> np.ndarray:
    """Coordinates in CIELAB, in which a distance of 2 can just be seen."""
    rgb = np.array(to_rgb(color))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    x, y, z = TO_XYZ @ np.clip(np.array(vision) @ linear, 0, 1) / [0.9505, 1.0, 1.089]
    fx, fy, fz = (np.cbrt(each) if each > 0.008856 else 7.787 * each + 16 / 116 for each in (x, y, z))
    return np.array([116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)])


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("palette", PALETTES)
def test_colours_are_apart_under_colour_blindness(palette, vision):
    seen = {color: lab(color, VISION[vision]) for color in PALETTES[palette]}
    near = {pair: np.linalg.norm(seen[pair[0]] - seen[pair[1]]) for pair in combinations(seen, 2)}
    assert min(near.values()) > 15, min(near, key=lambda pair: near[pair])


def test_the_measure_finds_colours_that_are_confused():
    red, green = (lab(color, VISION["deuteranopia"]) for color in ("#A0522D", "#6B7A1E"))
    assert np.linalg.norm(red - green) < 15 < np.linalg.norm(lab("#A0522D", np.eye(3)) - lab("#6B7A1E", np.eye(3)))


def test_every_kind_of_condition_has_a_colour():
    assert set(KINDS) <= set(_drawing.KIND_COLORS)


def test_more_models_than_colours_share_one(tables):
    def colors(n_models):
        means = {f"model {number}": 0.1 for number in range(n_models)} | {"mean effect": 0.2}
        return drawn(pl.evaluation(tables({"energy_distance": means}), split="test"))

    shared = {to_hex(color) for color in (_drawing.PALETTE[0], _drawing.GREY, _drawing.DARK)}
    assert shared <= colors(7)
    assert not {to_hex(color) for color in _drawing.PALETTE[1:]} & colors(7)
    assert {to_hex(color) for color in _drawing.PALETTE} <= colors(6)


def drawn(ax: Any) -> set[str]:
    """Colours of all that is drawn."""
    faces = [color for each in ax.collections for color in each.get_facecolor()]
    others = [line.get_color() for line in ax.lines] + [patch.get_facecolor() for patch in ax.patches]
    return {to_hex(color) for color in [*faces, *others]}


@pytest.mark.parametrize("plot", [pl.embedding, pl.expression, pl.perturbation_effect])
@pytest.mark.parametrize(
    "colors",
    [["#111111", "#222222", "#3355ee"], {"predicted": "#3355ee"}],
    ids=["list", "by name"],
)
def test_kept_colours_of_cells(adata, plot, colors, unchanged):
    adata.uns["predicted_colors"] = colors
    with unchanged(adata):
        ax = plot(adata, adata.uns["label"])
    assert "#3355ee" in drawn(ax)
    assert _drawing.VERMILLION.lower() not in drawn(ax)


@pytest.mark.parametrize("plot", [pl.evaluation, pl.metric_ranks])
@pytest.mark.parametrize("by_name", [False, True], ids=["list", "by name"])
def test_kept_colours_of_models(tables, plot, by_name, unchanged):
    models = {"GEARS": 0.2, "flow": 0.1, "mean effect": 0.3, "control cells": 0.4, "ceiling": 0.0}
    adata = tables({"energy_distance": models, "mmd": models})
    colors = ["#3355ee", "#22cc22", "#111111", "#222222", "#333333"]
    adata.uns["evaluation_colors"] = dict(zip(models, colors, strict=True)) if by_name else colors
    with unchanged(adata):
        ax = plot(adata, split="test")
    # Both draw the flow first, which is better, but the colours are in the order of the table.
    assert {"#3355ee", "#22cc22"} <= drawn(ax)
    first = next(line for line in ax.lines if line.get_marker() not in {"None", "", None})
    assert first.get_color() == "#22cc22"


def test_too_few_colours(adata):
    adata.uns["predicted_colors"] = ["#111111"]
    with pytest.raises(ValueError, match=r"Expected 3 colours in `adata.uns\['predicted_colors'\]`.*found 1"):
        pl.embedding(adata, adata.uns["label"])
