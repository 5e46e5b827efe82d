from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from perturbflow.tl import graph_table

EDGES = [
    ("a", "b", 0.9, 1, 1.0, True),
    ("a", "c", -1.6, -1, 0.6, True),
    ("b", "c", 0.3, 1, 0.2, True),
    ("c", "c", 0.8, 1, 1.0, True),
    ("c", "a", 0.7, 1, 0.9, False),
]


@pytest.fixture
def adata():
    adata = AnnData(np.zeros((1, 3), dtype=np.float32))
    adata.var_names = list("abc")
    columns = ["source", "target", "weight", "sign", "confidence", "kept"]
    adata.uns["dynamics_graph"] = {"edges": pd.DataFrame(EDGES, columns=columns), "method": "jacobian"}
    return adata


def test_a_network_of_decoupler_has_the_edges_that_are_kept(adata):
    table = graph_table(adata)
    assert table.to_numpy().tolist() == [["a", "c", -1.6], ["a", "b", 0.9]]
    assert list(table) == ["source", "target", "weight"]
    assert len(graph_table(adata, min_confidence=0)) == 3


def test_a_base_network_of_celloracle_has_regulators_as_columns(adata):
    table = graph_table(adata, format="celloracle", min_confidence=0)
    assert list(table) == ["peak_id", "gene_short_name", "a", "b"]
    assert table.to_numpy().tolist() == [["b", "b", 1, 0], ["c", "c", 1, 1]]


def test_edges_of_second_order_count_once(adata):
    edges = adata.uns["dynamics_graph"]["edges"]
    twice = pd.concat([edges, edges.assign(weight=2 * edges["weight"])]).assign(acts_through="level")
    adata.uns["dynamics_graph"]["edges"] = twice
    assert graph_table(adata)["weight"].tolist() == [-3.2, 1.8]


def test_wrong_options_are_refused(adata):
    with pytest.raises(ValueError, match="`format` to be one of"):
        graph_table(adata, format="csv")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`min_confidence`"):
        graph_table(adata, min_confidence=2)
    with pytest.raises(KeyError, match="pf.tl.infer_graph"):
        graph_table(adata, key="nothing")
