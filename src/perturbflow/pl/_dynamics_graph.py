"""The graph of which gene drives which."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, cast

import numpy as np
from matplotlib.collections import PolyCollection
from matplotlib.path import Path
from matplotlib.patheffects import withStroke
from matplotlib.textpath import TextPath
from matplotlib.transforms import Bbox

from perturbflow._checks import check_between, check_one_of, check_whole_number
from perturbflow.pl._drawing import DARK, ORANGE, drawing, finish, label_points, of_graph, plot
from perturbflow.pl._dynamics_results import as_list, positions_of, strongest_edges
from perturbflow.pl._graph_layout import LAYOUTS, LOOP, curve_of, fit_to_box, loop_of, outline, place_nodes
from perturbflow.pl._graph_style import REGULATOR, RIM, TARGET, EdgeStyle, graph_legend

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from mudata import MuData
    from numpy.typing import NDArray

ELLIPSE, BOX = 2.0, 6.0  # powers of the outlines of regulators and of targets
FEW, MANY = 20, 70  # edges between which they become thinner and fainter
GAPS = (30.0, 24.0, 18.0, 14.0)  # between nodes with names, in points, as far as there is room
MOST_INSIDE = 90  # nodes up to which labels may stand in them
MOST_DRAWN = 40  # edges, unless `top` asks for more
FONT = 7.5


@plot
@of_graph
def dynamics_graph(
    adata: AnnData | MuData,
    *,
    genes: str | Sequence[str] | None = None,
    top: int | None = None,
    min_confidence: float = 0.5,
    layout: Literal["auto", "layered", "spring", "circular"] = "auto",
    key: str = "dynamics_graph",
    show_confidence: bool = True,
    modality: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: bool | str | None = None,
) -> Axes:
    """Draw the graph of regulators and targets.

    Colour and head tell activation (arrow) from repression (bar), width the absolute weight, and how far a line stands
    out its confidence. Regulators are dark ellipses that grow with the number of their targets, other genes are light
    boxes. Names stand within the nodes where there is room; in large graphs the regulators and the genes with most
    edges are named beside them, as far as there is room.

    Parameters
    ----------
    genes
        Draw the edges from and to these genes only, and outline them.
    top
        Draw this many edges, those with the largest confidence times absolute weight; the 40 strongest if None, which
        can be followed by eye. The title says how many there are.
    min_confidence
        Draw edges of at least this confidence. At 0 all that the graph has are drawn, also baselines' weak correlations.
    layout
        ``"auto"`` keeps what is near in the graph near in the drawing, ``"spring"`` is looser, ``"layered"`` puts
        targets below their regulators, ``"circular"`` puts genes on circles.
    show_confidence
        Fade edges of low confidence.
    ax
        Axes to draw on; those of a new figure if None. Its size when this is called is what the drawing is made for.

    Returns
    -------
    The Axes. Its units are points.

    Examples
    --------
    >>> import perturbflow as pf
    >>> adata = pf.datasets.hill_network(n_genes=5, n_trajectories=6, n_times=20)
    >>> pf.pp.setup_dynamics(adata, time_key="time", trajectory_key="trajectory")
    >>> pf.tl.infer_graph(adata, method="partial_correlation")
    >>> ax = pf.pl.dynamics_graph(adata, top=5, min_confidence=0)
    >>> len(ax.patches)
    5
    """
    check_one_of(layout, LAYOUTS, name="layout")
    if top is not None:
        check_whole_number(top, name="top", least=1)
    check_between(min_confidence, 0, 1, name="min_confidence")
    edges = strongest_edges(adata, key)
    focus = [] if genes is None else as_list(genes, parameter="genes")
    positions_of(focus, adata.var_names, parameter="genes", where="adata.var_names")

    n_all = len(edges)
    if genes is not None:
        edges = edges[edges["source"].isin(focus) | edges["target"].isin(focus)]
    sure = edges["confidence"] >= min_confidence
    limit = 0.0 if sure.all() else min_confidence
    edges = edges[sure]
    edges = edges.iloc[: MOST_DRAWN if top is None else top]
    regulators = _registered(adata) | set(edges["source"])
    order = {str(name): place for place, name in enumerate(adata.var_names)}
    drawn = {*edges["source"], *edges["target"], *focus}
    names = sorted(drawn, key=lambda name: (order.get(name, len(order)), name))

    growth = 0.44 if len(names) <= MOST_INSIDE else 0.36
    side = float(np.clip(2.2 + growth * np.sqrt(len(names) + len(edges) / 2), 3.4, 9.0))
    with drawing(ax, figsize=(side * 1.15 + 1.5, side)) as ax:
        ax.set_axis_off()
        finish(ax, _title(len(edges), n_all, focus, limit))
        if not names:
            ax.text(0.5, 0.5, "no edges", transform=ax.transAxes, ha="center", va="center", color=DARK)
            return ax
        crowding = float(np.clip((len(edges) - FEW) / (MANY - FEW), 0, 1)) if len(names) <= MOST_INSIDE else 1.0
        style = EdgeStyle.of(edges, crowding=crowding, show_confidence=show_confidence)
        kinds = [name in regulators for name in names]
        graph_legend(ax, edges, style=style, kinds=kinds)
        _draw(ax, edges, names, kinds=np.array(kinds), focus=set(focus), layout=layout, style=style)
    return ax


def _registered(adata: AnnData) -> set[str]:
    """Registered regulators, where these are fewer than all genes."""
    fields = adata.uns.get("dynamics_fields", {})
    registered = set(map(str, fields.get("regulators", ())))
    return registered if len(registered) < adata.n_vars else set()


def _title(n_drawn: int, n_all: int, focus: list[str], limit: float) -> str:
    number = f"{n_drawn:,}" if n_drawn == n_all else f"{n_drawn:,} of {n_all:,}"
    number = f"{number} edge{'s' * (n_all != 1)}"
    if limit > 0:
        number = f"{number}, confidence ≥ {limit:g}"
    if not focus:
        return number
    return f"{number}, of {', '.join(focus) if len(focus) <= 3 else f'{len(focus)} genes'}"


def _draw(
    ax: Axes,
    edges: pd.DataFrame,
    names: list[str],
    *,
    kinds: NDArray[np.bool_],
    focus: set[str],
    layout: str,
    style: EdgeStyle,
) -> None:
    import networkx as nx

    figure = cast("Figure", ax.get_figure(root=True))
    figure.draw_without_rendering()  # the size is known once the legend has its room
    frame = ax.get_window_extent()
    box = (frame.width * 72 / figure.dpi, frame.height * 72 / figure.dpi)

    place = {name: at for at, name in enumerate(names)}
    ends = [(place[source], place[target]) for source, target in zip(edges["source"], edges["target"], strict=True)]
    graph = nx.DiGraph()
    graph.add_nodes_from(range(len(names)))
    graph.add_edges_from(
        (one, other, {"strength": value}) for (one, other), value in zip(ends, edges["strength"], strict=True)
    )
    n_targets = np.array([graph.out_degree(node) for node in range(len(names))])

    half, is_inside = _extents(names, kinds, n_targets, box)
    powers = np.where(kinds, ELLIPSE, BOX)
    if is_inside:
        fitting = [gap for gap in GAPS if (2 * half + gap).prod(axis=1).sum() < 0.42 * box[0] * box[1]]
        gap = next(iter(fitting), 11.0)
    else:
        gap = 5.0
    has_loop = np.array([graph.has_edge(node, node) for node in range(len(names))])
    room = half + np.where(has_loop[:, None], LOOP, 0.0)
    positions = fit_to_box(place_nodes(graph, layout, aspect=box[0] / box[1]), room, box=box, gap=gap)
    ax.set(xlim=(0, box[0]), ylim=(0, box[1]))
    ax.set_aspect("equal", adjustable="box", anchor="NW")

    weakest_first = list(zip(ends, edges.itertuples(), strict=True))[::-1]
    for at, ((one, other), edge) in enumerate(weakest_first):
        if one == other:
            around = sorted({*graph.predecessors(one), *graph.successors(one)} - {one})
            points = loop_of(one, around, positions, half, powers[one])
            path = Path(points, [Path.MOVETO, *[Path.CURVE4] * 3])
        else:
            head = style.head_room(edge.sign, edge.weight)
            is_pair = graph.has_edge(other, one)
            points = curve_of((one, other), positions, half, powers, is_pair=is_pair, head=head)
            path = Path(points, [Path.MOVETO, *[Path.CURVE3] * 2])
        zorder = 1 + at / len(edges)
        ax.add_patch(style.arrow(path, edge.sign, edge.weight, edge.confidence, zorder=zorder))

    _draw_nodes(ax, names, positions, half, kinds=kinds, focus=focus)
    if is_inside:
        for name, point, is_regulator in zip(names, positions, kinds, strict=True):
            color = "white" if is_regulator else DARK
            ax.text(point[0], point[1], name, ha="center", va="center_baseline", fontsize=FONT, color=color, zorder=4)
        return
    degree = np.array([graph.degree(node) for node in range(len(names))])
    named = [
        node
        for node in sorted(
            range(len(names)), key=lambda node: (names[node] not in focus, not kinds[node], -degree[node])
        )
        if names[node] in focus or kinds[node] or degree[node] >= max(3, np.quantile(degree, 0.9))
    ][: max(len(focus), int(box[0] * box[1] / 4500))]
    corners = ax.transData.transform(np.concatenate([positions - half - 1, positions + half + 1]))
    avoid = [Bbox([low, high]) for low, high in zip(corners[: len(names)], corners[len(names) :], strict=True)]
    labels = [names[node] for node in named]
    for text in label_points(ax, positions[named, 0], positions[named, 1], labels, avoid=avoid, size=FONT):
        text.set_zorder(2.5)  # over edges, below nodes
        text.set_path_effects([withStroke(linewidth=2.2, foreground="white")])


def _extents(
    names: list[str], kinds: NDArray[np.bool_], n_targets: NDArray[np.int_], box: tuple[float, float]
) -> tuple[NDArray[np.float64], bool]:
    """Half width and height of every node (n, 2), and whether these have room for names."""
    growth = np.sqrt(n_targets / max(n_targets.max(), 1))
    if len(names) <= MOST_INSIDE:
        widths = np.array([TextPath((0, 0), name, size=FONT).get_extents().width for name in names])
        wide = np.where(kinds, 0.62 * widths + 4 + 5 * growth, 0.5 * widths + 4)
        high = np.where(kinds, 8 + 5 * growth, 7.0)
        if (4 * (wide + 6) * (high + 6)).sum() < 0.5 * box[0] * box[1]:
            return np.column_stack([np.maximum(wide, high), high]), True
    radius = np.where(kinds, 3.0 + 5.0 * growth, 2.4)
    return np.column_stack([radius, radius]), False


def _draw_nodes(
    ax: Axes,
    names: list[str],
    positions: NDArray[np.float64],
    half: NDArray[np.float64],
    *,
    kinds: NDArray[np.bool_],
    focus: set[str],
) -> None:
    """Draw regulators and targets, each as one collection."""
    is_focus = np.array([name in focus for name in names])
    for chosen, power, fill, label in ((kinds, ELLIPSE, REGULATOR, "regulators"), (~kinds, BOX, TARGET, "targets")):
        shapes = [outline(positions[at], half[at], power) for at in np.flatnonzero(chosen)]
        rim = np.where(is_focus[chosen], ORANGE, RIM)
        width = np.where(is_focus[chosen], 2.0, 0.7)
        ax.add_collection(
            PolyCollection(shapes, facecolors=fill, edgecolors=rim, linewidths=width, label=label, zorder=3),
            autolim=False,
        )
