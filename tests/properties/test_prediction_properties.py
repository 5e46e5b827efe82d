from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from hypothesis import given
from hypothesis import strategies as st

from perturbflow.tl import evaluate, predict_perturbation, rank_perturbations

from .strategies import ODD_LABELS, attempt, disguises, few, fewer, labels, matrices, names

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # of AnnData, and what the package says


@pytest.fixture(scope="session")
def few_cells(_fitted) -> AnnData:
    """Cells of every perturbation and their flow."""
    chosen = _fitted.obs.groupby("perturbation", observed=True).head(12).index
    cells = _fitted[chosen].copy()
    cells.uns = {"flow": _fitted.uns["flow"]}
    return cells


@st.composite
def damaged(draw, cells: AnnData) -> AnnData:
    """Cells of which something is not as the flow knows it."""
    rows, columns = draw(st.sampled_from((0, 1, 3, cells.n_obs))), draw(st.sampled_from((0, 1, 40, 40, 40)))
    part = cells[:rows, :columns]
    n, d = part.shape
    obs, var, x = part.obs.copy(), part.var[[]].copy(), part.X
    if draw(st.booleans()):
        x = draw(matrices((n, d)))
    if draw(st.booleans()):
        obs["perturbation"] = draw(labels(n))
    context = draw(st.sampled_from(("same", "absent", "odd")))
    if context == "absent":
        del obs["cell_type"]
    elif context == "odd":
        obs["cell_type"] = draw(labels(n))
    if draw(st.booleans()):
        obs.index = draw(names(n, prefix="c"))
    if draw(st.integers(0, 3)) == 0:
        var.index = draw(names(d, prefix="g"))
    found = AnnData(x, obs=obs, var=var, uns=dict(cells.uns))
    return found[:, :] if draw(st.booleans()) else found


@few
@given(data=st.data())
def test_cells_are_predicted_and_ranked_or_refused(data, few_cells, unchanged):
    adata = data.draw(damaged(few_cells))
    label = st.sampled_from(("A", "A", "B+A", "A+D", *ODD_LABELS))
    asked = data.draw(st.one_of(label, st.lists(label, max_size=2), st.sampled_from((3, None, ["A", 3]))))
    options = {
        "dose": data.draw(
            st.sampled_from((None, None, None, 1, 0, -1, "1+1", [1, 2], {"A": 2}, {"Z": 1}, np.nan, 1e30, "x"))
        ),
        "covariates": data.draw(st.sampled_from((None, None, None, {"cell_type": "x"}, {"x": "y"}))),
        "output": data.draw(st.sampled_from(("log_normalised", "log_normalised", "counts", "challenge", "x"))),
        "guidance": data.draw(st.sampled_from((None, None, 0, 2.0, -1, np.inf, "x"))),
        "n_steps": data.draw(st.sampled_from((None, 1, 0, 2.0))),
    }
    with unchanged(adata):
        found = attempt(predict_perturbation, adata, asked, **options, copy=True)
        attempt(
            predict_perturbation, adata, asked, as_anndata=True, n_cells=data.draw(st.sampled_from((None, 1, 5, 0)))
        )
    if not isinstance(found, Exception):
        assert np.isfinite(found.varm["predicted_sd"].to_numpy()).any()
    target = data.draw(
        st.sampled_from(
            (
                {"perturbation": "A"},
                {"perturbation": ["A", "x"]},
                {"x": 1},
                {},
                "A",
                np.ones(adata.n_vars),
                np.zeros(adata.n_obs, dtype=bool),
                np.ones(adata.n_obs, dtype=bool),
                pd.Series(1.0, index=adata.var_names[::-1]),
                pd.Series(True, index=adata.obs_names[::-1]),
                pd.Series(1e30, index=adata.var_names),
                pd.Series(dtype=float),
            )
        )
    )
    with unchanged(adata):
        attempt(
            rank_perturbations,
            adata,
            target,
            from_cells=data.draw(st.sampled_from((None, None, {"cell_type": "x"}, [True]))),
            copy=True,
        )


@fewer
@given(data=st.data())
def test_uncertainty_and_ranking_do_not_depend_on_order_and_containers(data, few_cells):
    other, _, genes = data.draw(disguises(few_cells))
    adata = few_cells.copy()
    for each in (adata, other):
        assert attempt(predict_perturbation, each, ["A", "B+A"]) is None
        assert attempt(rank_perturbations, each, {"perturbation": "A"}) is None
    for name in ("predicted_A", "predicted_A+B"):
        assert ((other.obsm[name].getnnz(axis=1) > 0) == (other.obs["perturbation"] == "control")).all()
    close = {"rtol": 1e-3, "atol": 1e-5, "check_dtype": False, "check_categorical": False}
    pd.testing.assert_frame_equal(other.uns["predicted"]["uncertainty"], adata.uns["predicted"]["uncertainty"], **close)
    pd.testing.assert_frame_equal(other.varm["predicted_sd"], adata.varm["predicted_sd"].iloc[genes], **close)
    pd.testing.assert_frame_equal(other.uns["ranked_perturbations"], adata.uns["ranked_perturbations"], **close)


@few
@given(data=st.data())
def test_cells_are_judged_or_refused(data, few_cells, unchanged):
    adata = data.draw(damaged(few_cells))
    options = {
        "metrics": data.draw(st.sampled_from((["rmse_mean"], ["energy_distance"], "x", []))),
        "baselines": data.draw(st.sampled_from(([], ["x"]))),
        "min_cells": data.draw(st.sampled_from((4, 1000, 0))),
        "splits": data.draw(st.sampled_from(("train", ("train", "test"), "x", ()))),
    }
    predicted = data.draw(st.none() | damaged(few_cells))
    with unchanged(adata):
        attempt(evaluate, adata, predicted, **options, n_resamples=2, n_permutations=2, progress_bar=False, copy=True)
