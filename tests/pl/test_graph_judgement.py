"""Plots that judge graphs: against a known one, against each other, and by their own confidence."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from perturbflow.pl import edge_stability, graph_comparison, precision_recall

PAIRS = [
    ("a", "b", 0.9, 1, 1.0, 5.0, True),
    ("a", "c", -0.6, -1, 0.6, 4.0, True),
    ("b", "c", 0.3, 1, 0.2, 3.0, True),
    ("c", "a", 0.0, 0, 0.0, 1.0, False),
    ("b", "a", 0.0, 0, 0.0, 0.0, False),
    ("c", "b", 0.0, 0, 0.0, 0.0, False),
]


@pytest.fixture
def adata():
    adata = AnnData(np.zeros((1, 3), dtype=np.float32))
    adata.var_names = list("abc")
    columns = ["source", "target", "weight", "sign", "confidence", "evidence", "kept"]
    table = pd.DataFrame(PAIRS, columns=columns)
    adata.uns["dynamics_graph"] = {"edges": table, "method": "jacobian", "parameters": {}}
    other = table.assign(weight=-table["weight"], sign=-table["sign"]).iloc[[1, 0, 2, 3, 4, 5]]
    other.loc[0, ["confidence"]] = 0.1
    adata.uns["other"] = {"edges": other, "method": "jacobian", "parameters": {}}
    truth = np.zeros((3, 3))
    truth[0, 1], truth[1, 2], truth[2, 2] = 1, -1, 1
    adata.varp["truth"] = truth
    yield adata
    plt.close("all")


def test_precision_and_recall_of_a_ranking(adata):
    ax: Any = precision_recall(adata, "truth")
    curve = ax.lines[0]
    assert curve.get_xdata() == pytest.approx([0.5, 0.5, 1, 1, 1])
    assert curve.get_ydata() == pytest.approx([1, 1 / 2, 2 / 3, 2 / 4, 2 / 6])  # the last two are tied
    assert np.asarray(ax.lines[1].get_ydata())[0] == pytest.approx(1 / 3)
    area = (0.5 * 1 + 0.5 * 2 / 3) * 3
    legend = ax.get_legend()
    assert legend is not None
    assert legend.get_texts()[0].get_text() == f"dynamics_graph: {area:.2f} × chance"
    assert len(precision_recall(adata, "truth", keys=["dynamics_graph", "other"]).lines) == 3


def test_a_known_network_that_shares_nothing_is_refused(adata):
    adata.varp["none"] = np.eye(3)
    with pytest.raises(ValueError, match="found 0 true ones"):
        precision_recall(adata, "none")
    with pytest.raises(KeyError, match="Store the known network there"):
        precision_recall(adata, "nothing")
    with pytest.raises(KeyError, match="pf.tl.infer_graph"):
        precision_recall(adata, "truth", keys="nothing")


def test_pairs_in_the_order_of_their_evidence(adata):
    ax = edge_stability(adata)
    points = {item.get_label(): np.asarray(item.get_offsets()).tolist() for item in ax.collections}
    assert points["activates"] == [[1, 1.0], [3, 0.2]]
    assert points["represses"] == [[2, 0.6]]
    assert points["not in the graph"] == [[4, 0], [5, 0], [6, 0]]
    assert ax.get_title(loc="left") == "3 of 6 pairs are edges; 2 of those shown are confident"
    assert len(edge_stability(adata, top=1).collections) == 1
    with pytest.raises(ValueError, match="`top`"):
        edge_stability(adata, top=0)


def test_shared_edges_and_signs(adata):
    ax = graph_comparison(adata, ["dynamics_graph", "other"])
    assert np.asarray(ax.images[0].get_array()).tolist() == [[1, 0.5], [0.5, 1]]
    assert [text.get_text() for text in ax.texts] == ["2", "1\n0 same sign", "1\n0 same sign", "1"]
    every = graph_comparison(adata, ["dynamics_graph", "other"], min_confidence=0)
    assert np.asarray(every.images[0].get_array()).tolist() == [[1, 1], [1, 1]]
    with pytest.raises(ValueError, match="at least 2 graphs"):
        graph_comparison(adata, ["other"])
    with pytest.raises(KeyError, match="key_added='nothing'"):
        graph_comparison(adata, ["other", "nothing"])
