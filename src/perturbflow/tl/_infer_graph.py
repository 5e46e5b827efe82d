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
    r"""Infer the signed gene-dependency graph: which gene regulates which, how strongly, and with what confidence.

    The weight of an edge from j to i is :math:`E|\partial f_i / \partial x_j| \cdot s_j / s_i`, with the sign of the mean
    derivative over the observed states, in units of the genes' spreads s and of the time scale of the fit. Its confidence is
    the fraction of fits to bootstraps of the trajectories, with different seeds, that support it (stability selection):
    the edge is kept, and the error is at least a third larger without it.

    If trajectories are means of at least two cells per time or bin, the covariation of these cells is lost in the fit and is
    added to the evidence. Pairs are ranked by the weighted mean of two ranks: that of the fit, with weight n, and that of
    :func:`perturbflow.dynamics.snapshot_evidence`, with weight 2p, for a total of n times or bins and p regulators.

    For cells at steady state, registered without a time, the confidence is the fraction of random halves of the cells (every
    other one converted to ranks) in which the edge is among those with the strongest evidence; see
    :func:`perturbflow.dynamics.edge_stability`. For edges from regulators that were never perturbed, it is two thirds of this
    fraction, because only about that many reproducible edges are true, or half if the edge could equally point in the other
    direction. Edges with a confidence of at least 0.5 are kept. The weight is the evidence, with the sign of the effect.

    A graph is a statement about the model: j changes the rate of i at the observed levels, given all other regulators.
    It is not evidence of binding, and the effect of an unmeasured regulator is attributed to genes correlated with it.

    Parameters
    ----------
    method
        "jacobian", as above; "gates", the weights of paths times the open gates, with the sign of the Jacobian; or one
        of the baselines "correlation" and "partial_correlation", which use neither time nor the fit. The absolute value
        of a baseline is also its confidence.
    n_bootstraps
        Number of additional fits; with 0, the edges of the fit itself have confidence 1. For cells at steady state, number
        of halves; with 0, an edge for every pair of gene and regulator is kept, with confidence 1.
    n_jobs
        Number of fits in parallel, as in joblib: -1 for all processors, or the backend of a ``joblib.parallel_config``.
    seed
        Random seed of the bootstraps.
    progress_bar
        Whether to show the progress of the additional fits, or halves.

    Returns
    -------
    None, or the copy. Sets:

    `adata.varp["dynamics_graph" | key_added]` : CSR, float32
        Signed weights; the row regulates the column. :func:`perturbflow.tl.to_networkx` converts it to a graph.
    `adata.varp["dynamics_graph_evidence"]` : CSR, float32
        Evidence that ranks all candidate edges, including those that are not kept.
    `adata.uns["dynamics_graph" | key_added]` : dict
        ``edges`` (source, target, weight, sign, confidence, evidence, kept), ``method`` and ``parameters``. The table
        ranks all pairs of a regulator and another gene, with the strongest evidence first. ``kept`` marks the edges of the
        graph, which plots, :func:`perturbflow.tl.to_networkx` and :func:`perturbflow.tl.graph_table` use. A graph can be
        empty, with a warning. For second-order fields, a further column says whether an edge acts through the level or the
        rate of the source, and ``varp["dynamics_graph_rate"]`` contains the latter.

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
            f"Expected `method` to be 'jacobian' for cells at steady state, found {method!r}. Omit it; "
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
