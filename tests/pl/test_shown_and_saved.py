"""Files of figures, as in scanpy: every plot takes `save`."""

from __future__ import annotations

from inspect import Parameter, signature
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.image import imread

import perturbflow
from perturbflow import pl
from perturbflow.pl._shown_and_saved import shown_and_saved


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The figure directory, which is not there yet."""
    path = tmp_path / "results" / "figures"
    monkeypatch.setattr(perturbflow.settings, "figdir", path)
    return path


@shown_and_saved
def line(*, ax: Any = None, show: bool | None = None, save: bool | str | None = None) -> Any:
    """Draw a line."""
    if ax is None:
        _, ax = plt.subplots()
    ax.plot([0, 1], [0, 1])
    return ax


@shown_and_saved
def panels(*, show: bool | None = None, save: bool | str | None = None) -> Any:
    """Make three Axes."""
    return plt.subplots(1, 3)[1]


@shown_and_saved
def whole(*, show: bool | None = None, save: bool | str | None = None) -> Any:
    """Make a figure."""
    figure = plt.figure()
    figure.add_subplot()
    return figure


@pytest.mark.parametrize("name", pl.__all__)
def test_every_plot_takes_show_and_save(name):
    parameters = signature(getattr(pl, name)).parameters
    for each in ("show", "save"):
        assert parameters[each].kind is Parameter.KEYWORD_ONLY
        assert parameters[each].default is None


@pytest.mark.parametrize(
    ("save", "expected", "begins"),
    [
        (True, "line.pdf", b"%PDF"),
        ("", "line.pdf", b"%PDF"),
        ("_first", "line_first.pdf", b"%PDF"),
        ("_first.png", "line_first.png", b"\x89PNG"),
        (".svg", "line.svg", b"<?xml"),
        ("_at_0.5", "line_at_0.5.pdf", b"%PDF"),
        ("png", "linepng.pdf", b"%PDF"),
    ],
)
def test_names_and_formats(folder, save, expected, begins):
    line(save=save)
    (path,) = folder.iterdir()
    assert path.name == expected
    assert path.read_bytes().startswith(begins)


def test_the_folder_is_that_of_scanpy_by_default(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    line(save=True)
    assert Path("figures/line.pdf").is_file()


@pytest.mark.parametrize("save", [None, False])
def test_nothing_is_written_unless_asked(folder, save):
    line(save=save)
    assert not folder.exists()


@pytest.mark.parametrize("plot", [panels, whole])
def test_figures_and_panels_are_saved_whole(folder, plot):
    plot(save=".png")
    assert imread(folder / f"{plot.__name__}.png").std() > 0


def test_new_figures_are_closed_once_saved_and_given_ones_are_not(folder):
    ax = line(save=".png")
    assert plt.get_fignums() == []
    ax.figure.savefig(folder / "again.png")  # what is returned can still be used
    figure, ax = plt.subplots()
    assert line(ax=ax, save="_given.png") is ax
    assert plt.get_fignums() == [figure.number]


def test_the_figure_is_shown_before_it_is_closed(folder, monkeypatch):
    shown: list[list[int]] = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(plt.get_fignums()))
    line(save=True, show=True)
    assert [len(figures) for figures in shown] == [1]
    assert plt.get_fignums() == []


@pytest.mark.parametrize("save", ["results/a.png", "..\\a.png", 3, ["a"]])
def test_what_is_no_end_of_a_name_is_refused_before_anything_is_drawn(folder, save):
    with pytest.raises(ValueError, match=r"Expected `save` to be True or the end of a file name.*pf\.settings\.figdir"):
        line(save=save)
    assert plt.get_fignums() == []
    assert not folder.exists()


def test_a_real_plot_is_saved(folder, adata):
    before = plt.get_fignums()
    ax: Any = pl.perturbation_effect(adata, adata.uns["label"], save="_mine.png")
    assert np.ptp(imread(folder / "perturbation_effect_mine.png")) > 0
    assert plt.get_fignums() == before
    assert ax.get_xlabel().startswith("observed effect")
