from __future__ import annotations

import builtins
import sys
import warnings

import pytest

from perturbflow.train._progress import progress_bar


def test_a_bar_counts_on_from_where_it_was(capsys):
    with progress_bar("fit", unit="step", total=4, initial=1) as bar:
        bar.update()
        assert (bar.n, bar.total) == (2, 4)
    shown = capsys.readouterr().err
    assert "fit:" in shown
    assert "2/4" in shown


def test_a_bar_that_is_not_shown_is_silent(capsys):
    with progress_bar("fit", unit="step", total=4, show=False) as bar:
        bar.update()
    captured = capsys.readouterr()
    assert captured.out + captured.err == ""


@pytest.mark.parametrize("show", [True, False])
def test_notebooks_without_widgets_get_no_warning(show, monkeypatch):
    real = builtins.__import__

    def without_widgets(name, *args, **options):
        if name.partition(".")[0] == "ipywidgets":
            raise ImportError(name)
        return real(name, *args, **options)

    for name in [name for name in sys.modules if name.startswith("tqdm.") or name == "ipywidgets"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without_widgets)
    monkeypatch.setattr("tqdm.std.tqdm.monitor_interval", 0, raising=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        progress_bar("fit", unit="step", total=1, show=show).close()
