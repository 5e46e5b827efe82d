from __future__ import annotations

import logging

import pytest
from joblib import delayed

from perturbflow import _progress
from perturbflow._progress import progress_bar, side_by_side


@pytest.fixture
def watched(monkeypatch):
    monkeypatch.setattr(_progress, "is_watched", lambda: True)


@pytest.mark.usefixtures("watched")
def test_a_bar_counts_on_from_where_it_was(capsys):
    with progress_bar("fit", unit="step", total=4, initial=1) as bar:
        bar.update()
    shown = capsys.readouterr().err
    assert "fit: steps:" in shown
    assert "2/4" in shown


@pytest.mark.usefixtures("watched")
def test_a_bar_that_is_not_shown_is_silent(capsys):
    with progress_bar("fit", unit="step", total=4, show=False) as bar:
        bar.update()
    assert capsys.readouterr() == ("", "")


def test_jobs_come_in_their_order_within_one_stage(caplog):
    with caplog.at_level(logging.INFO):
        found = side_by_side(
            (delayed(pow)(k, 2) for k in range(4)), "squares", unit="number", total=4, n_jobs=1, show=True
        )
    assert found == [0, 1, 4, 9]
    assert caplog.messages == ["squares: numbers"]
