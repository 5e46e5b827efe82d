"""Plot of precision and recall of graphs whose truth is known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from perturbflow._checks import check_key
from perturbflow.metrics._edge_pairs import EdgePairs
from perturbflow.pl._drawing import DARK, drawing, legend_above, model_colors
from perturbflow.pl._dynamics_results import as_list, ranked_pairs
from perturbflow.pl._shown_and_saved import plot

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData
    from numpy.typing import NDArray


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
    check_key(truth_key, adata.varp, where="adata.varp", hint="Put the known network there; row regulates column.")
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
            f"{int(judged.is_edge.sum())} true ones. Check which genes the known network and the graph have in common."
        )
        raise ValueError(msg)
    return judged
