"""The 350-gene yeast network of Hill functions, simulated from its published equations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import ArrayLike
from scipy import sparse

from perturbflow._checks import check_between, check_whole_number
from perturbflow.datasets._local import _local_file
from perturbflow.datasets._rate_equations import RateEquations
from perturbflow.datasets._time_courses import (
    CONTROL,
    MAX_NOISE,
    Runs,
    as_anndata,
    check_labels,
    check_times,
    held_genes,
    integrate,
    signed_graph,
)

LOWEST_START, HIGHEST_START = 0.05, 0.95
CONSTANT = "input gene"
SOURCE = "the repository of PHOENIX, github.com/QuackenbushLab/phoenix"


def yeast_hill(
    *,
    n_trajectories: int = 20,
    times: Sequence[float] = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0),
    start: ArrayLike | None = None,
    noise: float = 0.0,
    knockouts: Sequence[str] = (),
    n_knockout_trajectories: int = 3,
    seed: int = 0,
) -> AnnData:
    r"""Simulate 350 genes of yeast from the equations of Hossain et al. (2024).

    Of the 350 nodes, among them complexes such as SNF2_SWI1, 74 are constant inputs; the others follow
    :math:`\dot x_i = r_i(x) - x_i`, where :math:`r_i` joins the Hill functions of its regulators by AND (product) and
    OR (:math:`a + b - ab`). Levels lie between 0 and 1. 547 signed edges occur in the equations, .45 % of the possible.

    The files are read from the folder that the environment variable ``PERTURBFLOW_DATA`` names.

    Parameters
    ----------
    n_trajectories
        Number of runs without intervention, from starts between 0.05 and 0.95, uniformly.
    times
        Times of the runs, ascending from 0 or later.
    start
        Levels at time 0 of the runs without intervention, shape (runs, 350), instead of random ones;
        ``n_trajectories`` is then not used.
    noise
        Standard deviation of additive normal noise, as a fraction of that of all values without intervention.
    knockouts
        Genes that are held at 0 in further runs, such as ``["RAP1", "RAP1+ABF1"]``.
    n_knockout_trajectories
        Number of runs of every knock-out, from random starts of their own.
    seed
        Seed of starts and noise; knock-outs leave the other runs as they are.

    Returns
    -------
    AnnData with

    `adata.X`, `adata.layers["noise_free"]`
        Levels with and without noise, float32. A knocked-out gene has no noise.
    `adata.obs`
        ``time``, ``trajectory`` ("0", "1", ...), ``perturbation`` ("control" or the genes held at 0), and with
        knock-outs ``held_at``.
    `adata.var`
        ``is_input`` (74 constant ones) and ``is_regulator`` (whether the gene regulates another).
    `adata.varp["true_graph"]` : CSR, float32
        Signs; row regulates column.
    `adata.uns["true_edges"]`
        The same as a table: ``source``, ``target``, ``sign``.
    `adata.uns["simulation"]`
        The parameters.

    Raises
    ------
    FileNotFoundError
        If a file is not on this machine; the message says where to get it.
    TypeError, ValueError
        If a parameter has the wrong type or is out of range, or a gene is unknown.

    References
    ----------
    Hossain et al. (2024), Biologically informed NeuralODEs for genome-wide regulatory dynamics, *Genome Biology* 25,
    127.

    Examples
    --------
    >>> from contextlib import suppress
    >>> import perturbflow as pf
    >>> with suppress(FileNotFoundError):  # where the files are not on this machine
    ...     adata = pf.datasets.yeast_hill(n_trajectories=2, times=(0.0, 1.0, 2.0))
    ...     assert adata.shape == (6, 350)
    ...     assert len(adata.uns["true_edges"]) == 547
    """
    check_whole_number(n_trajectories, name="n_trajectories", least=1)
    check_whole_number(n_knockout_trajectories, name="n_knockout_trajectories", least=1)
    check_between(noise, 0.0, MAX_NOISE, name="noise")
    check_labels(knockouts, name="knockouts")
    at = np.asarray(times, dtype=float)
    check_times(at)
    text = pd.read_csv(_local_file("phoenix/ode_system_functions_350.csv.gz", source=SOURCE))
    listed = pd.read_csv(_local_file("phoenix/edge_properties_G350.csv.gz", source=SOURCE))

    genes = text["node"].tolist()
    is_input = (text["eqn"] == CONSTANT).to_numpy()
    system = RateEquations(genes, text[~is_input].set_index("node")["eqn"].to_dict())
    # Three of the listed edges are in no equation: those of the equations count.
    sign = listed.set_index(["from", "to"])["activation"].map({True: 1, False: -1})
    source, target = system.edges.T
    names = text["node"].to_numpy()
    signs = sign.loc[list(zip(names[source], names[target], strict=True))].to_numpy()
    graph = signed_graph(sparse.coo_matrix((signs, (source, target)), shape=(len(genes), len(genes))))

    start_rng, knockout_rng, noise_rng = np.random.default_rng(seed).spawn(3)
    if start is None:
        first = start_rng.uniform(LOWEST_START, HIGHEST_START, (n_trajectories, len(genes)))
    else:
        first = np.asarray(start, dtype=float)
        if first.ndim != 2 or first.shape[1] != len(genes) or not ((first >= 0) & np.isfinite(first)).all():
            msg = f"Expected `start` of shape (runs, {len(genes)}) and levels of at least 0, found shape {first.shape}."
            raise ValueError(msg)
    removed = np.repeat(held_genes(knockouts, genes, parameter="knockouts"), n_knockout_trajectories, axis=0)
    further = knockout_rng.uniform(LOWEST_START, HIGHEST_START, removed.shape)
    held = np.concatenate([np.zeros(first.shape, dtype=bool), removed])
    values = integrate(system, np.where(held, 0.0, np.concatenate([first, further])), at, held=held)
    adata = as_anndata(
        Runs(
            times=np.tile(at, (len(held), 1)),
            values=values,
            perturbation=[CONTROL] * len(first)
            + [label for label in knockouts for _ in range(n_knockout_trajectories)],
            held=held,
        ),
        genes,
        noise=noise,
        rng=noise_rng,
        is_regulator=np.isin(np.arange(len(genes)), source),
        graph=graph,
        simulation={
            "n_trajectories": len(first),
            "times": at,
            "knockouts": list(knockouts),
            "n_knockout_trajectories": n_knockout_trajectories,
            "seed": seed,
        },
    )
    adata.var["is_input"] = is_input
    return adata
