from __future__ import annotations

import anndata
import networkx as nx
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from perturbflow.pp import setup_dynamics
from perturbflow.tl import infer_graph, to_networkx

EDGES = [("b", "a", 0.5, 1, 0.75, 2.0), ("a", "c", -0.25, -1, 1.0, 1.5), ("c", "c", 1.5, 1, 0.25, 0.5)]
COLUMNS = ["source", "target", "weight", "sign", "confidence", "evidence"]


@pytest.fixture
def adata():
    """Four genes and three edges, one from a gene to itself."""
    adata = AnnData(np.zeros((1, 4), dtype=np.float32), var=pd.DataFrame(index=list("dcba")))
    table = pd.DataFrame(EDGES, columns=COLUMNS)
    adata.uns["dynamics_graph"] = {"edges": table, "method": "jacobian", "parameters": {}}
    return adata


def test_nodes_are_all_genes_and_edges_have_their_values(adata, unchanged):
    with unchanged(adata):
        graph = to_networkx(adata)
    assert type(graph) is nx.DiGraph
    assert list(graph) == list("dcba")
    assert dict(graph.edges) == {
        (source, target): dict(zip(COLUMNS[2:], values, strict=True)) for source, target, *values in EDGES
    }
    kinds = {"weight": float, "sign": int, "confidence": float, "evidence": float}
    for _, _, values in graph.edges(data=True):
        assert {name: type(value) for name, value in values.items()} == kinds
    assert {type(node) for node in graph} == {str}


def test_edges_are_chosen_by_confidence_and_genes(adata):
    assert set(to_networkx(adata, min_confidence=0.75).edges) == {("b", "a"), ("a", "c")}
    assert set(to_networkx(adata[:, ["a", "c"]]).edges) == {("a", "c"), ("c", "c")}
    none = to_networkx(adata[:, ["d"]])
    assert (list(none), none.number_of_edges()) == (["d"], 0)


@pytest.mark.parametrize("suffix", ["graphml", "gexf", "gml"])
def test_files_keep_the_graph(adata, tmp_path, suffix):
    graph, path = to_networkx(adata), tmp_path / f"graph.{suffix}"
    getattr(nx, f"write_{suffix}")(graph, path)
    again = getattr(nx, f"read_{suffix}")(path)
    assert set(again) == set(graph)
    assert set(again.edges) == set(graph.edges)
    for ends, values in graph.edges.items():
        assert {name: again.edges[ends][name] for name in values} == values


def test_an_inferred_graph_is_its_matrix_and_a_prior(time_courses, tmp_path):
    infer_graph(time_courses, method="correlation", key_added="mine")
    time_courses.write_h5ad(tmp_path / "cells.h5ad")
    adata = anndata.read_h5ad(tmp_path / "cells.h5ad")
    graph = to_networkx(adata, key="mine")
    matrix = nx.to_numpy_array(graph, nodelist=list(adata.var_names))
    np.testing.assert_allclose(matrix, adata.varp["mine"].toarray(), rtol=1e-6)
    assert np.count_nonzero(matrix)
    setup_dynamics(adata, time_key="time", trajectory_key="trajectory", prior=graph)
    np.testing.assert_allclose(adata.varp["dynamics_prior"].toarray(), matrix, rtol=1e-6)


def test_second_order_has_an_edge_for_the_level_and_one_for_the_rate(adata, tmp_path):
    table = pd.DataFrame([EDGES[0], EDGES[0], EDGES[1]], columns=COLUMNS).assign(acts_through=["level", "rate", "rate"])
    adata.uns["dynamics_graph"]["edges"] = table
    graph = to_networkx(adata)
    assert set(graph.edges(keys=True)) == {("b", "a", "level"), ("b", "a", "rate"), ("a", "c", "rate")}
    assert graph.edges["a", "c", "rate"]["weight"] == -0.25
    nx.write_graphml(graph, tmp_path / "graph.graphml")
    again = nx.read_graphml(tmp_path / "graph.graphml", force_multigraph=True)
    assert set(again.edges(keys=True)) == set(graph.edges(keys=True))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"key": "other"}, KeyError, r"'other' in `adata.uns`.*Run `pf.tl.infer_graph\(adata, key_added='other'\)`"),
        ({"key": "text"}, KeyError, r"'edges' in `adata.uns\['text'\]`"),
        ({"min_confidence": 2}, ValueError, "`min_confidence` to be from 0 to 1, found 2"),
        ({"min_confidence": "half"}, TypeError, "`min_confidence` to be a number"),
    ],
)
def test_wrong_arguments(adata, options, error, message):
    adata.uns["text"] = "a graph"
    with pytest.raises(error, match=message):
        to_networkx(adata, **options)
