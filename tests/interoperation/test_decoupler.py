"""Networks of decoupler as priors, and graphs as networks of decoupler."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from perturbflow.pp import setup_dynamics
from perturbflow.tl import infer_graph, predict_perturbation

decoupler = pytest.importorskip("decoupler", reason="installed by `make interoperation`")

pytestmark = pytest.mark.filterwarnings("default:::(anndata|decoupler)")


def test_a_network_goes_in_as_it_is(time_courses, caplog):
    _, network = decoupler.ds.toy()
    assert {"source", "target", "weight"} <= set(network)
    measured = dict(zip(network["target"].unique(), time_courses.var_names, strict=False))
    network = network.assign(source=network["source"].replace({"T1": "gene0", "T2": "gene1"}))
    network["target"] = network["target"].replace(measured)
    expected = network[network["source"].isin(time_courses.var_names) & network["target"].isin(time_courses.var_names)]
    assert 0 < len(expected) < len(network)
    with caplog.at_level(logging.WARNING, logger="perturbflow"):
        setup_dynamics(time_courses, time_key="time", trajectory_key="trajectory", prior=network)
    assert f"Left out {len(network) - len(expected)} of {len(network)} edges of the prior" in caplog.text
    prior = pd.DataFrame.sparse.from_spmatrix(
        time_courses.varp["dynamics_prior"], time_courses.var_names, time_courses.var_names
    )
    for edge in expected.itertuples():
        assert prior.loc[edge.source, edge.target] == pytest.approx(edge.weight)


def slope_score(levels: np.ndarray, weights: np.ndarray) -> float:
    """Student's t of the slope of levels on weights, which is what a univariate linear model scores."""
    fit = stats.linregress(weights, levels)
    return fit.slope / fit.stderr


def test_activities_of_an_inferred_graph(time_courses):
    infer_graph(time_courses, method="partial_correlation")
    edges = time_courses.uns["dynamics_graph"]["edges"]
    decoupler.mt.ulm(time_courses, net=edges, tmin=1)
    activities = decoupler.pp.get_obsm(time_courses, "score_ulm")
    assert set(activities.var_names) == set(edges["source"])
    matrix = pd.DataFrame(time_courses.varp["dynamics_graph"].toarray(), time_courses.var_names, time_courses.var_names)
    for gene in activities.var_names:
        found = np.asarray(activities[:, gene].X).ravel()
        expected = [slope_score(row, matrix.loc[gene].to_numpy()) for row in np.asarray(time_courses.X)]
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_activities_of_predicted_cells(fitted):
    edges = pd.DataFrame(
        {"source": "program", "target": fitted.var_names[:10], "weight": np.r_[np.ones(5), -np.ones(5)]}
    )
    cells = predict_perturbation(fitted, ["A"], n_cells=10, as_anndata=True)
    assert cells is not None
    decoupler.mt.ulm(cells, net=edges, tmin=5)
    # Genes that are 0 in all cells that decoupler is given are left out.
    is_on = (np.asarray(cells.X) > 0).any(axis=0)
    weights = np.r_[np.ones(5), -np.ones(5), np.zeros(fitted.n_vars - 10)]
    expected = [slope_score(row[is_on], weights[is_on]) for row in np.asarray(cells.X)]
    np.testing.assert_allclose(cells.obsm["score_ulm"]["program"], expected, rtol=1e-3, atol=1e-3)
