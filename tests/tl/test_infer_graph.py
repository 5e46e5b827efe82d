from __future__ import annotations

import networkx as nx
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from perturbflow import baselines
from perturbflow.pp import setup_dynamics
from perturbflow.predict import read_dynamics
from perturbflow.tl import fit_dynamics, infer_graph
from perturbflow.train._graph import SURE_EVIDENCE
from perturbflow.trajectories import read_dynamics_fields, trajectories_of

COLUMNS = ["source", "target", "weight", "sign", "confidence", "evidence", "kept"]


def edges(adata, key="dynamics_graph") -> pd.DataFrame:
    return adata.uns[key]["edges"]


def test_rows_regulate_columns(fitted_dynamics):
    infer_graph(fitted_dynamics, n_bootstraps=0)
    graph = fitted_dynamics.varp["dynamics_graph"]
    model = read_dynamics(fitted_dynamics).model
    assert (graph.format, graph.dtype, graph.shape) == ("csr", np.float32, (5, 5))
    signed = model.jacobian().signed.numpy()  # (target, source)
    assert 0 < graph.nnz < 20
    np.testing.assert_allclose(graph.toarray(), np.where(model.support(), signed, 0).T, rtol=1e-6)
    evidence = fitted_dynamics.varp["dynamics_graph_evidence"].toarray()
    np.testing.assert_allclose(evidence, model.evidence.T, rtol=1e-6)
    assert "dynamics_graph_rate" not in fitted_dynamics.varp
    table = edges(fitted_dynamics)
    assert list(table) == COLUMNS
    assert len(table) == 20  # all pairs
    assert table["kept"].sum() == graph.nnz
    assert table["evidence"].is_monotonic_decreasing
    table = table[table["kept"]]
    for row in table.itertuples():
        j, i = int(row.source[4:]), int(row.target[4:])
        assert row.weight == pytest.approx(graph[j, i], rel=1e-6)
        assert row.sign == np.sign(row.weight)
        assert row.confidence == 1
        assert row.evidence == pytest.approx(evidence[j, i], rel=1e-6)
    assert fitted_dynamics.uns["dynamics_graph"]["method"] == "jacobian"
    assert fitted_dynamics.uns["dynamics_graph"]["parameters"] == {"key": "dynamics", "n_bootstraps": 0, "seed": 0}


def test_networkx_reads_the_direction(fitted_dynamics):
    infer_graph(fitted_dynamics, n_bootstraps=0)
    graph = nx.from_scipy_sparse_array(fitted_dynamics.varp["dynamics_graph"], create_using=nx.DiGraph)
    graph = nx.relabel_nodes(graph, dict(enumerate(fitted_dynamics.var_names)))
    table = edges(fitted_dynamics).query("kept")
    assert set(graph.edges) == set(zip(table["source"], table["target"], strict=True))
    row = table.iloc[0]
    assert graph.edges[row["source"], row["target"]]["weight"] == pytest.approx(row["weight"])


def test_known_direction_of_a_pair(time_courses):
    """x decays by itself and represses y, whose level x does not feel."""
    time = np.linspace(0, 3, 16)
    rows, runs = [], []
    for k, (x0, y0) in enumerate([(2.0, 0.1), (1.0, 1.5), (0.5, 0.2), (1.5, 1.0), (2.5, 0.8), (0.2, 0.5)]):
        x = x0 * np.exp(-time)
        y = np.empty_like(time)
        y[0] = y0
        fine = 50
        for n, step in enumerate(np.diff(time)):
            level = y[n]
            for m in range(fine):
                source = x0 * np.exp(-(time[n] + m * step / fine))
                level += step / fine * (2 / (1 + (2 * source) ** 3) - level)
            y[n + 1] = level
        rows.append(np.column_stack([x, y]))
        runs += [str(k)] * len(time)
    adata = AnnData(
        np.vstack(rows), obs=pd.DataFrame({"t": np.tile(time, 6), "run": runs}, index=[f"c{k}" for k in range(96)])
    )
    adata.var_names = ["x", "y"]
    setup_dynamics(adata, time_key="t", trajectory_key="run")
    fit_dynamics(adata, effort=0.1, strength=0.002, progress_bar=False)
    infer_graph(adata, n_bootstraps=0)
    table = edges(adata)
    assert table.iloc[0][["source", "target", "sign"]].tolist() == ["x", "y", -1]
    evidence = adata.varp["dynamics_graph_evidence"].toarray()
    assert evidence[0, 1] > 5 * evidence[1, 0]


def test_confidence_is_the_share_of_fits(fitted_dynamics, monkeypatch):
    monkeypatch.setattr("perturbflow.train._graph.SHARE_OF_STEPS", 0.1)
    infer_graph(fitted_dynamics, n_bootstraps=0)
    kept = fitted_dynamics.varp["dynamics_graph"].toarray() != 0
    alone = kept & (fitted_dynamics.varp["dynamics_graph_evidence"].toarray() >= SURE_EVIDENCE)
    assert alone.any()
    infer_graph(fitted_dynamics, n_bootstraps=2)
    table = edges(fitted_dynamics)
    assert table["confidence"].between(0, 1).all()
    np.testing.assert_allclose(3 * table["confidence"], np.round(3 * table["confidence"]), atol=1e-9)
    for row in table.itertuples():  # the fit itself is one of the three
        if alone[int(row.source[4:]), int(row.target[4:])]:
            assert row.confidence >= 1 / 3 - 1e-9
    again = fitted_dynamics.copy()
    infer_graph(again, n_bootstraps=2)
    pd.testing.assert_frame_equal(edges(again), table)
    infer_graph(again, n_bootstraps=2, seed=5)
    assert not np.array_equal(again.varp["dynamics_graph"].data, fitted_dynamics.varp["dynamics_graph"].data)


def test_only_regulators_are_sources(time_courses):
    setup_dynamics(time_courses, time_key="time", trajectory_key="trajectory", regulators=["gene1", "gene4"])
    fit_dynamics(time_courses, effort=0.02, strength=0.002, eliminate=False, progress_bar=False)
    for method in ("jacobian", "gates", "correlation", "partial_correlation"):
        infer_graph(time_courses, method=method, n_bootstraps=1)
        graph = time_courses.varp["dynamics_graph"].toarray()
        assert not graph[[0, 2, 3]].any()
        assert graph[[1, 4]].any(axis=1).all()
        assert set(edges(time_courses)["source"]) == {"gene1", "gene4"}


@pytest.mark.parametrize("method", ["correlation", "partial_correlation"])
def test_baselines_are_those_of_the_package(time_courses, method):
    infer_graph(time_courses, method=method)
    fields = read_dynamics_fields(time_courses)
    values = np.concatenate([t.values for t in trajectories_of(time_courses, fields)])
    expected = getattr(baselines, f"{method}_graph")(values)
    np.testing.assert_allclose(time_courses.varp["dynamics_graph"].toarray(), expected, rtol=1e-5)
    table = edges(time_courses)
    assert len(table) == (expected != 0).sum()
    np.testing.assert_allclose(table["confidence"], table["weight"].abs())
    assert time_courses.uns["dynamics_graph"]["parameters"] == {}


def test_gates_have_the_sign_of_the_jacobian_and_the_same_edges(fitted_dynamics):
    infer_graph(fitted_dynamics, n_bootstraps=0)
    jacobian = fitted_dynamics.varp["dynamics_graph"].toarray()
    infer_graph(fitted_dynamics, method="gates", n_bootstraps=0)
    gates = fitted_dynamics.varp["dynamics_graph"].toarray()
    np.testing.assert_array_equal(np.sign(gates), np.sign(jacobian))
    assert not np.allclose(gates, jacobian)


def test_rates_of_the_sources_in_second_order(time_courses):
    fit_dynamics(time_courses, effort=0.01, strength=0.01, order=2, eliminate=False, progress_bar=False)
    infer_graph(time_courses, n_bootstraps=0)
    signed = read_dynamics(time_courses).model.jacobian().signed.numpy()
    np.testing.assert_allclose(time_courses.varp["dynamics_graph"].toarray(), signed[:, :5].T, rtol=1e-5)
    np.testing.assert_allclose(time_courses.varp["dynamics_graph_rate"].toarray(), signed[:, 5:].T, rtol=1e-5)
    table = edges(time_courses)
    assert list(table) == [*COLUMNS, "acts_through"]
    assert set(table["acts_through"]) == {"level", "rate"}
    assert not table.duplicated(["source", "target", "acts_through"]).any()
    # A later graph of first order has no rates.
    infer_graph(time_courses, method="correlation")
    assert "dynamics_graph_rate" not in time_courses.varp


def test_genes_in_another_order_and_further_ones(fitted_dynamics):
    infer_graph(fitted_dynamics, n_bootstraps=1)
    extra = np.zeros((fitted_dynamics.n_obs, 1), dtype=np.float32)
    adata = AnnData(np.hstack([fitted_dynamics.X, extra]), obs=fitted_dynamics.obs, uns=fitted_dynamics.uns.copy())
    adata.var_names = [*fitted_dynamics.var_names, "new"]
    adata = adata[:, ["gene3", "new", "gene0", "gene4", "gene1", "gene2"]].copy()
    del adata.uns["dynamics_graph"]
    infer_graph(adata, n_bootstraps=1)
    pd.testing.assert_frame_equal(edges(adata), edges(fitted_dynamics))
    at = adata.var_names.get_indexer(fitted_dynamics.var_names)
    graph = adata.varp["dynamics_graph"].toarray()
    np.testing.assert_array_equal(graph[np.ix_(at, at)], fitted_dynamics.varp["dynamics_graph"].toarray())
    assert not graph[1].any()
    assert not graph[:, 1].any()


def test_copy_view_and_key(fitted_dynamics, unchanged):
    with unchanged(fitted_dynamics):
        copied = infer_graph(fitted_dynamics, n_bootstraps=0, key_added="net", copy=True)
    assert copied is not None
    assert {"net", "net_evidence"} <= set(copied.varp)
    view = fitted_dynamics[:30]
    with unchanged(fitted_dynamics), pytest.warns(UserWarning, match="is a view"):
        infer_graph(view, n_bootstraps=0)
    pd.testing.assert_frame_equal(edges(view), edges(copied, "net"))
    infer_graph(copied, method="correlation", key_added="net")
    assert copied.uns["net"]["method"] == "correlation"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"method": "weights"}, ValueError, "Expected `method` to be one of"),
        ({"n_bootstraps": -1}, ValueError, "Expected `n_bootstraps` to be at least 0"),
        ({"n_jobs": 0}, ValueError, "Expected `n_jobs` to be a number of processes, .* found 0"),
        ({"seed": "0"}, TypeError, "Expected `seed` to be a whole number"),
        ({"key": "absent"}, KeyError, "Run `pf.tl.fit_dynamics"),
        ({"key_added": "dynamics"}, ValueError, "found 'dynamics', which is reserved for pf.tl.fit_dynamics"),
        (
            {"key_added": "true_graph"},
            ValueError,
            r"found 'true_graph' with other content in `adata.varp\['true_graph'\]`",
        ),
        ({"key_added": "a/b"}, ValueError, "without '/'"),
    ],
)
def test_bad_input(fitted_dynamics, unchanged, options, error, message):
    with unchanged(fitted_dynamics), pytest.raises(error, match=message):
        infer_graph(fitted_dynamics, **options)


def test_baseline_without_registration(time_courses, unchanged):
    del time_courses.uns["dynamics_fields"]
    with unchanged(time_courses), pytest.raises(KeyError, match="Run `pf.pp.setup_dynamics"):
        infer_graph(time_courses, method="correlation")
