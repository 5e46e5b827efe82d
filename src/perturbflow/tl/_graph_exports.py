"""Graphs of regulation for other packages: tables, and networkx with its files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import pandas as pd

from perturbflow._checks import check_between, check_one_of
from perturbflow.predict._dynamics_store import read_edges
from perturbflow.screen._modality import takes_modality
from perturbflow.tl._common import of_graph

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData
    from networkx import DiGraph

FORMATS = ("decoupler", "celloracle")
VALUES = ("weight", "sign", "confidence", "evidence")
PART = "acts_through"  # column of the edges of a second-order field: the level of the source, or its rate


@takes_modality
@of_graph
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
    format
        "decoupler": ``source``, ``target`` and ``weight``, for ``net`` of its methods. "celloracle": one row per target, with
        ``peak_id``, ``gene_short_name`` and a column of 0 and 1 for every regulator, for ``TF_info_matrix`` of its
        ``Oracle.import_TF_data``; there are no peaks, the names of genes stand for them, and signs are left out, since
        CellOracle fits its own.

    Returns
    -------
    The table. Edges of a second-order field count once, by the larger weight. A gene's edge to itself is left out.

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
    edges = edges.sort_values("weight", key=abs, ascending=False, kind="stable").drop_duplicates(["source", "target"])
    edges = edges[["source", "target", "weight"]].astype({"source": str, "target": str}).reset_index(drop=True)
    if format == "decoupler":
        return edges
    table = pd.crosstab(edges["target"], edges["source"]).clip(upper=1)
    table = table.rename_axis(columns=None).reset_index(names="gene_short_name")
    table.insert(0, "peak_id", table["gene_short_name"])
    return table


@takes_modality
@of_graph
def to_networkx(
    adata: AnnData | MuData, *, key: str = "dynamics_graph", min_confidence: float = 0.0, modality: str | None = None
) -> DiGraph:
    """Return an inferred graph as a graph of networkx, for its algorithms and for files that other programs read.

    All values are plain numbers and text, so that ``networkx.write_graphml`` writes them (for Cytoscape, Gephi, igraph).
    :func:`perturbflow.pp.setup_dynamics` takes such a graph as its ``prior``.

    Returns
    -------
    A directed graph from regulators to targets, whose nodes are all genes in the order of ``adata.var_names``, also
    those without edges. Its edges have ``weight``, ``sign`` (1 activates, -1 represses), ``confidence`` and ``evidence``;
    see :func:`perturbflow.tl.infer_graph`. Edges of genes that are no longer in ``adata`` are left out. The graph of a
    second-order field may have two edges from one gene to another: it is a ``MultiDiGraph``, whose keys say whether an
    edge acts through the "level" or the "rate" of its source.

    Examples
    --------
    >>> import perturbflow as pf
    >>> adata = pf.datasets.hill_network(n_genes=5, n_trajectories=6, n_times=20)
    >>> pf.pp.setup_dynamics(adata, time_key="time", trajectory_key="trajectory")
    >>> pf.tl.infer_graph(adata, method="partial_correlation")
    >>> graph = pf.tl.to_networkx(adata)
    >>> list(graph)
    ['gene0', 'gene1', 'gene2', 'gene3', 'gene4']
    >>> sorted(graph.edges["gene0", "gene1"])
    ['confidence', 'evidence', 'sign', 'weight']
    """
    import networkx as nx

    check_between(min_confidence, 0, 1, name="min_confidence")
    edges = read_edges(adata, key)

    genes = list(map(str, adata.var_names))
    edges = edges[edges[["source", "target"]].isin(genes).all(axis=1) & (edges["confidence"] >= min_confidence)]
    is_second_order = PART in edges
    graph = nx.MultiDiGraph() if is_second_order else nx.DiGraph()
    graph.add_nodes_from(genes)
    ends = edges[["source", "target", *([PART] if is_second_order else [])]].astype(str)
    # `to_dict` gives plain values, which is what files of graphs can hold.
    values = edges[[name for name in VALUES if name in edges]].to_dict("records")
    graph.add_edges_from((*names, row) for names, row in zip(ends.itertuples(index=False), values, strict=True))
    return graph
