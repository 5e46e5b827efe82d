"""Files of figures, as in scanpy: every plot takes `save`."""

from __future__ import annotations

from functools import partial
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.image import imread

import perturbflow
from perturbflow import pl


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The figure directory, which is not there yet."""
    path = tmp_path / "results" / "figures"
    monkeypatch.setattr(perturbflow.settings, "figdir", path)
    return path


@pytest.fixture
def draw():
    """Draws a plot of one edge."""
    edges = pd.DataFrame({"source": ["a"], "target": ["b"], "weight": [1.0], "sign": [1], "confidence": [1.0]})
    adata = AnnData(np.ones((1, 2)), var=pd.DataFrame(index=["a", "b"]))
    adata.uns["dynamics_graph"] = {"edges": edges, "method": "jacobian"}
    return partial(pl.edge_stability, adata)


@pytest.mark.parametrize("name", pl.__all__)
def test_every_plot_takes_show_and_save(name):
    parameters = signature(getattr(pl, name)).parameters
    for each in ("show", "save"):
        assert parameters[each].kind is Parameter.KEYWORD_ONLY
        assert parameters[each].default is None


@pytest.mark.parametrize(
    ("save", "expected", "begins"),
    [
        (True, "edge_stability.pdf", b"%PDF"),
        ("", "edge_stability.pdf", b"%PDF"),
        ("_first", "edge_stability_first.pdf", b"%PDF"),
        ("_first.png", "edge_stability_first.png", b"\x89PNG"),
        (".svg", "edge_stability.svg", b"<?xml"),
        ("_at_0.5", "edge_stability_at_0.5.pdf", b"%PDF"),
        ("png", "edge_stabilitypng.pdf", b"%PDF"),
    ],
)
def test_names_and_formats(draw, folder, save, expected, begins):
    draw(save=save)
    (path,) = folder.iterdir()
    assert path.name == expected
    assert path.read_bytes().startswith(begins)


def test_the_folder_is_that_of_scanpy_by_default(draw, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    draw(save=True)
    assert Path("figures/edge_stability.pdf").is_file()


@pytest.mark.parametrize("save", [None, False])
def test_nothing_is_written_unless_asked(draw, folder, save):
    draw(save=save)
    assert not folder.exists()


def test_figures_and_panels_are_saved_whole(folder, tables, analysed_dynamics):
    pl.evaluation(tables({"energy_distance": {"flow": 0.1, "mean effect": 0.3}}), save=".png")
    pl.trajectories(analysed_dynamics, ["gene0", "gene1"], save=".png")
    for name in ("evaluation", "trajectories"):
        assert imread(folder / f"{name}.png").std() > 0


def test_new_figures_are_closed_once_saved_and_given_ones_are_not(draw, folder):
    ax = draw(save=".png")
    assert plt.get_fignums() == []
    ax.figure.savefig(folder / "again.png")  # what is returned can still be used
    figure, ax = plt.subplots()
    assert draw(ax=ax, save="_given.png") is ax
    assert plt.get_fignums() == [figure.number]


def test_the_figure_is_shown_before_it_is_closed(draw, folder, monkeypatch):
    shown: list[list[int]] = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(plt.get_fignums()))
    draw(save=True, show=True)
    assert [len(figures) for figures in shown] == [1]
    assert plt.get_fignums() == []


@pytest.mark.parametrize("save", ["results/a.png", "..\\a.png", 3, ["a"]])
def test_what_is_no_end_of_a_name_is_refused_before_anything_is_drawn(draw, folder, save):
    with pytest.raises(
        ValueError, match=r"Expected `save` to be True or a suffix of the file name.*pf\.settings\.figdir"
    ):
        draw(save=save)
    assert plt.get_fignums() == []
    assert not folder.exists()


def test_a_real_plot_is_saved(folder, adata):
    before = plt.get_fignums()
    ax: Any = pl.perturbation_effect(adata, adata.uns["label"], save="_mine.png")
    assert np.ptp(imread(folder / "perturbation_effect_mine.png")) > 0
    assert plt.get_fignums() == before
    assert ax.get_xlabel().startswith("observed effect")
