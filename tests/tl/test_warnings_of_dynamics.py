"""Warnings of dynamics that cannot be relied on."""

from __future__ import annotations

import warnings
from types import SimpleNamespace
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import perturbflow as pf
from perturbflow.train._fit_dynamics import _warn_unpredictive


def two_genes(spans):
    """Return cells of two genes of which the second follows the first, along some spans of time."""
    values, time, names = [], [], []
    for number, (first, last) in enumerate(spans):
        own = np.linspace(first, last, 24)
        phase = 0.7 * number
        values.append(np.column_stack([2 + np.sin(own + phase), 2 + np.sin(own + phase - 0.8)]))
        time.append(own)
        names.append(np.full(24, f"run {number}"))
    obs = pd.DataFrame({"time": np.concatenate(time), "trajectory": np.concatenate(names)})
    cells = ad.AnnData(np.vstack(values), obs=obs.set_index(obs.index.astype(str)))
    pf.pp.setup_dynamics(cells, time_key="time", trajectory_key="trajectory")
    return cells


def fit(cells, **options):
    pf.tl.fit_dynamics(cells, progress_bar=False, **({"eliminate": False, "effort": 0.02} | options))


def messages(action, *args, **options):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        action(*args, **options)
    return [str(one.message) for one in caught]


def test_trajectories_without_a_common_time():
    with pytest.warns(UserWarning, match="'run 0' ends at 3, before 'run 1' begins at 4"):
        fit(two_genes([(0, 3), (4, 9)]))
    assert not [text for text in messages(fit, two_genes([(0, 3), (2, 9)])) if "begins at" in text]


def test_what_is_held_out_and_not_predicted():
    path: Any = SimpleNamespace(path={"valid_error": [0.9, 1.2], "chosen": [False, True]})
    with pytest.warns(UserWarning, match=r"no better than by assuming no change: relative error 1\.20"):
        _warn_unpredictive(path)
    cells = two_genes([(0, 6)] * 6)
    assert not [text for text in messages(fit, cells, effort=0.2) if "Held-out data" in text]
    assert (cells.uns["dynamics"]["sparsity_path"].query("chosen")["valid_error"] < 1).all()


def test_levels_far_beyond_those_of_the_fit():
    cells = two_genes([(0, 6)] * 4)
    fit(cells, effort=0.1)
    text = "2 of 2 genes are predicted far outside the levels of the fit"
    assert not [one for one in messages(pf.tl.forecast, cells) if "far outside" in one]
    with pytest.warns(UserWarning, match=text):
        pf.tl.forecast(cells, start=np.array([[40.0, 40.0]]), key_added="far")
    assert np.isfinite(cells.uns["far"]["values"]).all()
    held = messages(pf.tl.simulate_knockout, cells, {"0": 90.0})
    assert not [one for one in held if "2 of 2 genes" in one]  # the held one was meant to
