"""A simulated screen in which perturbations do other things in other contexts, along a few factors."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse
from scipy.stats import nbinom

from perturbflow._checks import check_between, check_whole_number
from perturbflow.datasets._counts import BURSTS, DEPTH_SD, counted, of_simulation

_BASE_MEAN, _BASE_SD = -0.5, 0.8  # of the log level of a gene
_CONTEXT_SD = 0.5  # of what a context adds to it
_RESPONDING = 0.3  # share of the genes that an effect changes
MOST = 100.0  # effect on a log level; larger ones are no numbers of molecules
_QUADRATURE = 9  # points of the log depth over which expected values are averaged
_GRID = np.linspace(-9.0, 6.0, 151)  # log levels at which they are computed


@of_simulation
def simulated_contexts(
    n_contexts: int = 8,
    n_perturbations: int = 100,
    *,
    n_genes: int = 200,
    n_factors: int = 3,
    conserved: float = 0.3,
    interaction: float = 0.3,
    learnable: float = 0.7,
    readable: float = 0.5,
    n_controls: int = 200,
    n_cells: int = 50,
    seed: int = 0,
) -> AnnData:
    r"""Simulate perturbations in contexts, with effects that are conserved in part, and the truth of every condition.

    The log of the level of gene g under perturbation p in context c is

    .. math::

        \eta_{pcg} = b_g + d_{cg} + e_{pg} + \sum_k u_{pk} v_{ck} w_{kg} + r_{pcg},

    with effects e that are the same everywhere, interactions of ``n_factors`` factors of perturbations u, of contexts v and of
    genes w, and a rest r that no other condition tells. An effect is one of three tenths of the genes, and so is a
    factor. Context factors sum to 0 over contexts. What a context is without
    perturbations, d, lies in part along its factors: these can be read from its controls so far. Counts are
    Poisson with a gamma-distributed rate of mean :math:`e^\eta` (negative binomial), and a log-normal depth.

    Parameters
    ----------
    n_contexts
        Number of contexts.
    n_perturbations
        Number of perturbations, each in all contexts.
    n_factors
        Number of factors of the interactions.
    conserved
        Root mean square of conserved effects e on the log level, over all genes.
    interaction
        Root mean square of what differs between contexts, factors and rest together.
    learnable
        Share of its variance that the factors have, from 0 to 1.
    readable
        Share of the variance of d that the factors of the context explain, from 0 to 1.
    n_cells
        Number of cells of every other condition.

    Returns
    -------
    AnnData with

    `adata.X` : CSR, float32
        Log1p of the counts, divided by the depth of the cell.
    `adata.layers["counts"]` : CSR, float32
        The counts.
    `adata.obs`
        ``perturbation`` ("control", "P000") and ``context`` ("context_0").
    `adata.varm["conserved"]`, `adata.varm["gene_factors"]`
        Tables: conserved effect of every perturbation (G, P) and the factors w (G, n_factors).
    `adata.uns["perturbation_factors"]`, `adata.uns["context_factors"]`
        Tables: factors u and v.
    `adata.uns["expected"]`
        Tables of expected expression, conditions ("context_0|P000", also "context_0|control") by genes: ``"all"`` of what was simulated,
        ``"learnable"`` without the rest r, and ``"conserved"`` without any interaction.
    `adata.uns["simulation"]`
        The parameters.

    Examples
    --------
    >>> import perturbflow as pf
    >>> adata = pf.datasets.simulated_contexts(3, 4, n_genes=20, n_controls=20, n_cells=10)
    >>> adata.shape, adata.uns["context_factors"].shape
    ((180, 20), (3, 3))
    >>> expected = adata.uns["expected"]  # without interactions an effect is the same in all contexts
    >>> expected["all"].shape
    (15, 20)
    """
    numbers_of = {
        "n_contexts": n_contexts,
        "n_perturbations": n_perturbations,
        "n_genes": n_genes,
        "n_factors": n_factors,
        "n_controls": n_controls,
        "n_cells": n_cells,
    }
    for name, number in numbers_of.items():
        check_whole_number(number, name=name, least=1)
    for name, deviation in {"conserved": conserved, "interaction": interaction}.items():
        check_between(deviation, 0.0, MOST, name=name)
    for name, share in {"learnable": learnable, "readable": readable}.items():
        check_between(share, 0.0, 1.0, name=name)
    rng, cell_rng = np.random.default_rng(seed).spawn(2)
    perturbations = rng.normal(size=(n_perturbations, n_factors))
    contexts = rng.normal(size=(n_contexts, n_factors))
    contexts -= contexts.mean(axis=0)
    genes = rng.normal(size=(n_factors, n_genes)) * (rng.random((n_factors, n_genes)) < _RESPONDING)
    shape = (n_perturbations, n_contexts, n_genes)
    low_rank = np.einsum("pk,ck,kg->pcg", perturbations, contexts, genes)
    factor = math.sqrt(learnable) * interaction / _size(low_rank)
    genes, low_rank = factor * genes, factor * low_rank
    rest = rng.normal(size=shape) * (rng.random(shape) < _RESPONDING)
    rest *= math.sqrt(1 - learnable) * interaction / _size(rest)
    effects = rng.normal(size=(n_perturbations, n_genes)) * (rng.random((n_perturbations, n_genes)) < _RESPONDING)
    effects *= conserved / _size(effects)
    told, own = contexts @ rng.normal(size=(n_factors, n_genes)), rng.normal(size=(n_contexts, n_genes))
    of_context = _CONTEXT_SD * (math.sqrt(readable) * told / _size(told) + math.sqrt(1 - readable) * own / _size(own))
    base = rng.normal(_BASE_MEAN, _BASE_SD, n_genes) + of_context

    names = [f"P{number:03d}" for number in range(n_perturbations)]
    places = [f"context_{number}" for number in range(n_contexts)]
    symbols = [f"GENE_{number:03d}" for number in range(n_genes)]
    factors = [f"factor_{number}" for number in range(n_factors)]
    nothing = np.zeros((1, n_contexts, n_genes))
    levels = {
        part: (base + np.concatenate([nothing, change])).swapaxes(0, 1).reshape(-1, n_genes)
        for part, change in {
            "all": effects[:, None] + low_rank + rest,
            "learnable": effects[:, None] + low_rank,
            "conserved": np.repeat(effects[:, None], n_contexts, axis=1),
        }.items()
    }
    labels = pd.MultiIndex.from_product([places, ["control", *names]], names=["context", "perturbation"])
    sizes = [n_controls, *[n_cells] * n_perturbations] * n_contexts
    numbers = np.repeat(np.arange(len(sizes)), sizes)
    cells = [counted(np.tile(level, (size, 1)), cell_rng) for level, size in zip(levels["all"], sizes, strict=True)]
    counts, scaled = (sparse.vstack(part, format="csr") for part in zip(*cells, strict=True))
    obs = labels.to_frame(index=False).iloc[numbers][["perturbation", "context"]].astype("category")
    obs.index = [f"cell_{number}" for number in range(len(numbers))]
    conditions = [f"{place}|{name}" for place, name in labels]
    expected = _expected()
    return AnnData(
        scaled,
        obs=obs,
        var=pd.DataFrame(index=symbols),
        layers={"counts": counts},
        varm={
            "conserved": pd.DataFrame(effects.T, index=symbols, columns=names),
            "gene_factors": pd.DataFrame(genes.T, index=symbols, columns=factors),
        },
        uns={
            "perturbation_factors": pd.DataFrame(perturbations, index=names, columns=factors),
            "context_factors": pd.DataFrame(contexts, index=places, columns=factors),
            "expected": {
                part: pd.DataFrame(np.interp(level, _GRID, expected), index=conditions, columns=symbols)
                for part, level in levels.items()
            },
            "simulation": {
                "conserved": float(conserved),
                "interaction": float(interaction),
                "learnable": float(learnable),
                "readable": float(readable),
                "seed": seed,
            },
        },
    )


def _size(values: NDArray[np.float64]) -> float:
    """Root mean square; where there is nothing, 1, which is safe to divide by."""
    return float(np.sqrt(np.square(values).mean())) or 1.0


def _expected() -> NDArray[np.float64]:
    """Expected values of cells at the levels of the grid: over the log depth by quadrature, over counts one by one."""
    points, weights = np.polynomial.hermite_e.hermegauss(_QUADRATURE)
    found = np.zeros(len(_GRID))
    for point, weight in zip(points, weights / weights.sum(), strict=True):
        depth = math.exp(DEPTH_SD * point)
        means = depth * np.exp(_GRID)
        most = int(means.max() * 12)
        # Far counts are summed in steps: there neither the distribution nor the logarithm changes from one to the next.
        steps = np.unique(np.concatenate([np.arange(201), np.geomspace(200, most, 400).astype(int)]))
        for place, mean in enumerate(means):
            below = nbinom.cdf(steps, BURSTS, BURSTS / (BURSTS + mean))
            middle = (np.append(steps[0], steps[:-1] + 1) + steps) / 2
            found[place] += weight * (np.diff(below, prepend=0.0) @ np.log1p(middle / depth))
    return found
