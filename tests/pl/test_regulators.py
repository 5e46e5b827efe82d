from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.colors import to_rgba

from perturbflow.pl import regulators

EDGES = [
    ("a", "b", 2.0, 1, 0.5),
    ("a", "c", -4.0, -1, 0.5),
    ("b", "a", 0.2, 1, 1.0),
    ("b", "c", 0.2, 1, 1.0),
    ("b", "d", 0.2, 1, 0.5),
    ("c", "c", 9.0, 1, 1.0),
    ("d", "a", -0.7, -1, 1.0),
]


def with_edges(edges) -> AnnData:
    adata = AnnData(np.zeros((1, 4), dtype=np.float32))
    adata.var_names = list("abcd")
    table = pd.DataFrame(edges, columns=["source", "target", "weight", "sign", "confidence"])
    adata.uns["dynamics_graph"] = {"edges": table}
    return adata


def bars(ax: Any) -> dict[str, list[tuple[float, float]]]:
    """Start and width of the bars of each sign."""
    return {box.get_label(): [(bar.get_x(), bar.get_width()) for bar in box] for box in ax.containers}


def test_bars_are_confidence_times_weight_by_sign():
    ax: Any = regulators(with_edges(EDGES))
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "d", "b"]
    drawn = bars(ax)
    np.testing.assert_allclose(drawn["activation"], [(0, 1.0), (0, 0.0), (0, 0.5)])
    np.testing.assert_allclose(drawn["repression"], [(1.0, 2.0), (0, 0.7), (0.5, 0.0)])
    assert [text.get_text() for text in ax.texts] == ["2", "1", "3"]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the best on top
    colors = [box[0].get_facecolor() for box in ax.containers]
    assert colors == [to_rgba(color) for color in ("#0072B2", "#D55E00")]


def test_by_number_of_targets():
    ax: Any = regulators(with_edges(EDGES), by="n_targets", top=2)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["b", "a"]


def test_edges_of_one_sign_only():
    ax: Any = regulators(with_edges(EDGES[:1]))
    assert bars(ax) == {"activation": [(0.0, 1.0)], "repression": [(1.0, 0.0)]}


def test_no_edges_on_given_axes():
    _, ax = plt.subplots()
    assert regulators(with_edges([]), ax=ax) is ax
    assert [text.get_text() for text in ax.texts] == ["no edges"]


def test_missing_graph_and_bad_options():
    adata = with_edges(EDGES)
    with pytest.raises(KeyError, match=r"pf\.tl\.infer_graph\(adata, key_added='g'\)"):
        regulators(adata, key="g")
    with pytest.raises(ValueError, match="`by` to be one of"):
        regulators(adata, by="size")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`top` to be at least 1"):
        regulators(adata, top=0)
