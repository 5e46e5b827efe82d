from __future__ import annotations

import numpy as np
import pytest
import torch

from perturbflow.predict._dynamics_store import StoredDynamics, read_dynamics
from perturbflow.train import _graph
from perturbflow.train._graph import Graph, fitted_graph, static_graph
from perturbflow.train._stability import Stability
from perturbflow.trajectories._fields import read_dynamics_fields

GENES = ["A", "B", "C"]
WEIGHT = np.array([[0, -2.0, 0], [0, 0, 0.5], [1.0, 0, 0]])
CONFIDENCE = np.array([[0, 0.5, 0], [0, 0, 1.0], [0.9, 0, 0]])


def test_edges_are_sorted_by_confidence_times_weight():
    table = Graph(WEIGHT, CONFIDENCE, 2 * CONFIDENCE).edges(GENES)
    assert table[["source", "target"]].to_numpy().tolist() == [["A", "B"], ["C", "A"], ["B", "C"]]
    assert table["weight"].tolist() == [-2, 1, 0.5]
    assert table["sign"].tolist() == [-1, 1, 1]
    assert table["confidence"].tolist() == [0.5, 0.9, 1.0]
    assert table["evidence"].tolist() == [1.0, 1.8, 2.0]
    assert table.index.tolist() == [0, 1, 2]


def test_edges_of_second_order_say_through_what_they_act():
    table = Graph(WEIGHT, CONFIDENCE, CONFIDENCE, rate_weight=3 * WEIGHT * (WEIGHT > 0)).edges(GENES)
    assert table[["source", "acts_through"]].to_numpy().tolist() == [
        ["C", "rate"],
        ["B", "rate"],
        ["A", "level"],
        ["C", "level"],
        ["B", "level"],
    ]


def test_no_edges_are_an_empty_table():
    table = Graph(np.zeros((3, 3)), np.zeros((3, 3)), np.zeros((3, 3))).edges(GENES)
    assert table.empty
    assert list(table) == ["source", "target", "weight", "sign", "confidence", "evidence"]


def test_weights_as_a_sparse_matrix():
    matrix = Graph(WEIGHT, CONFIDENCE, CONFIDENCE).matrix()
    assert (matrix.dtype, matrix.nnz) == (np.float32, 3)
    np.testing.assert_array_equal(matrix.toarray(), WEIGHT.astype(np.float32))


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
    options = {"n_jobs": 2, "seed": 7}
    alone = fitted_graph(fitted_dynamics, stored, method="jacobian", n_bootstraps=0, **options)
    assert asked == {}
    found = fitted_graph(fitted_dynamics, stored, method="jacobian", n_bootstraps=3, **options)
    assert asked == {"n_fits": 3, "n_jobs": 2, "seed": 7}
    np.testing.assert_allclose(found.weight, alone.weight / 4 - 3 / 4)
    np.testing.assert_allclose(found.confidence, alone.confidence / 4 + 3 / 8)
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
