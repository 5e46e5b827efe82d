"""Plot of the edges that graphs have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from perturbflow._checks import check_between
from perturbflow.pl._drawing import DARK, drawing, finish
from perturbflow.pl._dynamics_results import as_list, strongest_edges
from perturbflow.pl._shown_and_saved import plot

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData

FEWEST = 2  # graphs


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

    Raises
    ------
    KeyError
        If there is no such graph, with the call that makes it.
    ValueError
        If there are fewer than two graphs, or ``min_confidence`` is out of range.

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
    if len(names) < FEWEST:
        msg = f"Expected at least {FEWEST} graphs in `keys`, found {names}. Infer another with `key_added`."
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
        ax.figure.colorbar(image, ax=ax, label="shared, of edges of either", shrink=0.8)
        finish(ax, f"edges of confidence ≥ {min_confidence:g}")
    return ax
