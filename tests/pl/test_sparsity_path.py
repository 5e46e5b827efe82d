from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from perturbflow.pl import sparsity_path

PATH = pd.DataFrame(
    {
        "strength": [0.0, 0.01, 0.1, 1.0],
        "train_error": [0.1, 0.2, 0.3, 0.9],
        "valid_error": [0.5, 0.4, 0.35, 0.95],
        "valid_error_se": [0.02, 0.02, 0.03, 0.05],
        "n_edges": [100, 40, 10, 1],
        "chosen": [False, False, True, False],
    }
)


def with_path(path) -> AnnData:
    adata = AnnData(np.zeros((1, 1), dtype=np.float32))
    adata.uns["dynamics"] = {"sparsity_path": path}
    return adata


def heights(ax: Any, label: str) -> np.ndarray:
    (line,) = (line for line in ax.lines if line.get_label() == label)
    return np.asarray(line.get_ydata())


def test_errors_and_edges_are_those_of_the_path():
    ax: Any = sparsity_path(with_path(PATH))
    other = next(axes for axes in ax.figure.axes if axes is not ax)
    np.testing.assert_array_equal(heights(ax, "training error"), PATH["train_error"])
    np.testing.assert_array_equal(heights(other, "edges kept by the penalty"), PATH["n_edges"])
    (held_out,) = ax.containers
    np.testing.assert_array_equal(held_out[0].get_ydata(), PATH["valid_error"])
    bars = [np.ptp(segment[:, 1]) / 2 for segment in held_out[2][0].get_segments()]
    np.testing.assert_allclose(bars, PATH["valid_error_se"])
    assert ax.get_xscale() == "symlog"
    names = ["training error", "error of predicting no change", "held-out error (± SE)", "edges kept by the penalty"]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == names
    np.testing.assert_array_equal(heights(ax, "error of predicting no change"), [1, 1])


def test_chosen_strength_is_marked():
    ax: Any = sparsity_path(with_path(PATH))
    (mark,) = (line for line in ax.lines if line.get_marker() == "D")
    np.testing.assert_array_equal(mark.get_xydata(), [[0.1, 0.35]])
    assert ax.get_title(loc="left") == "chosen strength 0.1: 10 edges"
    none: Any = sparsity_path(with_path(PATH.assign(chosen=False)))
    assert [line for line in none.lines if line.get_marker() == "D"] == []
    one = sparsity_path(with_path(PATH.assign(chosen=[False, False, False, True])))
    assert one.get_title(loc="left") == "chosen strength 1: 1 edge"


@pytest.mark.parametrize(
    ("n_edges", "expected"), [(0, ", 0 after elimination"), (4, ", 4 after elimination"), (10, "")]
)
def test_edges_after_elimination_are_drawn_and_in_the_title(n_edges, expected):
    adata = with_path(PATH)
    adata.uns["dynamics"]["n_edges"] = n_edges
    ax: Any = sparsity_path(adata)
    assert ax.get_title(loc="left") == f"chosen strength 0.1: 10 edges{expected}"
    other = next(axes for axes in ax.figure.axes if axes is not ax)
    drawn = [line.get_xydata().tolist() for line in other.lines if line.get_label() == "edges after elimination"]
    assert drawn == ([[[0.1, n_edges]]] if expected else [])


def test_strength_of_zero_stands_before_the_others():
    ax: Any = sparsity_path(with_path(PATH))
    np.testing.assert_allclose(ax.lines[0].get_xdata(), [0.0, 0.01, 0.1, 1.0])
    ticks = dict(zip([tick.get_text() for tick in ax.get_xticklabels()], ax.get_xticks(), strict=True))
    assert ticks == {"0": 0.0, "0.01": 0.01, "0.1": 0.1, "1": 1.0}
    before, *others = np.diff(ax.transData.transform(np.column_stack([list(ticks.values()), np.ones(4)]))[:, 0])
    assert 0.3 * others[0] < before < others[0]  # nearer than a decade, and apart
    np.testing.assert_allclose(others[0], others[1], rtol=1e-6)
    without: Any = sparsity_path(with_path(PATH.iloc[1:]))
    assert without.get_xscale() == "log"


def test_path_in_another_order_is_sorted():
    ax: Any = sparsity_path(with_path(PATH.iloc[::-1]))
    assert (np.diff(ax.lines[0].get_xdata()) > 0).all()


def test_only_a_strength_of_zero_and_no_held_out_data():
    path = PATH.iloc[:1].assign(valid_error=np.nan, valid_error_se=np.nan, chosen=True)
    ax: Any = sparsity_path(with_path(path))
    ax.figure.draw_without_rendering()
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["0"]
    names = ["training error", "error of predicting no change", "edges kept by the penalty"]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == names


def test_path_within_one_decade_has_ticks():
    ax: Any = sparsity_path(with_path(PATH.assign(strength=[0.0, 0.2, 0.4, 0.8])))
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["0", "0.2", "0.4", "0.8"]


def test_given_axes_and_missing_path():
    adata = with_path(PATH)
    _, ax = plt.subplots()
    assert sparsity_path(adata, ax=ax) is ax
    with pytest.raises(KeyError, match=r"pf\.tl\.fit_dynamics\(adata, key_added='other'\)"):
        sparsity_path(adata, key="other")
    adata.uns["dynamics"] = {"genes": ["a"]}
    with pytest.raises(KeyError, match=r"'sparsity_path' in `adata.uns\['dynamics'\]`.*pf\.tl\.fit_dynamics"):
        sparsity_path(adata)
