"""Moving control cells to a distribution with what the cells of the condition share, and evenly spread random numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from perturbflow.flow._hurdle_distribution import LOWEST_EXPRESSION, Context, HurdleDistribution
from perturbflow.flow._response_factor import ResponseFactor

if TYPE_CHECKING:
    from perturbflow.flow._prior import AdditiveHurdlePrior


_N_CORRECTIONS = 5
_LARGEST_CORRELATION = 0.99


def stratified_uniforms(members: NDArray[np.bool_], *, rng: np.random.Generator) -> NDArray[np.float32]:
    """Uniform numbers (n, G), stratified apart over the members (n, G) and the others of every column.

    A number below s occurs in ``m s`` of m members, rounded up or down at random with the right mean.
    """
    n_cells, n_genes = members.shape
    by_gene = np.ascontiguousarray(members.T)
    keys = rng.random((n_genes, n_cells), dtype=np.float32)
    keys += by_gene
    order = keys.argsort(axis=1)
    place = np.empty((n_genes, n_cells), dtype=np.float32)
    np.put_along_axis(place, order, np.arange(n_cells, dtype=np.float32)[None], axis=1)
    n_members = by_gene.sum(axis=1, dtype=np.float32)[:, None]
    n_others = n_cells - n_members
    # Members come last in the order.
    place -= n_others * by_gene
    place += rng.random((n_genes, 1), dtype=np.float32)
    place /= np.maximum(np.where(by_gene, n_members, n_others), 1)
    return place.T


def stratified_normals(shape: tuple[int, int], *, rng: np.random.Generator) -> NDArray[np.float32]:
    """Standard normal numbers (n, G), stratified over the rows of every column."""
    uniforms = stratified_uniforms(np.zeros(shape, dtype=bool), rng=rng)
    return ndtri(np.clip(uniforms, 1e-7, 1 - 1e-7)).astype(np.float32)


def move_jointly(
    prior: AdditiveHurdlePrior,
    controls: NDArray[np.float32],
    distribution: HurdleDistribution,
    context: Context,
    factors: Sequence[ResponseFactor],
    states: NDArray[np.float64],
    *,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """Move control cells (n, G) as :meth:`AdditiveHurdlePrior.move` does, genes that follow a latent together.

    Shares and means are those of the distribution, as without latents; genes that follow none are moved by the prior,
    with the same random numbers. Amounts may depend on the standardised ``states`` of the cells (n, K).
    """
    moved = prior.move(controls, distribution, context, rng=rng)
    if not factors or not len(controls):
        return moved
    share, value = np.array([factor.share for factor in factors]), np.array([factor.value for factor in factors])
    genes = np.flatnonzero((share != 0).any(axis=0) | (value != 0).any(axis=0))
    amounts = np.stack([_draw(factor, states, rng) for factor in factors], axis=1)
    moved[:, genes] = _follow(
        controls[:, genes],
        distribution_of(distribution, genes),
        context_of(context, genes),
        amounts,
        share[:, genes],
        value[:, genes],
        rng,
    )
    return moved


def distribution_of(distribution: HurdleDistribution, genes: NDArray[np.intp]) -> HurdleDistribution:
    """A distribution of some genes."""
    return replace(
        distribution,
        expressed=distribution.expressed[genes],
        mean=distribution.mean[genes],
        variance=distribution.variance[genes],
    )


def context_of(context: Context, genes: NDArray[np.intp]) -> Context:
    """Part of a context that shifting cells needs, of some genes."""
    return replace(context, expressed=context.expressed[genes], mean=context.mean[genes])


def _draw(factor: ResponseFactor, states: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Amounts of the cells (n,), spread evenly over their distribution and in the order that states ask for."""
    n_cells = len(states)
    order = rng.standard_normal(n_cells)
    correlation = float(np.linalg.norm(factor.coupling))
    if correlation > 0:
        # Amounts with modes correlate less than normal numbers of the same order do.
        quantiles = ndtri((np.arange(len(factor.amounts)) + 0.5) / len(factor.amounts))
        correlation /= max(float(np.corrcoef(np.sort(factor.amounts), quantiles)[0, 1]), correlation)
        correlation = min(correlation, _LARGEST_CORRELATION)
        told = (states @ factor.coupling).argsort().argsort()
        order *= np.sqrt(1 - correlation**2)
        order += correlation * ndtri((told + 0.5) / n_cells)
    steps = (order.argsort().argsort() + rng.random()) / n_cells
    amounts = factor.amounts[(steps * len(factor.amounts)).astype(np.intp)]
    return amounts - amounts.mean() + factor.amounts.mean()


def _follow(
    controls: NDArray[np.float32],
    distribution: HurdleDistribution,
    context: Context,
    amounts: NDArray[np.float64],
    share: NDArray[np.float64],
    value: NDArray[np.float64],
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Values of genes that follow the amounts (n, R)."""
    before, after = context.expressed, distribution.expressed.astype(np.float64)
    after = np.clip(after + amounts.mean(axis=0) @ share, 0, 1)
    probability = np.clip(distribution.expressed + amounts @ share, 0, 1)
    for _ in range(
        _N_CORRECTIONS
    ):  # what was cut off at 0 and 1 is put back, so that the mean is that of the distribution
        probability = np.clip(probability + (after - probability.mean(axis=0)), 0, 1)
    is_on = controls > 0
    keep = np.minimum(probability / np.maximum(before, 1e-9), 1)
    switch_on = np.maximum((probability - before) / np.maximum(1 - before, 1e-9), 0)
    expressed = _systematic(np.where(is_on, keep, 0), rng) | _systematic(np.where(is_on, 0, switch_on), rng)
    total = np.maximum(probability.sum(axis=0), 1e-9)
    with_latent = amounts @ value - (probability * (amounts @ value)).sum(axis=0) / total + amounts.mean(axis=0) @ value
    n_expressing = before * context.n_controls
    shift = n_expressing / (n_expressing + 1) * (distribution.mean - context.mean)
    new = distribution.mean + np.sqrt(distribution.variance) * rng.standard_normal(controls.shape)
    values = np.where(is_on, controls + shift, new) + with_latent
    lowest = np.where(is_on, np.minimum(controls, LOWEST_EXPRESSION), LOWEST_EXPRESSION)
    return np.where(expressed, np.maximum(values, lowest), 0)


def _systematic(probability: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.bool_]:
    """Choose cells with probabilities (n, G), of a gene as many as they sum to: systematic sampling (Madow 1949)."""
    order = rng.random(probability.shape).argsort(axis=0)
    there = np.take_along_axis(probability, order, axis=0)
    ends = np.floor(np.cumsum(there, axis=0) + rng.random(probability.shape[1]))
    chosen = np.zeros(probability.shape, dtype=bool)
    np.put_along_axis(chosen, order, np.diff(ends, axis=0, prepend=0.0) > 0, axis=0)
    return chosen
