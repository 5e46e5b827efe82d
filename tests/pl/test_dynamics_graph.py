from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any

import matplotlib.pyplot as plt
import networkx as nx
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgb
from matplotlib.patches import FancyArrowPatch
from matplotlib.text import Annotation, Text

from perturbflow.pl import dynamics_graph
from perturbflow.pl._graph_layout import LAYOUTS, curve_of, fit_to_box, is_within, loop_of, outline, place_nodes

BLUE, VERMILLION = "#0072B2", "#D55E00"

COLUMNS = ["source", "target", "weight", "sign", "confidence"]
EDGES = [
    ("a", "b", 0.9, 1, 1.0),
    ("a", "c", -0.6, -1, 0.5),
    ("b", "a", 0.5, 1, 0.5),
    ("a", "a", -0.4, -1, 0.5),
    ("d", "e", 0.3, 1, 0.2),
]


def with_edges(edges: list[tuple], names: list[str] | None = None) -> AnnData:
    """Cells with a graph of these edges among these genes."""
    names = list("abcdef") if names is None else names
    adata = AnnData(np.zeros((1, len(names)), dtype=np.float32))
    adata.var_names = names
    table = pd.DataFrame(edges, columns=COLUMNS)
    adata.uns["dynamics_graph"] = {"edges": table, "method": "jacobian", "parameters": {}}
    return adata


def random_graph(n_edges: int, n_genes: int, n_regulators: int) -> AnnData:
    """A graph whose first regulators have most targets."""
    rng = np.random.default_rng(0)
    names = [f"gene{number}" for number in range(n_genes)]
    share = 1 / np.arange(1, n_regulators + 1)
    pairs: set[tuple[int, int]] = set()
    while len(pairs) < n_edges:
        pairs.add((int(rng.choice(n_regulators, p=share / share.sum())), int(rng.integers(n_genes))))
    edges = [
        (names[one], names[other], float(sign * rng.gamma(2.0)), int(sign), float(rng.random()))
        for one, other in sorted(pairs)
        for sign in [rng.choice([-1, 1])]
    ]
    return with_edges(edges, names)


def everything(adata: AnnData, **options: Any) -> Any:
    """Draw a graph with the edges of low confidence, too."""
    return dynamics_graph(adata, **{"min_confidence": 0, **options})


def arrows(ax) -> list[Any]:
    return [patch for patch in ax.patches if isinstance(patch, FancyArrowPatch)]


def nodes(ax) -> dict[str, Any]:
    return {str(item.get_label()): item for item in ax.collections if isinstance(item, PolyCollection)}


def labels(ax) -> list[Text]:
    return [text for text in ax.texts if text.get_text()]


def centres(collection) -> np.ndarray:
    return np.array([(path.vertices.min(axis=0) + path.vertices.max(axis=0)) / 2 for path in collection.get_paths()])


def legend_texts(ax) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_all_edges_and_genes_with_edges_are_drawn():
    ax = everything(with_edges(EDGES))
    assert len(arrows(ax)) == 5
    assert sorted(text.get_text() for text in labels(ax)) == list("abcde")
    assert ax.get_title(loc="left") == "5 edges"
    assert {name: len(item.get_paths()) for name, item in nodes(ax).items()} == {"regulators": 3, "targets": 2}


def test_sign_is_colour_and_head_weight_is_width_and_confidence_is_shade():
    ax = everything(with_edges(EDGES))
    drawn = arrows(ax)[::-1]  # the weakest are drawn first
    order = sorted(EDGES, key=lambda edge: -abs(edge[2]) * edge[4])
    widths = [arrow.get_linewidth() for arrow in drawn]
    slopes = np.diff(widths) / np.diff([abs(edge[2]) for edge in order])
    np.testing.assert_allclose(slopes, slopes[0])
    assert slopes[0] > 0
    for arrow, (_, _, _, sign, confidence) in zip(drawn, order, strict=True):
        full = np.array(to_rgb(BLUE if sign > 0 else VERMILLION))
        share = (1 - np.array(to_rgb(arrow.get_edgecolor()))) / (1 - full)
        np.testing.assert_allclose(share, 0.15 + 0.85 * confidence)
        assert type(arrow.get_arrowstyle()).__name__ == ("CurveFilledB" if sign > 0 else "BracketB")


def test_legend_says_what_differs():
    adata = with_edges(EDGES)
    fixed = ["activation", "repression", "regulator", "target"]
    weights, confidences = (
        [f"weight {value}" for value in (0.9, 0.3)],
        [f"confidence {value}" for value in (1, 0.2)],
    )
    assert legend_texts(everything(adata)) == [*fixed, *weights, *confidences]
    plain: Any = everything(adata, show_confidence=False)
    assert legend_texts(plain) == [*fixed, *weights]
    for arrow, (*_, sign, _) in zip(arrows(plain)[::-1], sorted(EDGES, key=lambda e: -abs(e[2]) * e[4]), strict=True):
        np.testing.assert_allclose(arrow.get_edgecolor()[:3], to_rgb(BLUE if sign > 0 else VERMILLION))


def test_regulators_grow_with_their_targets():
    ax = everything(with_edges([("a", name, 1.0, 1, 1.0) for name in "bcde"] + [("b", "c", 1.0, 1, 1.0)]))
    heights = [np.ptp(path.vertices[:, 1]) for path in nodes(ax)["regulators"].get_paths()]
    assert heights[0] > heights[1]
    assert all(heights[1] > np.ptp(path.vertices[:, 1]) for path in nodes(ax)["targets"].get_paths())


def test_registered_regulators_without_targets_are_told_apart():
    adata = with_edges([("a", "b", 1.0, 1, 1.0), ("a", "c", 1.0, 1, 1.0)])
    adata.uns["dynamics_fields"] = {"time_key": "time", "regulators": ["a", "b"]}
    assert len(nodes(everything(adata))["regulators"].get_paths()) == 2
    adata.uns["dynamics_fields"]["regulators"] = list(adata.var_names)  # none were chosen
    assert len(nodes(everything(adata))["regulators"].get_paths()) == 1


def test_focus_on_genes():
    ax = everything(with_edges(EDGES), genes="c")
    assert len(arrows(ax)) == 1
    assert sorted(text.get_text() for text in labels(ax)) == ["a", "c"]
    assert ax.get_title(loc="left") == "1 of 5 edges, of c"
    assert nodes(ax)["targets"].get_linewidths() > nodes(ax)["regulators"].get_linewidths()


def test_gene_without_edges_stands_alone():
    ax = everything(with_edges(EDGES), genes=["f"])
    assert arrows(ax) == []
    assert [text.get_text() for text in labels(ax)] == ["f"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [({"top": 2}, {("a", "b"), ("a", "c")}), ({"min_confidence": 0.9}, {("a", "b")}), ({"top": 99}, set(range(5)))],
)
def test_strongest_and_surest_edges(options, expected):
    ax = everything(with_edges(EDGES), **options)
    assert len(arrows(ax)) == len(expected)
    assert ax.get_title(loc="left").startswith("5 edges" if len(expected) == 5 else f"{len(expected)} of 5 edges")


def test_by_default_edges_are_drawn_that_are_more_likely_than_not():
    ax = dynamics_graph(with_edges(EDGES))
    assert len(arrows(ax)) == 4
    assert ax.get_title(loc="left") == "4 of 5 edges, confidence ≥ 0.5"
    assert dynamics_graph(with_edges(EDGES[:4])).get_title(loc="left") == "4 edges"
    assert [text.get_text() for text in labels(dynamics_graph(with_edges(EDGES[4:])))] == ["no edges"]


@pytest.mark.parametrize("options", [{}, {"genes": "a", "min_confidence": 1.0}], ids=["all", "genes"])
def test_no_edges(options):
    ax = everything(with_edges([]), **options)
    assert arrows(ax) == []
    assert [text.get_text() for text in labels(ax)] == (["a"] if options else ["no edges"])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_one_edge_and_every_layout(layout):
    ax = everything(with_edges(EDGES[:1]), layout=layout)
    assert ax.get_title(loc="left") == "1 edge"
    assert len(arrows(ax)) == 1
    assert len(arrows(everything(with_edges(EDGES), layout=layout))) == 5


def test_names_of_a_small_graph_stand_in_nodes_that_do_not_overlap():
    ax: Any = everything(random_graph(40, 25, 7))
    boxes = [path.get_extents() for item in nodes(ax).values() for path in item.get_paths()]
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    points = np.concatenate([centres(item) for item in nodes(ax).values()])
    for text in labels(ax):
        assert not isinstance(text, Annotation)
        assert np.abs(points - text.get_position()).max(axis=1).min() < 1e-6
    inside = [text.get_window_extent().transformed(ax.transData.inverted()) for text in labels(ax)]
    assert all(any(box.x0 < text.x0 and text.x1 < box.x1 for box in boxes) for text in inside)


def test_large_graph_names_regulators_without_overlap():
    adata = random_graph(300, 150, 25)
    ax: Any = everything(adata, top=300)
    assert len(arrows(ax)) == 300
    texts = labels(ax)
    n_genes = sum(len(item.get_paths()) for item in nodes(ax).values())
    assert n_genes > 100
    assert {f"gene{number}" for number in range(8)} <= {text.get_text() for text in texts}
    assert len(texts) < n_genes / 2
    ax.figure.draw_without_rendering()
    boxes = [Text.get_window_extent(text) for text in texts]
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    few = everything(adata, top=20)
    assert max(arrow.get_linewidth() for arrow in arrows(few)) > max(arrow.get_linewidth() for arrow in arrows(ax))


def test_only_so_many_edges_unless_asked():
    adata = random_graph(320, 60, 20)
    assert everything(adata, genes=["gene0"]).get_title(loc="left").endswith("of 320 edges, of gene0")
    ax = everything(adata, layout="circular")
    assert (len(arrows(ax)), ax.get_title(loc="left")) == (40, "40 of 320 edges")
    assert len(arrows(everything(adata, layout="circular", top=320))) == 320


def test_drawn_on_given_axes_the_same_every_time():
    _, (one, other) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
    adata = with_edges(EDGES)
    before = adata.uns["dynamics_graph"]["edges"].copy()
    assert everything(adata, ax=one) is one
    everything(adata, ax=other)
    np.testing.assert_allclose(centres(nodes(everything(adata))["regulators"]).shape, (3, 2))
    first, second = (everything(adata) for _ in range(2))
    np.testing.assert_array_equal(centres(nodes(first)["targets"]), centres(nodes(second)["targets"]))
    pd.testing.assert_frame_equal(adata.uns["dynamics_graph"]["edges"], before)


def test_missing_graph_names_the_call():
    adata = with_edges(EDGES)
    with pytest.raises(KeyError, match=r"pf\.tl\.infer_graph\(adata, key_added='other'\)"):
        everything(adata, key="other")
    adata.uns["dynamics_graph"] = {"method": "jacobian"}
    with pytest.raises(KeyError, match=r"Expected 'edges' in `adata.uns\['dynamics_graph'\]`.*pf\.tl\.infer_graph"):
        everything(adata)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"genes": ["a", "gene_b"]},
            KeyError,
            r"`genes` to be from adata.var_names, found \['gene_b'\].*similar are \['b'",
        ),
        ({"genes": []}, ValueError, "`genes` to name at least one"),
        ({"top": 0}, ValueError, "`top` to be at least 1"),
        ({"min_confidence": 1.5}, ValueError, "`min_confidence` to be from 0 to 1"),
        ({"layout": "tree"}, ValueError, "`layout` to be one of"),
    ],
)
def test_bad_options(options, error, message):
    with pytest.raises(error, match=message):
        everything(with_edges(EDGES), **options)
    assert plt.get_fignums() == []


def test_layers_put_targets_below_their_regulators():
    graph = nx.DiGraph()
    graph.add_nodes_from(range(5))
    graph.add_weighted_edges_from([(0, 1, 1.0), (1, 2, 1.0), (0, 3, 1.0), (3, 4, 1.0)], weight="strength")
    graph.add_edge(2, 0, strength=0.1)  # closes a cycle, and is the weakest
    y = place_nodes(graph, "layered", aspect=1.0)[:, 1]
    assert y[0] > y[1] > y[2]
    assert y[1] == y[3]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_components_do_not_overlap(layout):
    graph = nx.DiGraph([(0, 1), (1, 2), (3, 4), (4, 5), (5, 3)])
    graph.add_node(6)
    positions = place_nodes(graph, layout, aspect=1.3)
    assert positions.shape == (7, 2)
    assert np.isfinite(positions).all()
    assert min(np.linalg.norm(one - other) for one, other in combinations(positions, 2)) > 0.05


def test_nodes_fit_into_the_box():
    half = np.full((30, 2), [20.0, 8.0])
    positions = np.random.default_rng(0).normal(size=(30, 2))
    positions[1] = positions[0]
    placed = fit_to_box(positions, half, box=(300.0, 200.0), gap=4.0)
    assert ((placed >= half) & (placed <= np.array([300.0, 200.0]) - half)).all()
    for one, other in combinations(placed, 2):
        assert (np.abs(one - other) >= [40.0 + 3.9, 16.0 + 3.9]).any()
    assert fit_to_box(np.empty((0, 2)), np.empty((0, 2)), box=(1.0, 1.0), gap=0.0).shape == (0, 2)


def at(curve: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Points of a Bézier curve of degree 2 at t."""
    t = t[:, None]
    points: np.ndarray = (1 - t) ** 2 * curve[0] + 2 * t * (1 - t) * curve[1] + t**2 * curve[2]
    return points


def test_outline_is_the_edge_of_the_inside():
    centre, half = np.array([3.0, 1.0]), np.array([4.0, 2.0])
    circle = outline(centre, half, 2.0)
    np.testing.assert_allclose((((circle - centre) / half) ** 2).sum(axis=1), 1.0)
    assert is_within(centre + 0.999 * (circle - centre), centre, half, 2.0).all()
    assert not is_within(centre + 1.001 * (circle - centre), centre, half, 2.0).any()
    corner = centre + 0.85 * half
    assert is_within(corner, centre, half, 6.0)
    assert not is_within(corner, centre, half, 2.0)


def test_curves_run_from_outline_to_outline_around_other_nodes():
    positions, half = np.array([[0.0, 0.0], [100.0, 0.0], [50.0, 0.0]]), np.full((3, 2), 6.0)
    curve: Callable[..., np.ndarray] = lambda **options: curve_of(  # noqa: E731
        (0, 1), positions, half, np.full(3, 2.0), head=4.0, **options
    )
    straight = curve_of((0, 1), positions[:2], half[:2], np.full(2, 2.0), is_pair=False, head=4.0)
    np.testing.assert_allclose(straight, [[7.5, 0], [48.75, 0], [90.0, 0]], atol=0.15)
    around = curve(is_pair=False)
    points = at(around, np.linspace(0, 1, 50))
    assert not is_within(points, positions[2], half[2], 2.0).any()
    assert np.linalg.norm(around[0] - positions[0]) == pytest.approx(7.5, abs=0.2)
    assert np.linalg.norm(around[2] - positions[1]) == pytest.approx(10.0, abs=0.2)


def test_edges_in_both_directions_part():
    positions, half = np.array([[0.0, 0.0], [100.0, 0.0]]), np.full((2, 2), 6.0)
    there, back = (
        curve_of(ends, positions, half, np.full(2, 2.0), is_pair=True, head=2.0) for ends in ((0, 1), (1, 0))
    )
    assert there[1, 1] == pytest.approx(-back[1, 1])
    assert abs(there[1, 1]) > 10


def test_loops_go_where_no_edge_is():
    positions, half = np.array([[0.0, 0.0], [50.0, 0.0], [0.0, 50.0], [0.0, -50.0]]), np.full((4, 2), 6.0)
    loop = loop_of(0, [1, 2, 3], positions, half, 2.0)
    assert (loop[:, 0] < 0).all()
    np.testing.assert_allclose(np.linalg.norm(loop[[0, 3]], axis=1), 7.5)
    assert (loop_of(0, [], positions, half, 2.0)[:, 1] > 0).all()
