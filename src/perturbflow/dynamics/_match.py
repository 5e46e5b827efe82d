"""Fitting a vector field by integral matching."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from perturbflow.dynamics._best import BestWeights, worst
from perturbflow.dynamics._field import VectorField
from perturbflow.dynamics._matching import (
    CHUNKS_A_STEP,
    Chunks,
    MatchedWindows,
    relative_errors,
    root_error,
    window_errors,
)
from perturbflow.dynamics._optimiser import ProximalAdam
from perturbflow.dynamics._sparsity import Sparsity

OnStep = Callable[[float], None]


def match(
    field: VectorField,
    sparsity: Sparsity,
    chunks: Chunks,
    *,
    strength: float,
    n_steps: int,
    learning_rate: float,
    generator: torch.Generator,
    n_free_steps: int = 0,
    on_step: OnStep | None = None,
) -> list[int]:
    """Minimise the mean over targets of the relative error plus the penalty, in place.

    It ends early where the loss becomes infinite or NaN: the weights are then the best before.

    Parameters
    ----------
    field
        The vector field.
    sparsity
        Its way to sparsity.
    chunks
        Smoothed curves.
    strength
        Strength of the penalty.
    n_steps
        Number of steps.
    learning_rate
        Learning rate at the first step.
    generator
        Of gates and of the pieces of a step.
    n_free_steps
        First steps without penalty.
    on_step
        Called with the loss after every step.

    Returns
    -------
    Genes whose error ended it early; none usually.
    """
    best = BestWeights(field, sparsity)
    optimiser = ProximalAdam(field, sparsity, learning_rate=learning_rate, n_steps=n_steps)
    windows = MatchedWindows.of(field, chunks.pieces(torch.arange(min(len(chunks), CHUNKS_A_STEP))))
    for step in range(n_steps):
        if len(chunks) > CHUNKS_A_STEP:
            some = torch.randperm(len(chunks), generator=generator)[:CHUNKS_A_STEP]
            windows = MatchedWindows.of(field, chunks.pieces(some))
        weights = field.weights()
        drawn = sparsity.draw(weights, generator=generator)
        miss, size = window_errors(field, windows, weights=drawn)
        errors = root_error(miss, size)
        loss = errors.mean()
        now = strength if step >= n_free_steps else 0.0
        if now > 0:
            loss = loss + now * sparsity.penalty(weights)
        value = loss.item()
        if not math.isfinite(value):
            best.restore()
            return worst(errors.detach(), field.targets)
        if step == n_free_steps:
            best.forget()
        best.see(step, value)
        optimiser.step(loss, strength=now)
        if on_step is not None:
            on_step(value)
    return []


def matching_error(field: VectorField, sparsity: Sparsity, chunks: Chunks) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the relative error of every target without noise of gates (K,), and its pieces' share of squares (C, K)."""
    with torch.no_grad():
        misses, sizes = [], []
        for k in range(0, len(chunks), CHUNKS_A_STEP):
            some = chunks.pieces(torch.arange(k, min(k + CHUNKS_A_STEP, len(chunks))))
            miss, size = relative_errors(field, some, weights=sparsity.expected(field.weights()), by_piece=True)
            misses.append(miss)
            sizes.append(size)
        miss, size = torch.cat(misses), torch.cat(sizes)
        total = size.sum(dim=0)
        return root_error(miss.sum(dim=0), total), len(miss) * miss / total.clamp(min=1e-12)
