from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData

import perturbflow as pf
from perturbflow.dynamics import evidence_ranks, snapshot_evidence
from perturbflow.predict import read_dynamics
from perturbflow.predict._dynamics_store import StoredDynamics
from perturbflow.train import _graph
from perturbflow.train._graph import SURE_EVIDENCE, Graph, Stability, fitted_graph, static_graph
from perturbflow.trajectories import read_dynamics_fields
from perturbflow.trajectories._snapshot_fields import course_cells

GENES = ["A", "B", "C"]
WEIGHT = np.array([[0, -2.0, 0], [0, 0, 0.5], [1.0, 0, 0]])
CONFIDENCE = np.array([[0, 0.5, 0], [0, 0, 1.0], [0.9, 0, 0]])
EVIDENCE = np.array([[0, 2.0, 0.1], [0, 0, 1.0], [3.0, 0, 0]])
PAIRS = ~np.eye(3, dtype=bool)


def test_all_pairs_are_ranked_by_evidence_and_what_is_kept_is_a_column():
    table = Graph(WEIGHT, CONFIDENCE, EVIDENCE, PAIRS).edges(GENES)
    pairs = [["C", "A"], ["A", "B"], ["B", "C"], ["A", "C"], ["B", "A"], ["C", "B"]]
    assert table[["source", "target"]].to_numpy().tolist() == pairs
    assert table["weight"].tolist() == [1, -2, 0.5, 0, 0, 0]
    assert table["sign"].tolist() == [1, -1, 1, 0, 0, 0]
    assert table["confidence"].tolist() == [0.9, 0.5, 1.0, 0, 0, 0]
    assert table["evidence"].tolist() == [3.0, 2.0, 1.0, 0.1, 0, 0]
    assert table["kept"].tolist() == [True] * 3 + [False] * 3
    assert table.index.tolist() == [0, 1, 2, 3, 4, 5]


def test_pairs_of_the_same_evidence_are_sorted_by_confidence_times_weight():
    table = Graph(WEIGHT, CONFIDENCE, np.ones((3, 3)), PAIRS).edges(GENES)
    assert table[["source", "target"]].to_numpy().tolist()[:3] == [["A", "B"], ["C", "A"], ["B", "C"]]


def test_edges_of_second_order_say_through_what_they_act():
    table = Graph(WEIGHT, CONFIDENCE, CONFIDENCE, PAIRS, rate_weight=3 * WEIGHT * (WEIGHT > 0)).edges(GENES)
    assert len(table) == 12
    assert table.loc[table["kept"], ["source", "acts_through"]].to_numpy().tolist() == [
        ["B", "rate"],
        ["B", "level"],
        ["C", "rate"],
        ["C", "level"],
        ["A", "level"],
    ]


def test_an_empty_graph_has_the_ranking_and_no_edge_that_is_kept():
    nothing = np.zeros((3, 3))
    table = Graph(nothing, nothing, EVIDENCE, PAIRS).edges(GENES)
    assert list(table) == ["source", "target", "weight", "sign", "confidence", "evidence", "kept"]
    assert table["evidence"].tolist() == [3.0, 2.0, 1.0, 0.1, 0, 0]
    assert not table["kept"].any()


@pytest.fixture
def stored(fitted_dynamics) -> StoredDynamics:
    return read_dynamics(fitted_dynamics)


def test_bootstraps_count_beside_the_fit_itself(fitted_dynamics, stored, monkeypatch):
    frequency = np.full((5, 5), 0.5)
    evidence, weight = np.full((5, 5), 4.0), np.full((5, 5), -1.0)
    asked = {}

    def stability(adata, stored, **options):
        asked.update(options)
        return Stability(frequency, evidence, weight)

    monkeypatch.setattr(_graph, "stability", stability)
    options: Any = {"n_jobs": 2, "seed": 7}
    alone = fitted_graph(fitted_dynamics, stored, method="jacobian", n_bootstraps=0, **options)
    assert asked == {}
    found = fitted_graph(fitted_dynamics, stored, method="jacobian", n_bootstraps=3, **options)
    assert asked == {"n_fits": 3, "n_jobs": 2, "seed": 7}
    np.testing.assert_allclose(found.weight, alone.weight / 4 - 3 / 4)
    is_sure = (alone.weight != 0) & (stored.model.evidence.T >= SURE_EVIDENCE)
    assert is_sure.any()
    np.testing.assert_allclose(found.confidence, is_sure / 4 + 3 / 8)
    np.testing.assert_allclose(found.evidence, alone.evidence / 4 + 3)
    # Weights of paths are those of the fit: no two fits have the same scale of them.
    gates = fitted_graph(fitted_dynamics, stored, method="gates", n_bootstraps=0, **options)
    both = fitted_graph(fitted_dynamics, stored, method="gates", n_bootstraps=3, **options)
    np.testing.assert_array_equal(both.weight, gates.weight)
    np.testing.assert_allclose(both.confidence, found.confidence)


def test_gates_are_weights_of_paths(fitted_dynamics, stored):
    field = stored.model.field
    with torch.no_grad():
        first, last = field.matrices
        first.fill_(1.0)
        last.fill_(-2.0)
        field.allowed.fill_(1.0)
    width = first.shape[1]
    graph = fitted_graph(fitted_dynamics, stored, method="gates", n_bootstraps=0, n_jobs=1, seed=0)
    np.testing.assert_allclose(graph.weight, -2.0 * width, rtol=1e-6)  # all activations rise: every sign is negative
    assert (graph.confidence == 1).all()


def test_baselines_take_only_regulators_as_sources(time_courses):
    from dataclasses import replace

    fields = replace(read_dynamics_fields(time_courses), regulators=("gene2",))
    graph = static_graph(time_courses, fields, method="correlation")
    assert not graph.weight[[0, 1, 3, 4]].any()
    everything = static_graph(time_courses, read_dynamics_fields(time_courses), method="correlation")
    np.testing.assert_array_equal(graph.weight[2], everything.weight[2])
    np.testing.assert_array_equal(everything.weight, everything.weight.T)
    np.testing.assert_array_equal(graph.confidence, np.abs(graph.weight))


def test_a_graph_without_edges_says_so(fitted_dynamics, stored):
    stored.model.field.allowed.zero_()
    with pytest.warns(UserWarning, match="the graph is empty. The ranking of all pairs"):
        graph = fitted_graph(fitted_dynamics, stored, method="jacobian", n_bootstraps=0, n_jobs=1, seed=0)
    table = graph.edges(stored.genes)
    assert len(table) == 20
    assert not table["kept"].any()
    assert table["evidence"].is_monotonic_decreasing


def test_a_regulator_that_is_steady_in_time_is_found_in_how_cells_covary():
    rng = np.random.default_rng(0)
    time = np.repeat(np.arange(6.0), 40)
    steady, other = rng.normal(5, 1, (2, time.size))
    levels = np.column_stack([steady, 0.8 * steady + 0.2 * time + 0.3 * rng.normal(size=time.size), other + 0.3 * time])
    cells = AnnData(levels, obs=pd.DataFrame({"time": time}, index=map(str, range(time.size))))
    cells.var_names = ["steady", "target", "other"]
    pf.pp.setup_dynamics(cells, time_key="time")
    with pytest.warns(UserWarning, match="1 of 3 genes do not change in any trajectory"):
        pf.tl.fit_dynamics(cells, effort=0.02, progress_bar=False)
    pf.tl.infer_graph(cells, n_bootstraps=0, progress_bar=False)
    edges = cells.uns["dynamics_graph"]["edges"].set_index(["source", "target"])
    assert edges.loc[("steady", "target"), "evidence"] > edges.loc[("steady", "other"), "evidence"]
    assert not edges.loc["steady", "kept"].any()  # the fit has no mechanism for it


def test_how_cells_covary_joins_the_evidence_where_courses_are_means(fitted_dynamics, stored, monkeypatch):
    options: dict[str, Any] = {"method": "jacobian", "n_bootstraps": 0, "n_jobs": 1, "seed": 0}
    alone = fitted_graph(fitted_dynamics, stored, **options)
    assert fitted_dynamics.n_obs < 2 * 50 * 6  # no more than two cells per bin: every cell counts already
    np.testing.assert_allclose(alone.evidence, stored.model.evidence.T)
    monkeypatch.setattr(_graph, "CELLS_A_POINT", 1)
    both = fitted_graph(fitted_dynamics, stored, **options)
    cells = course_cells(fitted_dynamics, stored.fields)
    trusted = fitted_dynamics.n_obs / (fitted_dynamics.n_obs + 2 * 5)  # five regulators, each worth two points
    ranks = evidence_ranks(alone.evidence, alone.possible)
    np.testing.assert_allclose(both.evidence, trusted * ranks + (1 - trusted) * snapshot_evidence(cells).evidence)
    np.testing.assert_array_equal(both.weight, alone.weight)
    np.testing.assert_array_equal(both.confidence, alone.confidence)
