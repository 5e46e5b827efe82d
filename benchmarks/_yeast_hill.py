"""The 350-gene yeast network of Hill functions, simulated from its published equations."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from _rate_equations import RateEquations
from anndata import AnnData
from numpy.typing import ArrayLike
from scipy import sparse

from perturbflow.datasets import solve_system, time_courses

LOWEST_START, HIGHEST_START = 0.05, 0.95
CONSTANT = "input gene"
FILES = ("ode_system_functions_350.csv.gz", "edge_properties_G350.csv.gz")


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

    References
    ----------
    Hossain et al. (2024), Biologically informed NeuralODEs for genome-wide regulatory dynamics, *Genome Biology* 25,
    127.
    """
    at = np.asarray(times, dtype=float)
    text, listed = (pd.read_csv(phoenix_file(name)) for name in FILES)

    genes = text["node"].tolist()
    is_input = (text["eqn"] == CONSTANT).to_numpy()
    system = RateEquations(genes, text[~is_input].set_index("node")["eqn"].to_dict())
    # Three of the listed edges are in no equation: those of the equations count.
    sign = listed.set_index(["from", "to"])["activation"].map({True: 1, False: -1})
    source, target = system.edges.T
    names = text["node"].to_numpy()
    signs = sign.loc[list(zip(names[source], names[target], strict=True))].to_numpy()
    graph = sparse.csr_matrix((signs, (source, target)), shape=(len(genes), len(genes)))

    start_rng, knockout_rng, noise_rng = np.random.default_rng(seed).spawn(3)
    if start is None:
        first = start_rng.uniform(LOWEST_START, HIGHEST_START, (n_trajectories, len(genes)))
    else:
        first = np.asarray(start, dtype=float)
    removed = np.array([np.isin(genes, label.split("+")) for label in knockouts], dtype=bool).reshape(-1, len(genes))
    removed = np.repeat(removed, n_knockout_trajectories, axis=0)
    further = knockout_rng.uniform(LOWEST_START, HIGHEST_START, removed.shape)
    held = np.concatenate([np.zeros(first.shape, dtype=bool), removed])
    values = solve_system(system, np.where(held, 0.0, np.concatenate([first, further])), at, held=held)
    adata = time_courses(
        values,
        at,
        genes,
        perturbation=["control"] * len(first) + [label for label in knockouts for _ in range(n_knockout_trajectories)],
        held=held,
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


def phoenix_file(name: str) -> Path:
    """Return the path of a file of the network, or say where to get it."""
    path = Path(os.environ.get("PERTURBFLOW_DATA", "")) / "phoenix" / name
    if not path.is_file():
        msg = f"Expected {path}, found none. Get it from github.com/QuackenbushLab/phoenix."
        raise FileNotFoundError(msg)
    return path
