"""Plots of what responses consist of, of interactions, and of doses."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from perturbflow import pl
from perturbflow.tl import explain_response, interaction_scores


@pytest.fixture
def explained(registered):
    explain_response(registered, min_cells=4)
    return registered


def test_bars_add_up_to_the_total(explained):
    table = explained.uns["response_parts"].sort_values("effect", ascending=False).iloc[:5]
    ax = pl.response_parts(explained, n_top=5)
    bars = [bar for container in ax.containers for bar in container]
    lengths = [sum(bar.get_width() for bar in bars if round(bar.get_y() + bar.get_height() / 2) == k) for k in range(5)]
    np.testing.assert_allclose(lengths, table["total"], rtol=1e-6)
    assert [text.get_text() for text in ax.get_yticklabels()] == [
        f"{row.perturbation}, {row.cell_type}" for row in table.itertuples()
    ]
    assert [text.get_text()[:4] for text in ax.texts] == [f"{value:.2f}"[:4] for value in table["reliability"]]


def test_what_is_not_divided_is_drawn_as_one(registered):
    one = registered[(registered.obs["cell_type"] == "type_1").to_numpy()].copy()
    explain_response(one, min_cells=4)
    ax: Any = pl.response_parts(one)
    said = [text.get_text() for text in ax.get_legend().get_texts()]
    assert "specific to the perturbation" in said
    assert "conserved over contexts" not in said


def test_points_and_curves_are_those_of_the_tables(curves):
    ax: Any = pl.dose_response(curves)
    drawn = [line for line in ax.lines if line.get_label() in {"measured", "predicted"}]
    assert len(drawn) == 2
    np.testing.assert_allclose(drawn[0].get_ydata(), [1 / 11, 0.5, 10 / 11])
    assert ax.get_xscale() == "log"
    assert ax.get_ylabel() == "change of g0"
    assert ax.get_title(loc="left") == "A, T"
    bars = [line for line in ax.lines if line.get_linewidth() == 2.5]
    assert [list(bar.get_xdata()) for bar in bars] == [[5, 100]] * 2  # cut where the doses end
    other: Any = pl.dose_response(curves, "B", covariates={"cell_type": "U"})
    assert other.get_title(loc="left") == "B, U"
    assert not [line for line in other.lines if line.get_linewidth() == 2.5]


@pytest.mark.parametrize(
    ("options", "error_type", "message"),
    [
        ({"perturbation": "C"}, ValueError, r"Expected a known perturbation, found 'C' in `perturbation`. The most"),
        ({"covariates": {"donor": "1"}}, KeyError, "donor"),
        ({"covariates": {"cell_type": "V"}}, ValueError, "cell_type"),
    ],
)
def test_unknown_curves(curves, options, error_type, message):
    with pytest.raises(error_type, match=message):
        pl.dose_response(curves, **options)


def test_magnitudes_are_those_of_the_table():
    rows = [
        {"perturbation": "A+B", "source": "measured", "magnitude": 1.5, "class": "synergistic"},
        {"perturbation": "A+B", "source": "predicted", "magnitude": 1.0, "class": "undetermined"},
        {"perturbation": "A+C", "source": "measured", "magnitude": 0.5, "class": "suppressive"},
        {"perturbation": "B+C", "source": "measured", "magnitude": np.nan, "class": "not measurable"},
    ]
    table = pd.DataFrame(rows).assign(coefficient_1=1.0)
    table = table.assign(magnitude_lower=table["magnitude"] - 0.2, magnitude_upper=table["magnitude"] + 5)
    adata = AnnData(np.ones((1, 1), dtype=np.float32), uns={"interaction_scores": table})
    ax: Any = pl.interaction_scores(adata)
    assert [text.get_text() for text in ax.get_yticklabels()] == ["A+B", "A+C"]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["synergistic", "suppressive", "predicted"]
    segments = np.concatenate([c.get_segments() for c in ax.collections if hasattr(c, "get_segments")])
    np.testing.assert_allclose(segments[:, :, 0], [[1.3, 3.0], [0.3, 3.0]])  # cut at 3
    assert len(pl.interaction_scores(adata, source="predicted").get_yticks()) == 1
    adata.uns["interaction_scores"] = table[table["source"] == "measured"]
    with pytest.raises(ValueError, match="Expected measurable combinations that are predicted, found none"):
        pl.interaction_scores(adata, source="predicted")


@pytest.mark.parametrize("name", ["response_parts", "interaction_scores", "dose_response"])
def test_given_axes_are_drawn_on_and_other_entries_refused(name, explained, curves, fitted):
    interaction_scores(fitted, min_cells=2)
    cells = {"response_parts": explained, "interaction_scores": fitted, "dose_response": curves}[name]
    _, ax = plt.subplots()
    options = {"source": "predicted"} if name == "interaction_scores" else {}
    assert getattr(pl, name)(cells, ax=ax, **options) is ax
    with pytest.raises(KeyError, match=r"Run `pf.tl\."):
        getattr(pl, name)(cells, key="absent")
    cells.uns[name] = {}
    with pytest.raises(ValueError, match=r"found dict\. Run `pf.tl\."):
        getattr(pl, name)(cells)
