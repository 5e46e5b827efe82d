from __future__ import annotations

import builtins
import logging
import sys
import time
import warnings
from typing import Any

import pytest

from perturbflow import _progress, settings
from perturbflow._progress import Progress, count, note, progress, shows_progress, stage


@pytest.fixture
def watched(monkeypatch):
    monkeypatch.setattr(_progress, "is_watched", lambda: True)


def drawn(bar: Progress) -> Any:
    """The bar of tqdm."""
    return bar._bar


@pytest.mark.usefixtures("watched")
def test_one_bar_has_all_stages(capsys):
    with progress("fit") as bar:
        bar.stage("prior")
        bar.stage("training", unit="step", total=4, initial=1)
        count()
        note(loss="0.5")
        assert (drawn(bar).n, drawn(bar).total, drawn(bar).desc) == (2, 4, "fit: training: ")
        stage("choices")
        assert (drawn(bar).n, drawn(bar).total) == (0, None)
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert [
        name for name in ("fit: prior", "fit: training", "2/4", "loss=0.5", "fit: choices") if name not in shown
    ] == []


@pytest.mark.usefixtures("watched")
def test_what_is_opened_within_becomes_a_stage(capsys):
    with progress("outer") as outer:
        with progress("inner", show=False) as inner:
            inner.stage("inner")
        assert inner is outer
        assert drawn(outer).desc == "outer: inner: "
        stage("outer", unit="condition")
        assert drawn(outer).desc == "outer: conditions: "
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.usefixtures("watched")
def test_the_clock_goes_on_where_nothing_is_counted(capsys, monkeypatch):
    monkeypatch.setattr(_progress, "_SECONDS_BETWEEN_LOOKS", 0.02)
    with progress("fit") as bar:
        bar.stage("prior")
        capsys.readouterr()
        deadline = time.monotonic() + 5
        seen = ""
        while not seen and time.monotonic() < deadline:
            time.sleep(0.02)
            seen = capsys.readouterr().err
    assert "fit: prior" in seen


def test_elsewhere_stages_are_lines_of_the_log(capsys, caplog):
    with caplog.at_level(logging.INFO), progress("fit") as bar:
        for name in ("prior", "training", "training", "choices"):
            bar.stage(name)
            bar.update()
    assert caplog.messages == ["fit: prior", "fit: training", "fit: choices"]
    assert capsys.readouterr().err == ""


def test_by_default_nothing_is_said_where_nobody_looks(capsys, caplog):
    with progress("fit") as bar:
        bar.stage("prior")
    assert caplog.messages == []
    assert capsys.readouterr() == ("", "")


@pytest.mark.usefixtures("watched")
@pytest.mark.parametrize("is_set", [True, False])
def test_settings_and_arguments_hide_bars(is_set, capsys, monkeypatch):
    monkeypatch.setattr(settings, "_progress_bars", not is_set)
    with progress("fit", show=is_set) as bar:
        bar.stage("prior")
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("watched")
def test_functions_open_their_progress_as_their_argument_says():
    @shows_progress("work")
    def work(*, progress_bar: bool = True) -> bool | None:
        stage("first")
        bar = _progress._OPEN.get()
        return None if bar is None else bar.is_drawn

    assert work()
    assert not work(progress_bar=False)
    assert _progress._OPEN.get() is None


def test_an_error_closes_the_progress():
    with pytest.raises(ZeroDivisionError), progress("fit"):
        _ = 1 / 0
    assert _progress._OPEN.get() is None
    stage("nothing is open")
    count()
    note(loss=0)


def test_a_terminal_is_watched_by_the_first_process(monkeypatch):
    assert not _progress.is_watched()
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert _progress.is_watched()
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert not _progress.is_watched()
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert _progress.is_watched()
    monkeypatch.setenv("TQDM_DISABLE", "1")
    assert not _progress.is_watched()


def test_a_notebook_is_watched(monkeypatch):
    class Shell:
        config = ("IPKernelApp",)

    class IPython:
        get_ipython = Shell

    monkeypatch.setitem(sys.modules, "IPython", IPython)
    assert _progress.is_watched()


def test_notebooks_without_widgets_get_no_warning(monkeypatch, capsys):
    real = builtins.__import__

    def without_widgets(name, *args, **options):
        if name.partition(".")[0] == "ipywidgets":
            raise ImportError(name)
        return real(name, *args, **options)

    for name in [name for name in sys.modules if name.startswith("tqdm.") or name == "ipywidgets"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without_widgets)
    monkeypatch.setattr("tqdm.std.tqdm.monitor_interval", 0, raising=False)
    bar = Progress("fit", is_drawn=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bar.stage("prior")
        bar.close()
    assert "fit: prior" in capsys.readouterr().err
