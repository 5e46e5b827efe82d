"""Layout of a drawn graph: places of its nodes and routes of its edges."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import networkx as nx
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]

LAYOUTS = ("auto", "layered", "spring", "circular")
LOOP = 15.0  # how far an edge from a node to itself reaches, in points
_MOST_FOR_STRESS = 250  # nodes for which distances along the graph are laid out, at a cost of n^2 a step
_BENDS = (0.0, 0.12, -0.12, 0.22, -0.22, 0.34, -0.34, 0.46, -0.46)
_BENDS_OF_PAIRS = (0.16, 0.26, 0.36)  # to the right of the direction, so that the two edges part


def place_nodes(graph: nx.DiGraph, layout: str, *, aspect: float) -> FloatArray:
    """Positions of the nodes (n, 2) in arbitrary units, for a drawing of some width over height.

    ``"auto"`` places distances along the graph (Kamada and Kawai, 1989) with longer edges at hubs, so that their
    leaves have room, and falls back on ``"spring"`` (Fruchterman and Reingold, 1991) for large components;
    ``"layered"`` puts every node below its regulators, after edges that close a cycle are left out, weak ones
    first; ``"circular"`` puts a component on a circle. Components are laid out on their own, and packed in rows.
    """
    import networkx as nx

    if graph.number_of_nodes() == 0:
        return np.empty((0, 2))
    if layout == "layered":
        return _layered(graph, aspect)
    components = sorted((sorted(part) for part in nx.weakly_connected_components(graph)), key=len, reverse=True)
    blocks = [_component(nx.Graph(graph.subgraph(part)), part, layout, aspect) for part in components]
    positions = np.empty((graph.number_of_nodes(), 2))
    for part, block in zip(components, _packed(blocks, aspect), strict=True):
        positions[part] = block
    return positions


def _component(graph: nx.Graph, nodes: Sequence[int], layout: str, aspect: float) -> FloatArray:
    """Positions of a connected graph, with its longest axis along the width, and edges of a length near 1."""
    import networkx as nx

    graph.remove_edges_from(list(nx.selfloop_edges(graph)))
    n = len(nodes)
    if n == 1:
        return np.zeros((1, 2))
    if layout == "circular":
        angle = np.pi / 2 - 2 * np.pi * np.arange(n) / n
        return np.column_stack([np.cos(angle), np.sin(angle)]) * max(n / 6, 0.7)
    if layout == "spring" or n > _MOST_FOR_STRESS:
        found = nx.spring_layout(graph, k=2.5 / math.sqrt(n), iterations=150, seed=0)
    else:
        degree = dict(graph.degree)
        for one, other in graph.edges:
            graph[one][other]["length"] = 1 + 0.12 * math.sqrt(max(degree[one], degree[other]))
        found = nx.kamada_kawai_layout(graph, weight="length")
    points = np.array([found[node] for node in nodes])
    points -= points.mean(axis=0)
    _, spread, axes = np.linalg.svd(points, full_matrices=False)
    points = points @ (axes.T if aspect >= 1 else axes[::-1].T)
    if spread[-1] > 0.05 * spread[0]:  # a line stays a line
        points[:, 1] *= min(max(np.ptp(points[:, 0]) / (aspect * max(np.ptp(points[:, 1]), 1e-9)), 0.75), 1.4)
    place = {node: at for at, node in enumerate(nodes)}
    lengths = [math.dist(points[place[one]], points[place[other]]) for one, other in graph.edges]
    return points / max(float(np.median(lengths)), 1e-9)


def _packed(blocks: list[FloatArray], aspect: float) -> list[FloatArray]:
    """Move blocks into rows, the largest first, so that the whole has about the wanted aspect."""
    margin = 1.1
    sizes = [np.ptp(block, axis=0) + margin for block in blocks]
    width = max(max(size[0] for size in sizes), math.sqrt(aspect * sum(size[0] * size[1] for size in sizes)))
    x = y = height = 0.0
    moved = []
    for block, size in zip(blocks, sizes, strict=True):
        if x > 0 and x + size[0] > width * 1.05:
            x, y, height = 0.0, y - height, 0.0
        moved.append(block - [block[:, 0].min(), block[:, 1].max()] + [x, y])
        x, height = x + size[0], max(height, size[1])
    return moved


def _layered(graph: nx.DiGraph, aspect: float) -> FloatArray:
    """Layers by the longest path, ordered by the means of neighbours; long layers take several rows."""
    import networkx as nx

    acyclic = nx.DiGraph()
    acyclic.add_nodes_from(range(graph.number_of_nodes()))
    strength = nx.get_edge_attributes(graph, "strength", default=1.0)
    for source, target in sorted(graph.edges, key=lambda edge: -strength[edge]):
        if source != target and not nx.has_path(acyclic, target, source):
            acyclic.add_edge(source, target)
    layers = [list(layer) for layer in nx.topological_generations(acyclic)]
    x = np.zeros(graph.number_of_nodes())
    for layer in layers:
        x[layer] = np.linspace(-1, 1, len(layer) + 2)[1:-1]
    around = [list({*graph.predecessors(node), *graph.successors(node)} - {node}) for node in range(len(x))]
    for sweep in range(8):
        for layer in layers if sweep % 2 else layers[::-1]:
            wanted = [x[around[node]].mean() if around[node] else x[node] for node in layer]
            layer[:] = [layer[at] for at in np.argsort(wanted, kind="stable")]
            x[layer] = np.linspace(-1, 1, len(layer) + 2)[1:-1]

    longest = max(4, math.ceil(1.6 * math.sqrt(aspect * len(x))))
    positions, y = np.zeros((len(x), 2)), 0.0
    for layer in layers:
        n_rows = math.ceil(len(layer) / longest)
        for row in range(n_rows):
            members = layer[row::n_rows]
            positions[members, 0] = x[members] * aspect
            positions[members, 1] = y - 0.45 * row
        y -= 1.0 + 0.45 * (n_rows - 1)
    positions[:, 1] *= 2 / max(-y, 1.0)
    return positions


def fit_to_box(positions: FloatArray, half: FloatArray, *, box: tuple[float, float], gap: float) -> FloatArray:
    """Scale positions (n, 2) into a box from (0, 0), and push nodes apart until their rectangles leave a gap.

    ``half`` is half the width and height of every node (n, 2). Where a box has too little room, some still overlap.
    """
    if len(positions) == 0:
        return positions
    low, high = half.max(axis=0) + gap, np.asarray(box) - half.max(axis=0) - gap
    size = np.maximum(np.ptp(positions, axis=0), 1e-9)
    scale = np.maximum(high - low, 1.0) / size
    scale = np.minimum(scale, 1.5 * scale.min())  # fills the box, but does not distort much
    middle = (positions.max(axis=0) + positions.min(axis=0)) / 2
    placed = (positions - middle) * scale + np.asarray(box) / 2
    needed = half[:, None] + half[None] + gap
    first = np.where(np.tri(len(placed), dtype=bool), 1.0, -1.0)[..., None]  # of two on the same place, goes ahead
    for _ in range(300):
        apart = placed[:, None] - placed[None]
        missing = needed - np.abs(apart)
        overlap = (missing > 1e-6).all(axis=2)
        np.fill_diagonal(overlap, val=False)
        if not overlap.any():
            break
        # Mostly along the shorter way, and a little further than needed: otherwise nodes in a row jam.
        share = missing[..., ::-1] ** 2 / (missing**2).sum(axis=2, keepdims=True)
        push = overlap[..., None] * share * np.where(apart == 0, first, np.sign(apart)) * (missing + 0.25 * gap)
        placed = np.clip(placed + 0.5 * push.sum(axis=1), half + gap, np.asarray(box) - half - gap)
    return placed


def outline(centre: FloatArray, half: FloatArray, power: float, *, n: int = 60) -> FloatArray:
    """Points (n, 2) of the superellipse |x / a|^p + |y / b|^p = 1: an ellipse for p = 2, a soft rectangle for 6."""
    angle = np.linspace(0, 2 * np.pi, n, endpoint=False)
    unit = np.column_stack([np.cos(angle), np.sin(angle)])
    return centre + half * np.sign(unit) * np.abs(unit) ** (2 / power)


def is_within(points: FloatArray, centre: FloatArray, half: FloatArray, power: float) -> NDArray[np.bool_]:
    """Return whether points (..., 2) lie within a superellipse."""
    inside: NDArray[np.bool_] = (np.abs((points - centre) / half) ** power).sum(axis=-1) < 1
    return inside


def curve_of(
    ends: tuple[int, int],
    positions: FloatArray,
    half: FloatArray,
    powers: FloatArray,
    *,
    is_pair: bool,
    head: float,
    margin: float = 1.5,
) -> FloatArray:
    """Quadratic Bézier curve (3, 2) from the outline of one node to that of another, around the nodes in between.

    Of several bends the smallest is taken that crosses the fewest other nodes; with an edge in the other direction too the
    edge is bent to its right. The part of the curve B between the outlines, from s to t, has the control points B(s),
    (1-s)(1-t) p0 + (s + t - 2 s t) p1 + s t p2, and B(t). Nodes have a centre, half a width and height, and a power; ``head``
    and ``margin`` are the room between the edge and the outlines, of its target and of other nodes.
    """
    source, target = ends
    first = _aim(positions[source], half[source], positions[target])
    last = _aim(positions[target], half[target], positions[source])
    along = last - first
    across = np.array([along[1], -along[0]])
    others = np.setdiff1d(np.arange(len(positions)), ends)
    low, high = np.minimum(first, last) - 0.4 * np.abs(along).max(), np.maximum(first, last) + 0.4 * np.abs(along).max()
    near = others[((positions[others] + half[others] > low) & (positions[others] - half[others] < high)).all(axis=1)]
    best = (math.inf, (first + last) / 2)
    for bend in _BENDS_OF_PAIRS if is_pair else _BENDS:
        control = (first + last) / 2 + bend * across
        points = _quadratic(first, control, last, np.linspace(0, 1, 61))
        scaled = np.abs((points[:, None] - positions[near]) / (half[near] + margin))
        hits = int(((scaled ** powers[near][None, :, None]).sum(axis=2) < 1).any(axis=0).sum())
        cost = hits + abs(bend)
        if cost < best[0]:
            best = (cost, control)
        if hits == 0:
            break
    control = best[1]
    t = np.linspace(0, 1, 1001)
    points = _quadratic(first, control, last, t)
    free = ~is_within(points, positions[source], half[source] + margin, powers[source])
    free &= ~is_within(points, positions[target], half[target] + head, powers[target])
    s, e = t[np.flatnonzero(free)[[0, -1]]] if free.sum() > 1 else (0.45, 0.55)
    middle = (1 - s) * (1 - e) * first + (s + e - 2 * s * e) * control + s * e * last
    begin, end = _quadratic(first, control, last, np.array([s, e]))
    return np.stack([begin, middle, end])


def _aim(centre: FloatArray, half: FloatArray, toward: FloatArray) -> FloatArray:
    """Move from the centre of a wide node towards where an edge comes from, so that heads share its long sides."""
    room = max(0.7 * float(half[0] - half[1]), 0.0)
    return centre + [float(np.clip(0.2 * (toward[0] - centre[0]), -room, room)), 0.0]


def _quadratic(first: FloatArray, control: FloatArray, last: FloatArray, t: FloatArray) -> FloatArray:
    """Points (n, 2) of a quadratic Bézier curve at t (n,)."""
    t = t[:, None]
    points: FloatArray = (1 - t) ** 2 * first + 2 * t * (1 - t) * control + t**2 * last
    return points


def loop_of(node: int, neighbours: Sequence[int], positions: FloatArray, half: FloatArray, power: float) -> FloatArray:
    """Cubic Bézier curve (4, 2) of an edge from a node to itself, where its other edges leave most room."""
    centre = positions[node]
    if len(neighbours):
        angles = np.sort(np.arctan2(*(positions[list(neighbours)] - centre).T[::-1]))
        gaps = np.diff(np.append(angles, angles[0] + 2 * np.pi))
        middle = float(angles[gaps.argmax()] + gaps.max() / 2)
    else:
        middle = np.pi / 2

    def at(angle: float) -> FloatArray:
        unit = np.array([math.cos(angle), math.sin(angle)])
        radius = (np.abs(unit / (half[node] + 1.5)) ** power).sum() ** (-1 / power)
        point: FloatArray = centre + radius * unit
        return point

    # A cubic curve reaches 3/4 of the way to its inner control points.
    spread = min(0.6, 5.0 / float(half[node].min()))
    begin, end, out = at(middle + spread), at(middle - spread), np.array([math.cos(middle), math.sin(middle)])
    side = np.array([-out[1], out[0]])
    return np.stack([begin, begin + LOOP * (4 / 3 * out + 0.6 * side), end + LOOP * (4 / 3 * out - 0.6 * side), end])
