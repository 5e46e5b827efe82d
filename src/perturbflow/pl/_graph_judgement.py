"""Graphs in figures but as graphs: their regulators, stable edges, what they share, and how they meet a known one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from perturbflow._checks import check_between, check_key, check_one_of, check_whole_number
from perturbflow.metrics._network import EdgePairs
from perturbflow.pl._drawing import (
    BLUE,
    DARK,
    GREY,
    VERMILLION,
    drawing,
    finish,
    legend_above,
    legend_beside,
    model_colors,
    name_rows,
    of_graph,
    plot,
    text_behind,
)
from perturbflow.pl._dynamics_results import as_list, ranked_pairs, strongest_edges
from perturbflow.pl._graph_style import COLORS, SIGNS

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData
    from numpy.typing import NDArray

_KINDS = {1: (BLUE, "activates"), -1: (VERMILLION, "represses"), 0: (GREY, "not in the graph")}
_SHOWN = 4  # times the number of edges of the graph, of pairs that are drawn
_FEWEST = 30


@plot
@of_graph
def regulators(
    adata: AnnData | MuData,
    *,
    top: int = 20,
    key: str = "dynamics_graph",
    by: Literal["weight", "n_targets"] = "weight",
    modality: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: bool | str | None = None,
) -> Axes:
    """Rank regulators by what goes out from them, best on top.

    The bars are sums over the targets of confidence times absolute weight, activation and repression one after the
    other; the number behind them is that of the targets. An edge of a gene to itself is left out.

    Parameters
    ----------
    top
        Draw at most this many regulators.
    by
        Rank by the whole length of the bar, or by the number of targets, and then by the length.

    Examples
    --------
    >>> import perturbflow as pf
    >>> adata = pf.datasets.hill_network(n_genes=5, n_trajectories=6, n_times=20)
    >>> pf.pp.setup_dynamics(adata, time_key="time", trajectory_key="trajectory")
    >>> pf.tl.infer_graph(adata, method="partial_correlation")
    >>> ax = pf.pl.regulators(adata, top=3)
    >>> len(ax.get_yticks())
    3
    """
    check_whole_number(top, name="top", least=1)
    check_one_of(by, ("weight", "n_targets"), name="by")
    edges = strongest_edges(adata, key)
    edges = edges[edges["source"] != edges["target"]]
    table = edges.pivot_table(index="source", columns="sign", values="strength", aggfunc="sum", fill_value=0.0)
    table = table.reindex(columns=list(SIGNS), fill_value=0.0)
    table["weight"] = table[list(SIGNS)].sum(axis=1)
    table["n_targets"] = edges.groupby("source")["target"].nunique()
    order = [by, "weight"] if by == "n_targets" else [by]
    table = table.sort_values(order, ascending=False, kind="stable").iloc[:top]

    with drawing(ax, figsize=(4.8, 1.0 + 0.22 * max(len(table), 3))) as ax:
        finish(ax, "regulators")
        if table.empty:
            ax.text(0.5, 0.5, "no edges", transform=ax.transAxes, ha="center", va="center", color=DARK)
            ax.set(xticks=[], yticks=[])
            return ax
        start = np.zeros(len(table))
        for sign, name in SIGNS.items():
            width = table[sign].to_numpy()
            ax.barh(np.arange(len(table)), width, left=start, height=0.72, color=COLORS[sign], label=name)
            start = start + width
        text_behind(ax, start, [f"{number:,}" for number in table["n_targets"]], fontsize="x-small")
        ax.set(xlabel="sum of confidence × |weight| over targets", xlim=(0, 1.1 * start.max() or 1.0))
        name_rows(ax, table.index.astype(str).tolist())
        legend_beside(ax, title="number: targets")
    return ax


@plot
@of_graph
def edge_stability(
    adata: AnnData | MuData,
    *,
    top: int | None = None,
    key: str = "dynamics_graph",
    modality: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: bool | str | None = None,
) -> Axes:
    """Confidence of pairs of genes in the order of their evidence.

    Where evidence and stability agree, points fall from left to right. Sure edges with little evidence, and the other
    way, are worth a look. Grey pairs are ranked but not in the graph.

    Parameters
    ----------
    top
        Pairs to show; by default four times as many as the graph has edges, and no fewer than 30.

    Examples
    --------
    >>> import perturbflow as pf
    >>> adata = pf.datasets.hill_network(n_genes=5, n_trajectories=6, n_times=20)
    >>> pf.pp.setup_dynamics(adata, time_key="time", trajectory_key="trajectory")
    >>> pf.tl.infer_graph(adata, method="partial_correlation")
    >>> pf.pl.edge_stability(adata).get_ylabel()
    'confidence'
    """
    if top is not None:
        check_whole_number(top, name="top", least=1)
    pairs = ranked_pairs(adata, key)
    n_kept = int(pairs["kept"].sum())
    shown = pairs.iloc[: max(_SHOWN * n_kept, _FEWEST) if top is None else top]
    sign = np.where(shown["kept"], shown["sign"], 0)
    with drawing(ax, figsize=(4.6, 2.8)) as ax:
        for value, (color, name) in _KINDS.items():
            rows = np.flatnonzero(sign == value)
            if len(rows):
                ax.scatter(rows + 1, shown["confidence"].iloc[rows], s=14, color=color, label=name, clip_on=False)
        ax.axhline(0.5, color=DARK, linestyle=":", linewidth=1)
        ax.set(xlim=(0.5, max(len(shown), 1) + 0.5), ylim=(0, 1), xlabel="rank by evidence", ylabel="confidence")
        if len(shown):
            legend_beside(ax)
        sure = int((shown["confidence"] >= 0.5).sum())
        finish(ax, f"{n_kept:,} of {len(pairs):,} pairs are edges; {sure:,} of those shown are confident")
    return ax


@plot
def graph_comparison(
    adata: AnnData | MuData,
    keys: Sequence[str],
    *,
    min_confidence: float = 0.5,
    modality: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: bool | str | None = None,
) -> Axes:
    """Shared edges of every two graphs: how many, what share of all that either has, and how many signs agree.

    Parameters
    ----------
    adata
        Cells with graphs (:func:`perturbflow.tl.infer_graph` with a ``key_added`` of its own for each).
    keys
        The graphs in ``adata.uns``, two or more.
    min_confidence
        Compare edges of at least this confidence.

    Returns
    -------
    The Axes. Its image has the shares.

    Examples
    --------
    >>> import perturbflow as pf
    >>> adata = pf.datasets.hill_network(n_genes=5, n_trajectories=6, n_times=20)
    >>> pf.pp.setup_dynamics(adata, time_key="time", trajectory_key="trajectory")
    >>> for method in ("correlation", "partial_correlation"):
    ...     pf.tl.infer_graph(adata, method=method, key_added=method)
    >>> ax = pf.pl.graph_comparison(adata, ["correlation", "partial_correlation"], min_confidence=0.2)
    >>> ax.images[0].get_array().shape
    (2, 2)
    """
    check_between(min_confidence, 0, 1, name="min_confidence")
    names = as_list(keys, parameter="keys")
    if len(names) < 2:
        msg = f"Expected at least 2 graphs in `keys`, found {names}. Infer another with `key_added`."
        raise ValueError(msg)
    signs = []
    for name in names:
        edges = strongest_edges(adata, name)
        edges = edges[edges["confidence"] >= min_confidence]
        signs.append(dict(zip(zip(edges["source"], edges["target"], strict=True), edges["sign"], strict=True)))
    share = np.zeros((len(names), len(names)))
    texts = [["" for _ in names] for _ in names]
    for row, one in enumerate(signs):
        for column, other in enumerate(signs):
            shared = one.keys() & other.keys()
            agree = sum(one[edge] == other[edge] for edge in shared)
            share[row, column] = len(shared) / max(len(one.keys() | other.keys()), 1)
            texts[row][column] = f"{len(one):,}" if row == column else f"{len(shared):,}\n{agree:,} same sign"
    side = 1.1 + 0.95 * len(names)
    with drawing(ax, figsize=(side + 1.2, side)) as ax:
        image = ax.imshow(share, vmin=0, vmax=1, cmap="Blues")
        for row, line in enumerate(texts):
            for column, text in enumerate(line):
                color = "white" if share[row, column] > 0.6 else DARK
                ax.text(column, row, text, ha="center", va="center", fontsize="small", color=color)
        places = np.arange(len(names))
        ax.set_xticks(places, names, rotation=30, ha="right")
        ax.set_yticks(places, names)
        ax.figure.colorbar(image, ax=ax, label="shared edges / all edges", shrink=0.8)
        finish(ax, f"edges of confidence ≥ {min_confidence:g}")
    return ax


@plot
def precision_recall(
    adata: AnnData | MuData,
    truth_key: str,
    *,
    keys: str | Sequence[str] = "dynamics_graph",
    modality: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: bool | str | None = None,
) -> Axes:
    """Precision against recall of the ranked pairs of graphs, beside a known network.

    Pairs of the same evidence are taken together. The dotted line is chance, the share of pairs that are true; the legend
    has the area under every curve over chance. Edges of a gene to itself do not count.

    Parameters
    ----------
    adata
        Cells with graphs (:func:`perturbflow.tl.infer_graph`).
    truth_key
        Known network in ``adata.varp``; row regulates column, and what is not 0 is an edge.
    keys
        The graphs in ``adata.uns``.

    Raises
    ------
    KeyError
        If there is no such graph or network.
    ValueError
        If the network has no edge among the ranked pairs, or only edges.

    Examples
    --------
    >>> import perturbflow as pf
    >>> adata = pf.datasets.hill_network(n_genes=5, n_trajectories=6, n_times=20)
    >>> pf.pp.setup_dynamics(adata, time_key="time", trajectory_key="trajectory")
    >>> pf.tl.infer_graph(adata, method="partial_correlation")
    >>> ax = pf.pl.precision_recall(adata, "true_graph")
    >>> len(ax.lines)
    2
    """
    check_key(truth_key, adata.varp, where="adata.varp", hint="Store the known network there; rows regulate columns.")
    truth = adata.varp[truth_key]
    truth = np.asarray(truth.toarray() if hasattr(truth, "toarray") else truth)
    names = as_list(keys, parameter="keys")
    graphs = {name: _judged(ranked_pairs(adata, name), truth, adata.var_names, key=name) for name in names}
    colors = model_colors(names, lambda name: True)
    with drawing(ax, figsize=(3.6, 3.2)) as ax:
        for name, judged in graphs.items():
            precision, recall = judged.precision_and_recall()
            chance = judged.is_edge.mean()
            ratio = (np.diff(recall, prepend=0) * precision).sum() / chance
            ax.plot(recall, precision, color=colors[name], label=f"{name}: {ratio:.2f} × chance")
        ax.axhline(chance, color=DARK, linestyle=":", linewidth=1)
        ax.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
        legend_above(ax, f"edges of {truth_key}", n_lines=len(names), ncols=1)
    return ax


def _judged(pairs: pd.DataFrame, truth: NDArray[np.float64], genes: pd.Index, *, key: str) -> EdgePairs:
    """Ranked pairs beside what is known of them."""
    source, target = genes.get_indexer(pairs["source"]), genes.get_indexer(pairs["target"])
    judged = EdgePairs(pairs["evidence"].to_numpy(dtype=float), truth[source, target], source, target)
    if not judged.is_edge.any() or judged.is_edge.all():
        msg = (
            f"Expected true and false edges among the {len(pairs)} pairs of `adata.uns[{key!r}]`, found "
            f"{int(judged.is_edge.sum())} true ones. Check that the known network and the graph share genes."
        )
        raise ValueError(msg)
    return judged
