from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.patches import Rectangle

from perturbflow.pl import knockout_response

GREY = "#A8A8A8"

GENES = ["a", "b", "c", "d", "e"]
SIZES = np.array([0.1, -5.0, -0.8, 0.4, 0.0])  # of the response at the end; b is held


@pytest.fixture
def adata():
    """Response of five genes in two trajectories, twice as large in the second."""
    time = np.array([0.0, 1.0, 3.0, 4.0])
    response = np.stack([scale * time[:, None] / 4 * SIZES for scale in (1.0, 2.0)])
    response[:, :, 1] = SIZES[1]
    unperturbed = np.random.default_rng(0).random((2, 4, 5))
    adata = AnnData(np.zeros((1, 5), dtype=np.float32))
    adata.var_names = GENES
    adata.uns["knockout"] = {
        "time": time,
        "trajectories": ["0", "1"],
        "unperturbed": unperturbed,
        "perturbed": unperturbed + response,
        "genes": GENES,
        "interventions": pd.DataFrame({"gene": ["b"], "kind": ["knockdown"], "value": [0.1]}),
    }
    return adata


def mesh(ax: Any) -> Any:
    (drawn,) = ax.collections
    return drawn


def rows(ax: Any) -> list[str]:
    return [label.get_text() for label in ax.get_yticklabels()]


def test_heat_map_has_genes_held_above_those_that_respond_most(adata):
    ax: Any = knockout_response(adata, top=3)
    assert rows(ax) == ["b", "c", "d", "a"]
    expected = 1.5 * np.outer(SIZES, [0.0, 0.25, 0.75, 1.0])
    np.testing.assert_allclose(mesh(ax).get_array()[1:], expected[[2, 3, 0]], atol=1e-12)
    np.testing.assert_allclose(mesh(ax).get_array()[0], -5.0)
    assert ax.get_ylim()[0] > ax.get_ylim()[1]
    assert ax.get_title(loc="left") == "response to b knockdown\nmean of 2 trajectories"


def test_colours_span_the_responses_and_genes_held_are_framed(adata):
    ax: Any = knockout_response(adata)
    np.testing.assert_allclose(mesh(ax).get_clim(), (-1.2, 1.2))
    (frame,) = (patch for patch in ax.patches if isinstance(patch, Rectangle))
    assert (frame.get_y(), frame.get_height()) == (-0.5, 1)
    assert [label.get_fontweight() for label in ax.get_yticklabels()] == ["bold"] + ["normal"] * 4
    bar = mesh(ax).colorbar
    assert (bar.extend, bar.ax.get_ylabel()) == ("both", "expression,\nperturbed − unperturbed")


def test_chosen_genes_and_trajectory(adata):
    ax: Any = knockout_response(adata, genes=["e", "c"], trajectory="1")
    assert rows(ax) == ["e", "c"]
    np.testing.assert_allclose(mesh(ax).get_array()[1], 2 * SIZES[2] * np.array([0, 0.25, 0.75, 1.0]))
    assert ax.get_title(loc="left") == "response to b knockdown\n1"
    assert mesh(ax).colorbar.extend == "neither"


def test_curves(adata):
    adata.uns["dynamics_fields"] = {"time_key": "pseudotime"}
    ax: Any = knockout_response(adata, kind="curves", top=2, trajectory="0")
    drawn: dict[str, Any] = {line.get_label(): line for line in ax.lines if not line.get_label().startswith("_")}
    assert list(drawn) == ["c", "d"]
    np.testing.assert_allclose(drawn["d"].get_xydata(), [[0.0, 0.0], [1.0, 0.1], [3.0, 0.3], [4.0, 0.4]], atol=1e-12)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("pseudotime", "expression,\nperturbed − unperturbed")
    named: Any = knockout_response(adata, kind="curves", genes=["b", "a"])
    assert [text.get_text() for text in named.get_legend().get_texts()] == ["b (held)", "a"]


def with_50_genes(adata):
    """Gene i responds with size i; gene 0 is held."""
    names = [f"gene{number}" for number in range(50)]
    adata.uns["knockout"] |= {
        "genes": names,
        "unperturbed": np.zeros((2, 4, 50)),
        "perturbed": np.ones((2, 4, 1)) * np.arange(50),
        "interventions": pd.DataFrame({"gene": ["gene0"], "kind": ["knockout"], "value": [0.0]}),
    }
    return names


def test_of_many_curves_those_that_respond_most_are_named_and_told_apart(adata):
    names = with_50_genes(adata)
    ax: Any = knockout_response(adata, kind="curves", top=49)
    named = [line for line in ax.lines if line.get_label() in names]
    assert [line.get_label() for line in named] == names[:37:-1]
    assert len({(line.get_color(), line.get_linestyle()) for line in named}) == 12
    assert ax.get_legend().get_texts()[-1].get_text() == "37 more"
    levels = [line.get_ydata()[0] for line in ax.lines if line.get_color() == GREY and len(line.get_ydata())]
    np.testing.assert_allclose(sorted(levels), np.arange(1, 38))


def test_a_row_for_each_of_50_genes_on_a_figure_that_grows(adata):
    with_50_genes(adata)
    few: Any = knockout_response(adata, top=5)
    many: Any = knockout_response(adata, top=49)
    assert (len(rows(few)), len(rows(many))) == (6, 50)
    assert many.figure.get_figheight() - few.figure.get_figheight() == pytest.approx(44 * 0.22)


def test_no_response_at_all(adata):
    adata.uns["knockout"]["perturbed"] = adata.uns["knockout"]["unperturbed"]
    ax: Any = knockout_response(adata)
    assert mesh(ax).get_clim() == (-1.0, 1.0)


def test_all_genes_held(adata):
    adata.uns["knockout"]["interventions"] = pd.DataFrame({"gene": GENES, "kind": "overexpression", "value": 1.0})
    assert rows(knockout_response(adata)) == GENES


def test_given_axes(adata):
    _, ax = plt.subplots(layout="constrained")
    assert knockout_response(adata, ax=ax) is ax


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"genes": ["cc"]}, KeyError, r"found \['cc'\]. The most similar are \['c'"),
        ({"genes": []}, ValueError, "`genes` to name at least one"),
        ({"trajectory": "2"}, KeyError, r"`trajectory`.*found \['2'\]"),
        ({"kind": "lines"}, ValueError, "`kind` to be one of"),
        ({"top": 0}, ValueError, "`top` to be at least 1"),
        ({"key": "k"}, KeyError, r"pf\.tl\.simulate_knockout\(adata, genes, key_added='k'\)"),
    ],
)
def test_bad_options(adata, options, error, message):
    with pytest.raises(error, match=message):
        knockout_response(adata, **options)
