"""Graphs of regulation as the tables that other packages read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import pandas as pd

from perturbflow._checks import check_between, check_one_of
from perturbflow.predict._dynamics_store import read_edges
from perturbflow.screen._modality import takes_modality

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

FORMATS = ("decoupler", "celloracle")


@takes_modality
def graph_table(
    adata: AnnData | MuData,
    *,
    format: Literal["decoupler", "celloracle"] = "decoupler",
    min_confidence: float = 0.5,
    key: str = "dynamics_graph",
    modality: str | None = None,
) -> pd.DataFrame:
    """Return the edges of an inferred graph as a network of decoupler or CellOracle.

    Parameters
    ----------
    adata
        Cells with a graph (:func:`perturbflow.tl.infer_graph`).
    format
        "decoupler": ``source``, ``target`` and ``weight``, for ``net`` of its methods. "celloracle": one row per target, with
        ``peak_id``, ``gene_short_name`` and a column of 0 and 1 for every regulator, for ``TF_info_matrix`` of its
        ``Oracle.import_TF_data``; there are no peaks, the names of genes stand for them, and signs are left out, since
        CellOracle fits its own.
    min_confidence
        Take edges of at least this confidence.
    key
        The graph in ``adata.uns``.

    Returns
    -------
    The table. Edges of a second-order field count once, by the larger weight. A gene's edge to itself is left out.

    Raises
    ------
    KeyError
        If there is no graph, with the call that makes it.
    ValueError
        If ``format`` or ``min_confidence`` is wrong.

    Examples
    --------
    >>> import perturbflow as pf
    >>> adata = pf.datasets.hill_network(n_genes=5, n_trajectories=6, n_times=20)
    >>> pf.pp.setup_dynamics(adata, time_key="time", trajectory_key="trajectory")
    >>> pf.tl.infer_graph(adata, method="partial_correlation")
    >>> list(pf.tl.graph_table(adata, min_confidence=0.1))
    ['source', 'target', 'weight']
    """
    check_one_of(format, FORMATS, name="format")
    check_between(min_confidence, 0, 1, name="min_confidence")
    edges = read_edges(adata, key)
    edges = edges[
        (edges["confidence"] >= min_confidence) & (edges["source"] != edges["target"]) & (edges["weight"] != 0)
    ]
    order = edges["weight"].abs().sort_values(ascending=False, kind="stable").index
    edges = edges.loc[order].drop_duplicates(["source", "target"])
    edges = edges[["source", "target", "weight"]].astype({"source": str, "target": str}).reset_index(drop=True)
    if format == "decoupler":
        return edges
    table = pd.crosstab(edges["target"], edges["source"]).clip(upper=1)
    table = table.rename_axis(columns=None).reset_index(names="gene_short_name")
    table.insert(0, "peak_id", table["gene_short_name"])
    return table
