"""Plot of the stability of edges, from the most evidence to the least."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from perturbflow._checks import check_whole_number
from perturbflow.pl._drawing import BLUE, DARK, GREY, VERMILLION, drawing, finish
from perturbflow.pl._dynamics_results import ranked_pairs
from perturbflow.pl._shown_and_saved import plot

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData

COLORS = {1: BLUE, -1: VERMILLION, 0: GREY}
NAMES = {1: "activates", -1: "represses", 0: "not in the graph"}
SHOWN = 4  # times the number of edges of the graph, of pairs that are drawn
FEWEST = 30


@plot
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
    adata
        Cells with a graph (:func:`perturbflow.tl.infer_graph`).
    top
        Pairs to show; by default four times as many as the graph has edges, and no fewer than 30.
    key
        The graph in ``adata.uns``.

    Raises
    ------
    KeyError
        If there is no graph, with the call that makes it.
    ValueError
        If ``top`` is no positive number.

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
    shown = pairs.iloc[: max(SHOWN * n_kept, FEWEST) if top is None else top]
    sign = np.where(shown["kept"], shown["sign"], 0)
    with drawing(ax, figsize=(4.6, 2.8)) as ax:
        for value, color in COLORS.items():
            rows = np.flatnonzero(sign == value)
            if len(rows):
                ax.scatter(
                    rows + 1, shown["confidence"].iloc[rows], s=14, color=color, label=NAMES[value], clip_on=False
                )
        ax.axhline(0.5, color=DARK, linestyle=":", linewidth=1)
        ax.set(xlim=(0.5, max(len(shown), 1) + 0.5), ylim=(0, 1), xlabel="rank by evidence", ylabel="confidence")
        if len(shown):
            ax.legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
        sure = int((shown["confidence"] >= 0.5).sum())
        finish(ax, f"{n_kept:,} of {len(pairs):,} pairs are edges, {sure:,} shown are sure")
    return ax
