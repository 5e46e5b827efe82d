"""Read which gene drives which from fitted dynamics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from scipy import sparse

from perturbflow._checks import check_n_jobs, check_one_of, check_whole_number
from perturbflow._progress import shows_progress, stage
from perturbflow.predict._dynamics_store import has_standing, read_dynamics, read_standing
from perturbflow.screen._modality import takes_modality
from perturbflow.store._keys import check_key_added
from perturbflow.tl._common import of_dynamics, written
from perturbflow.trajectories._fields import read_dynamics_fields
from perturbflow.trajectories._snapshot_fields import is_snapshot

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData


SUFFIXES = ("", "_evidence", "_rate")


@takes_modality
@of_dynamics
@shows_progress("infer graph")
def infer_graph(
    adata: AnnData | MuData,
    *,
    method: Literal["jacobian", "gates", "correlation", "partial_correlation"] = "jacobian",
    n_bootstraps: int = 10,
    n_jobs: int = 1,
    seed: int = 0,
    progress_bar: bool = True,
    key: str = "dynamics",
    key_added: str = "dynamics_graph",
    modality: str | None = None,
    copy: bool = False,
) -> AnnData | MuData | None:
    r"""Infer the signed gene-dependency graph: which gene drives which, how strongly, and how sure that is.

    The weight of an edge from j to i is :math:`E|\partial f_i / \partial x_j| \cdot s_j / s_i` with the sign of
    the mean, over the observed states, in units of the genes' spreads s and of the time scale of the fit. Its confidence
    is the share of fits, to bootstraps of the trajectories and with other seeds, that are sure of it (stability selection): that keep
    it and whose error is at least a third larger without it.

    Where trajectories are means of at least two cells per time or bin, how these cells covary is lost in the fit, and joins the
    evidence: pairs are ranked by the mean of their rank by the fit, with weight n, and that by
    :func:`perturbflow.dynamics.snapshot_evidence`, with weight 2p, for n times or bins in all and p regulators.

    Of cells at rest, registered without a time, the confidence is the share of halves of the cells, half of them seen as ranks, in which the edge
    is among those of most evidence (see :func:`perturbflow.dynamics.edge_stability`); of edges from a regulator that was never perturbed it is two thirds of that, since about
    as many of those that always come back are true, or half where the edge could as well point the other way. Edges
    from 0.5 on are kept. The weight is its evidence, with the sign of its effect.

    A graph is a statement about the model: j changes the rate of i at the observed levels, given all other regulators.
    It is no proof of binding, and a regulator that was not measured is blamed on those that go with it.

    Parameters
    ----------
    method
        "jacobian", as above; "gates", the weights of paths times the gates that are open, with the sign of the
        Jacobian; or a baseline that knows neither time nor the fit: "correlation" and "partial_correlation", whose
        absolute value is also their confidence.
    n_bootstraps
        Number of further fits; 0 takes the edges of the fit itself with confidence 1. Of cells at rest, number of halves;
        without any, an edge for every gene and regulator is kept, with confidence 1.
    n_jobs
        Fits side by side, as in joblib: -1 for all processors, or the backend of a ``joblib.parallel_config``.
    seed
        Seed of the bootstraps.
    progress_bar
        Whether to show how many of the further fits, or halves, are done.

    Returns
    -------
    None, or the copy. Sets:

    `adata.varp["dynamics_graph" | key_added]` : CSR, float32
        Signed weights; row regulates column. :func:`perturbflow.tl.to_networkx` makes a graph of it.
    `adata.varp["dynamics_graph_evidence"]` : CSR, float32
        What ranks all candidate edges, also those left out.
    `adata.uns["dynamics_graph" | key_added]` : dict
        ``edges`` (source, target, weight, sign, confidence, evidence, kept), ``method`` and ``parameters``. The table
        ranks all pairs of a regulator and another gene, those of most evidence first; ``kept`` says which of them the graph
        has: plots, :func:`perturbflow.tl.to_networkx` and :func:`perturbflow.tl.graph_table` take these. A graph without
        edges is possible, and a warning says so. For a second-order field the edges also say whether they act through the
        level or the rate of the source, and ``varp["dynamics_graph_rate"]`` has the latter.

    Notes
    -----
    Stability selection after Meinshausen and Bühlmann (2010), *J. R. Stat. Soc. B* 72, 417.

    Examples
    --------
    >>> import perturbflow as pf
    >>> adata = pf.datasets.hill_network(n_genes=5, n_trajectories=6, n_times=20)
    >>> pf.pp.setup_dynamics(adata, time_key="time", trajectory_key="trajectory")
    >>> pf.tl.infer_graph(adata, method="partial_correlation")
    >>> adata.varp["dynamics_graph"].shape
    (5, 5)
    """
    stage("loading torch")
    from perturbflow.train._graph import (  # here, because it loads torch
        FITTED,
        STATIC,
        fitted_graph,
        standing_graph,
        static_graph,
    )

    check_one_of(method, (*FITTED, *STATIC), name="method")
    check_whole_number(n_bootstraps, name="n_bootstraps")
    check_n_jobs(n_jobs)
    check_whole_number(seed, name="seed")
    names = [f"{key_added}{suffix}" for suffix in SUFFIXES]
    check_key_added(adata, key_added, "dynamics_graph", beside=[("varp", name) for name in names])
    if method != "jacobian" and (is_snapshot(adata) or has_standing(adata, key)):
        msg = (
            f"Expected `method` to be 'jacobian' for cells at rest, found {method!r}. Leave it out; "
            "`pf.baselines.partial_correlation_graph` and the like take an array."
        )
        raise ValueError(msg)
    if has_standing(adata, key):
        standing = read_standing(adata, key)
        graph = standing_graph(
            adata, standing, n_halves=n_bootstraps, n_jobs=n_jobs, seed=seed, progress_bar=progress_bar
        )
        genes, parameters = standing.genes, {"key": key, "n_bootstraps": n_bootstraps, "seed": seed}
    elif method in STATIC:
        graph = static_graph(adata, read_dynamics_fields(adata), method=method)
        genes, parameters = list(map(str, adata.var_names)), {}
    else:
        stored = read_dynamics(adata, key)
        graph = fitted_graph(
            adata,
            stored,
            method=method,
            n_bootstraps=n_bootstraps,
            n_jobs=n_jobs,
            seed=seed,
            progress_bar=progress_bar,
        )
        genes, parameters = stored.genes, {"key": key, "n_bootstraps": n_bootstraps, "seed": seed}
    position = adata.var_names.get_indexer(genes)
    place = sparse.csr_matrix(
        ([1.0] * len(genes), (range(len(genes)), position)), shape=(len(genes), adata.n_vars), dtype="float32"
    )
    matrices = {
        name: (place.T @ sparse.csr_matrix(matrix.astype("float32")) @ place).tocsr()
        for name, matrix in zip(names, (graph.weight, graph.evidence, graph.rate_weight), strict=True)
        if matrix is not None
    }
    record = {"edges": graph.edges(genes), "method": method, "parameters": parameters}
    earlier = (key_added, "dynamics_graph")  # one of second order has a matrix more
    return written(adata, copy=copy, replaces=earlier, varp=matrices, uns={key_added: record})
