from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import sparse

from perturbflow.metrics._response import ResponseAxis, responding_share
from perturbflow.pl import responders


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_fractions_are_those_of_the_metric(compared, adata):
    of_type = {"cell_type": str(adata.obs["cell_type"].cat.categories[0])}
    ax: Any = responders(adata, adata.uns["label"], covariates=of_type)
    cells = compared(adata, covariates=of_type).sources()
    axis = ResponseAxis.of(cells["observed"], cells["control"])
    scores = {name: axis.scores(values) for name, values in cells.items()}
    expected = [responding_share(values, scores["control"], 0.95) for values in scores.values()]
    assert legend(ax) == [
        f"{name}: {100 * fraction:.0f} % respond" for name, fraction in zip(cells, expected, strict=True)
    ]
    assert ax.get_title(loc="left").startswith(adata.uns["label"])


def test_all_cells_are_in_the_bins_and_the_threshold_is_the_quantile(adata):
    ax: Any = responders(adata, adata.uns["label"], level=0.8)
    # Outlines of filled steps have every bin twice, and return along zero.
    for patch in ax.patches:
        heights = patch.get_xy()[:, 1]
        assert heights.sum() / 2 == pytest.approx(100)
    (line,) = (line for line in ax.lines if line.get_linestyle() == "--")
    low, high = ax.get_xlim()
    assert low < line.get_xdata()[0] < high


def test_without_real_cells_the_predicted_change_is_the_direction(unobserved):
    ax: Any = responders(unobserved, unobserved.uns["label"])
    assert [text.split(":")[0] for text in legend(ax)] == ["control", "predicted"]
    assert "(not observed)" in ax.get_title(loc="left")


def test_cells_of_several_contexts_are_scored_from_their_own_controls(adata):
    """A type with higher expression everywhere is no response."""
    label = adata.uns["label"]
    is_first = (adata.obs["cell_type"] == adata.obs["cell_type"].cat.categories[0]).to_numpy()
    expected = legend(responders(adata, label))
    shifted = adata.X.toarray()
    shifted[is_first] += 1
    predicted = adata.obsm["predicted"].toarray()
    predicted[is_first & (adata.obs["perturbation"] == "control").to_numpy()] += 1
    adata.X, adata.obsm["predicted"] = sparse.csr_matrix(shifted), sparse.csr_matrix(predicted)
    assert legend(responders(adata, label)) == expected


@pytest.mark.parametrize("level", [0, 1.5])
def test_bad_level(adata, level):
    with pytest.raises(ValueError, match="Expected `level` between 0 and 1"):
        responders(adata, adata.uns["label"], level=level)


def test_nothing_that_changes(unobserved):
    unobserved.X = sparse.csr_matrix(np.ones(unobserved.shape, dtype=np.float32))
    unobserved.obsm["predicted"] = sparse.csr_matrix(np.ones(unobserved.shape, dtype=np.float32))
    with pytest.raises(ValueError, match="Expected genes that change between control and predicted cells"):
        responders(unobserved, unobserved.uns["label"])


def test_a_prediction_is_needed(adata):
    with pytest.raises(KeyError, match="Expected predicted cells of"):
        responders(adata, "none")
