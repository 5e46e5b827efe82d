from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

from perturbflow.datasets import hill_network
from perturbflow.pp import setup_dynamics
from perturbflow.predict import read_dynamics
from perturbflow.tl import fit_dynamics, forecast


def test_runs_begin_at_their_starts_and_go_on(fitted_dynamics):
    forecast(fitted_dynamics, until=4.0, n_times=41)
    found = fitted_dynamics.uns["forecast"]
    assert found["values"].shape == (8, 41, 5)
    assert found["values"].dtype == np.float32
    np.testing.assert_allclose(found["time"], np.linspace(0, 4, 41))
    assert found["genes"].tolist() == list(fitted_dynamics.var_names)
    assert found["trajectories"].tolist() == [*(f"{k}|control" for k in range(6)), "6|gene1", "7|gene1"]
    np.testing.assert_allclose(found["observed_until"], 1.9)
    model = read_dynamics(fitted_dynamics).model
    np.testing.assert_allclose(found["values"][:, 0], model.start * model.units.scale, rtol=1e-6)
    assert np.isfinite(found["values"]).all()
    # The run follows the observations better than its own start does.
    observed = fitted_dynamics.layers["noise_free"].reshape(8, 20, 5)[:6]
    followed = found["values"][:6, :20]
    assert ((followed - observed) ** 2).mean() < ((followed[:, :1] - observed) ** 2).mean()


def test_held_genes_stay_where_they_were(fitted_dynamics):
    forecast(fitted_dynamics)
    values = fitted_dynamics.uns["forecast"]["values"]
    np.testing.assert_allclose(values[6:, :, 1], 0, atol=1e-3)
    assert (np.ptp(values[6:, :, 1], axis=1) == 0).all()
    assert np.ptp(values[0, :, 1]) > 0.01


def test_a_quarter_beyond_by_default(fitted_dynamics):
    forecast(fitted_dynamics)
    time = fitted_dynamics.uns["forecast"]["time"]
    assert len(time) == 100
    assert time[-1] == pytest.approx(1.9 * 1.25)


def test_time_grid_does_not_matter(fitted_dynamics):
    forecast(fitted_dynamics, until=2.0, n_times=21)
    fine = fitted_dynamics.uns["forecast"]["values"]
    forecast(fitted_dynamics, until=2.0, n_times=6)
    np.testing.assert_allclose(fitted_dynamics.uns["forecast"]["values"], fine[:, ::4], atol=1e-3)


def test_new_cells(fitted_dynamics):
    start = np.array([[0.1, 0.2, 0.3, 0.4, 0.5], [1.0, 0.8, 0.6, 0.4, 0.2]])
    forecast(fitted_dynamics, start=start, start_names=["first", "second"], n_times=5)
    two = fitted_dynamics.uns["forecast"]
    assert two["trajectories"].tolist() == ["first", "second"]
    np.testing.assert_allclose(two["values"][:, 0], start, rtol=1e-6)
    assert two["observed_until"].tolist() == [0, 0]
    forecast(fitted_dynamics, start=start[1], n_times=5)
    one = fitted_dynamics.uns["forecast"]
    assert one["trajectories"].tolist() == ["start 0"]
    np.testing.assert_allclose(one["values"][0], two["values"][1], rtol=1e-6)


def test_genes_in_another_order_and_further_ones(fitted_dynamics):
    start = np.linspace(0.1, 1.0, 5)
    forecast(fitted_dynamics, start=start)
    expected = fitted_dynamics.uns["forecast"]["values"]
    extra = np.full((fitted_dynamics.n_obs, 1), 7.0, dtype=np.float32)
    order = ["gene3", "new", "gene0", "gene4", "gene1", "gene2"]
    names = [*fitted_dynamics.var_names, "new"]
    adata = AnnData(np.hstack([fitted_dynamics.X, extra]), obs=fitted_dynamics.obs, uns=fitted_dynamics.uns)
    adata.var_names = names
    adata = adata[:, order].copy()
    forecast(adata, start=np.append(start, 7.0)[[names.index(name) for name in order]])
    assert adata.uns["forecast"]["genes"].tolist() == [f"gene{k}" for k in range(5)]
    np.testing.assert_array_equal(adata.uns["forecast"]["values"], expected)


def test_trajectory_that_begins_later_is_unknown_before():
    adata = hill_network(n_genes=4, n_trajectories=4, n_times=10)
    late = adata.obs["trajectory"] == "2"
    adata.obs.loc[late, "time"] += 0.45
    setup_dynamics(adata, time_key="time", trajectory_key="trajectory")
    fit_dynamics(adata, effort=0.01, strength=0.01, eliminate=False, progress_bar=False)
    forecast(adata, until=2.0, n_times=21)
    values, time = adata.uns["forecast"]["values"], adata.uns["forecast"]["time"]
    assert np.isnan(values[2, time < 0.45]).all()
    assert np.isfinite(values[2, time > 0.45]).all()
    assert np.isfinite(values[[0, 1, 3]]).all()
    # The first value after the start is a short solution away from it.
    model = read_dynamics(adata).model
    np.testing.assert_allclose(values[2, 5], model.solve(model.start[[2]], [0.45, 0.5])[0, 1], rtol=1e-5)
    np.testing.assert_allclose(adata.uns["forecast"]["observed_until"], [0.9, 0.9, 1.35, 0.9])
    forecast(adata, until=0.3)
    assert np.isnan(adata.uns["forecast"]["values"][2]).all()


def test_copy_view_and_key(fitted_dynamics, unchanged):
    with unchanged(fitted_dynamics):
        copied = forecast(fitted_dynamics, n_times=3, key_added="later", copy=True)
    assert copied is not None
    assert copied.uns["later"]["values"].shape == (8, 3, 5)
    view = fitted_dynamics[:20]
    with unchanged(fitted_dynamics), pytest.warns(UserWarning, match="is a view"):
        forecast(view, n_times=3)
    assert not view.is_view
    np.testing.assert_array_equal(view.uns["forecast"]["values"], copied.uns["later"]["values"])
    forecast(copied, n_times=4, key_added="later")  # an earlier forecast may be replaced
    assert copied.uns["later"]["values"].shape == (8, 4, 5)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"until": 0.0}, ValueError, "Expected `until` to be after the first observed time 0, found 0.0"),
        ({"until": np.nan}, ValueError, "Expected `until` to be"),
        ({"until": np.inf}, ValueError, "Expected `until` to be"),
        ({"until": "2"}, TypeError, "Expected `until` to be a number"),
        ({"n_times": 1}, ValueError, "Expected `n_times` to be at least 2"),
        ({"start": np.ones((2, 4))}, ValueError, r"`start` of shape \(number of starts, 5\), found \(2, 4\)"),
        ({"start": np.ones((0, 5))}, ValueError, r"found \(0, 5\)"),
        ({"start": [1, 2, 3, 4, np.nan]}, ValueError, "Expected `start` to be finite"),
        ({"start": np.ones((2, 5)), "start_names": ["a"]}, ValueError, r"Expected 2 different names .* found \['a'\]"),
        ({"start": np.ones((2, 5)), "start_names": ["a", "a"]}, ValueError, "Expected 2 different names"),
        ({"key": "absent"}, KeyError, "Run `pf.tl.fit_dynamics"),
        ({"key_added": "dynamics"}, ValueError, "found 'dynamics', which is reserved for pf.tl.fit_dynamics"),
        ({"key_added": "a/b"}, ValueError, "without '/'"),
        ({"key_added": ""}, ValueError, "at least one character"),
    ],
)
def test_bad_input(fitted_dynamics, unchanged, options, error, message):
    with unchanged(fitted_dynamics), pytest.raises(error, match=message):
        forecast(fitted_dynamics, **options)


def test_sparse_expression_gives_the_same_fit_and_forecast(time_courses):
    values = []
    for form in (np.asarray, sparse.csr_matrix):
        time_courses.X = form(time_courses.X)
        fit_dynamics(time_courses, effort=0.01, strength=0.01, eliminate=False, progress_bar=False)
        forecast(time_courses, n_times=3)
        values.append(time_courses.uns["forecast"]["values"])
    np.testing.assert_array_equal(*values)


def test_a_start_that_is_no_array_is_refused(fitted_dynamics, unchanged):
    with unchanged(fitted_dynamics), pytest.raises(ValueError, match="Expected `start` to be an array of levels"):
        forecast(fitted_dynamics, start="stem cell")


@pytest.mark.parametrize(
    "names", [["gene0", "gene1", "gene2", "gene3", "gene4"], ["gene3", "gene0", "gene4", "gene2", "gene1"]]
)
def test_new_cells_by_name(fitted_dynamics, names):
    start = pd.DataFrame([np.arange(5.0), np.arange(5.0) + 1], columns=[f"gene{k}" for k in range(5)])
    for given, expected in ((start[names].assign(other=9.0), start), (start.loc[1, names], start[1:])):
        forecast(fitted_dynamics, start=given, until=1.0, n_times=2)
        np.testing.assert_allclose(fitted_dynamics.uns["forecast"]["values"][:, 0], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("start", "error", "message"),
    [
        (lambda x: x.rename(columns={"gene1": "other"}), ValueError, r"all 5 genes in `start`.*missing: \['gene1'\]"),
        (lambda x: x.T, ValueError, "pass `start.T`"),
        (lambda x: x[["gene0", *x.columns]], ValueError, r"genes of `start` to be unique, found repeated \['gene0'\]"),
        (AnnData, TypeError, r"found AnnData. Pass `adata.to_df\(\)`"),
    ],
)
def test_new_cells_of_other_names_are_refused(fitted_dynamics, unchanged, start, error, message):
    table = pd.DataFrame(np.ones((1, 5)), index=["cell"], columns=[f"gene{k}" for k in range(5)])
    with unchanged(fitted_dynamics), pytest.raises(error, match=message):
        forecast(fitted_dynamics, start=start(table))
