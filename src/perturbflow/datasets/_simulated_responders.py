"""A simulated screen in which some cells respond and others do not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse
from scipy.special import ndtri

from perturbflow._checks import check_between, check_one_of, check_whole_number
from perturbflow.datasets._counts import counted, of_simulation

Heterogeneity = Literal["mixture", "state", "correlation", "homogeneous"]

MOST = 100.0  # effect on a log level; larger ones are no numbers of molecules
_STATE_SHARE = 0.25  # of the genes, that follow the state of a cell
_STATE_SD = 0.6
_CORRELATION_WITH_STATE = 0.95
_AMOUNT_SD = 0.3


@of_simulation
def simulated_responders(
    heterogeneity: Heterogeneity = "mixture",
    *,
    fractions: Sequence[float] = (0.1, 0.3, 0.5, 0.7, 0.9),
    n_genes: int = 100,
    n_responding: int = 15,
    effect: float = 1.6,
    n_combinations: int = 0,
    cell_types: int = 1,
    n_controls: int = 800,
    n_cells: int = 300,
    seed: int = 0,
) -> AnnData:
    r"""Simulate perturbations to which a fraction of the cells responds, with the truth of every cell.

    Every perturbation has a program of ``n_responding`` genes. The log of the level of gene g in cell i is

    .. math::

        \eta_{ig} = b_{g} + c_{tg} + \sum_k z_{ik} a_{kg} + \sum_p r_{ip}\, s_p\, (1 + 0.3\, \epsilon_{ip})_+\, [g \in p],

    with the cell type t, two states z of the cell that a quarter of the genes follow, and whether the cell responds to
    perturbation p, :math:`r_{ip}`. Counts are Poisson with a gamma-distributed rate of that mean (negative binomial), and
    a log-normal depth.

    Parameters
    ----------
    heterogeneity
        What differs between cells. ``"mixture"``: a fraction responds, whatever its state. ``"state"``: the same, but those
        respond that are low in the first state, with a correlation of 0.95. ``"correlation"``: no mean changes, but the
        genes of a program vary together, with the fraction as the standard deviation of the log level. ``"homogeneous"``: all
        cells respond, with an effect of ``fraction * effect``.
    fractions
        Fraction of responders of every perturbation.
    n_responding
        Number of genes of a program. Programs overlap only where the genes do not suffice.
    effect
        Effect s on the log level of a gene in cells that respond.
    n_combinations
        Number of pairs of perturbations that are applied together; a cell responds to each of them or not.
    cell_types
        Number of cell types, each with all conditions.
    n_cells
        Number of cells of every other condition.

    Returns
    -------
    AnnData with

    `adata.X` : CSR, float32
        Log1p of the counts scaled to 10,000, of which the genes are a part: other genes than these are not simulated, and
        the total that they are scaled by does not depend on the response.
    `adata.layers["counts"]` : CSR, float32
        The counts.
    `adata.obs`
        ``perturbation`` ("control", "P0", "P0+P1") and ``cell_type``.
    `adata.obsm["responds"]`
        Table, cells by perturbations: whether a cell responds to it.
    `adata.varm["programs"]`
        Table, genes by perturbations: whether a gene is of the program.
    `adata.uns["simulation"]`
        The parameters.

    Examples
    --------
    >>> import perturbflow as pf
    >>> adata = pf.datasets.simulated_responders(fractions=(0.2, 0.8), n_controls=100, n_cells=200)
    >>> perturbed = adata.obs["perturbation"] == "P1"
    >>> float(adata.obsm["responds"].loc[perturbed, "P1"].mean().round(1))
    0.8
    """
    check_one_of(heterogeneity, get_args(Heterogeneity), name="heterogeneity")
    sizes = {"n_genes": n_genes, "n_responding": n_responding, "cell_types": cell_types, "n_controls": n_controls}
    for name, size in (sizes | {"n_cells": n_cells}).items():
        check_whole_number(size, name=name, least=1)
    check_whole_number(n_combinations, name="n_combinations")
    check_between(effect, -MOST, MOST, name="effect")
    _check(fractions, n_genes, n_responding, n_combinations)
    rng, cell_rng = np.random.default_rng(seed).spawn(2)
    names = [f"P{number}" for number in range(len(fractions))]
    genes = np.array([f"GENE_{number:03d}" for number in range(n_genes)])
    base, of_type = rng.normal(-1.2, 0.8, n_genes), rng.normal(0, 0.4, (cell_types, n_genes))
    loadings = rng.normal(0, [[_STATE_SD], [_STATE_SD / 4]], (2, n_genes))
    loadings[0] *= rng.random(n_genes) < _STATE_SHARE
    programs = _programs(n_genes, n_responding, len(names), rng)
    pairs = [(i, j) for i in range(len(names)) for j in range(i)]
    chosen = [pairs[i] for i in rng.permutation(len(pairs))[:n_combinations]]
    conditions = [(), *((i,) for i in range(len(names))), *(tuple(sorted(pair)) for pair in chosen)]

    cells, responds, obs = [], [], []
    for cell_type in range(cell_types):
        for condition in conditions:
            size = n_cells if condition else n_controls
            states = cell_rng.standard_normal((size, 2))
            level = base + of_type[cell_type] + states @ loadings
            responding = np.zeros((size, len(names)), dtype=bool)
            for place in condition:
                responding[:, place], change = _response(
                    heterogeneity, fractions[place], effect, states[:, 0], cell_rng
                )
                level += change[:, None] * programs[place]
            cells.append(counted(level, cell_rng))
            label = "+".join(names[place] for place in condition) or "control"
            responds.append(responding)
            obs.append(pd.DataFrame({"perturbation": [label] * size, "cell_type": f"type_{cell_type}"}))
    counts, scaled = (sparse.vstack(part, format="csr") for part in zip(*cells, strict=True))
    table = pd.concat(obs, ignore_index=True)
    table.index = [f"cell_{number}" for number in range(len(table))]
    return AnnData(
        scaled,
        obs=table.astype("category"),
        var=pd.DataFrame(index=genes),
        layers={"counts": counts},
        obsm={"responds": pd.DataFrame(np.concatenate(responds), index=table.index, columns=names)},
        varm={"programs": pd.DataFrame(programs.T, index=genes, columns=names)},
        uns={
            "simulation": {
                "heterogeneity": heterogeneity,
                "fractions": list(map(float, fractions)),
                "effect": float(effect),
                "seed": seed,
            }
        },
    )


def _programs(n_genes: int, size: int, number: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Genes of every program (P, G), taken one after the other from random orders of the genes."""
    order = np.concatenate([rng.permutation(n_genes) for _ in range(math.ceil(number * size / n_genes) + 1)])
    programs = np.zeros((number, n_genes), dtype=bool)
    for place in range(number):
        own = list(dict.fromkeys(order[place * size :].tolist()))[:size]
        programs[place, own] = True
    return programs


def _response(
    heterogeneity: Heterogeneity, fraction: float, effect: float, state: NDArray[np.float64], rng: np.random.Generator
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Draw which cells respond, and what is added to the log levels of a program (n,)."""
    n_cells = len(state)
    if heterogeneity == "homogeneous":
        return np.ones(n_cells, dtype=bool), np.full(n_cells, fraction * effect)
    if heterogeneity == "correlation":
        # Less half the variance, so that the mean level stays.
        return np.zeros(n_cells, dtype=bool), fraction * rng.standard_normal(n_cells) - fraction**2 / 2
    told = _CORRELATION_WITH_STATE if heterogeneity == "state" else 0.0
    rank = told * state + np.sqrt(1 - told**2) * rng.standard_normal(n_cells)
    responds = rank < ndtri(fraction)
    return responds, responds * effect * np.maximum(1 + _AMOUNT_SD * rng.standard_normal(n_cells), 0)


def _check(fractions: Sequence[float], n_genes: int, n_responding: int, n_combinations: int) -> None:
    if not len(fractions) or not all(0 < fraction < 1 for fraction in fractions):
        msg = f"Expected `fractions` between 0 and 1, at least one, found {fractions!r}."
        raise ValueError(msg)
    if n_responding > n_genes:
        msg = f"Expected `n_responding` of at most {n_genes} genes, found {n_responding}. Raise `n_genes`."
        raise ValueError(msg)
    if n_combinations > (most := math.comb(len(fractions), 2)):
        msg = f"Expected `n_combinations` of at most {most}, the pairs of {len(fractions)} perturbations, found {n_combinations}."
        raise ValueError(msg)
