"""The regulators of a graph, ranked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from perturbflow._checks import check_one_of, check_whole_number
from perturbflow.pl._drawing import DARK, drawing, finish
from perturbflow.pl._dynamics_results import strongest_edges
from perturbflow.pl._graph_style import COLORS, SIGNS
from perturbflow.pl._shown_and_saved import plot

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData


@plot
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
    adata
        Cells with a graph (:func:`perturbflow.tl.infer_graph`).
    top
        Draw at most this many regulators.
    key
        The graph in ``adata.uns``.
    by
        Rank by the whole length of the bar, or by the number of targets, and then by the length.

    Raises
    ------
    KeyError
        If there is no graph, with the call that makes it.
    ValueError
        If an option is out of range.

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

    places = np.arange(len(table))
    with drawing(ax, figsize=(4.8, 1.0 + 0.22 * max(len(table), 3))) as ax:
        finish(ax, "regulators")
        if table.empty:
            ax.text(0.5, 0.5, "no edges", transform=ax.transAxes, ha="center", va="center", color=DARK)
            ax.set(xticks=[], yticks=[])
            return ax
        start = np.zeros(len(table))
        for sign, name in SIGNS.items():
            width = table[sign].to_numpy()
            ax.barh(places, width, left=start, height=0.72, color=COLORS[sign], label=name)
            start = start + width
        for place, end, number in zip(places, start, table["n_targets"], strict=True):
            ax.annotate(
                f"{number:,}",
                (end, place),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize="x-small",
                color=DARK,
            )
        ax.set(xlabel="sum of confidence × |weight| over targets", ylim=(len(table) - 0.4, -0.6))
        ax.set_xlim(0, 1.1 * start.max() or 1.0)
        ax.set_yticks(places, table.index.astype(str).tolist(), fontsize="small")
        ax.tick_params(axis="y", length=0)
        ax.legend(
            frameon=False,
            fontsize="small",
            loc="upper left",
            bbox_to_anchor=(1.0, 1.0),
            title="number: targets",
            title_fontsize="x-small",
            alignment="left",
        )
    return ax
