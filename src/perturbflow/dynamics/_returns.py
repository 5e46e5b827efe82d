"""Copies of curves that are displaced, with rates that lead back: what makes fitted trajectories attract others."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from perturbflow.dynamics._matching import Chunks

N_COPIES = 3
RATE = 2.0  # at which displacements fade, per unit of time


def with_returns(chunks: Chunks, *, displacement: float, order: int, generator: torch.Generator) -> Chunks:
    r"""Return the pieces and displaced copies of them, of which a field learns that solutions come back.

    Observations say nothing of states beside them, and a field that is fitted to them alone may lead solutions away from
    every trajectory, however small its errors are. A copy has the states :math:`x + \delta` with a smooth random
    :math:`\delta`, and the rates :math:`\dot x - \kappa\delta`; in second order, with displaced levels and rates
    :math:`\delta` and :math:`\epsilon`, the accelerations
    :math:`\ddot x - \kappa\epsilon - \kappa^2\delta / 2`. For a linear field this is a ridge penalty, of the variance of
    :math:`\delta`, on how it differs from one under which everything decays.

    Parameters
    ----------
    chunks
        The curves in pieces.
    displacement
        Standard deviation of the displacements, in units of each gene's spread; 0 for the pieces alone.
    order
        Order of the field.
    generator
        Of the displacements.

    Returns
    -------
    The pieces, and three displaced copies of each.
    """
    if displacement == 0:
        return chunks
    span = max(int(chunks.end[0] - chunks.start[0]), 1)
    copies = [_displaced(chunks, displacement, span, order, generator) for _ in range(N_COPIES)]
    return replace(
        chunks,
        **{
            name: torch.cat([getattr(part, name) for part in (chunks, *copies)])
            for name in ("state", "goal", "step", "valid", "weight", "trajectory")
        },
    )


def _displaced(chunks: Chunks, displacement: float, span: int, order: int, generator: torch.Generator) -> Chunks:
    """Return a displaced copy of every piece."""
    noise = displacement * _smooth_noise(chunks.state.shape, span, generator)
    d = chunks.weight.shape[1]
    noise = noise * chunks.weight.repeat(1, order)[:, None]  # held genes are where they are held
    pull = -RATE * noise[..., -d:] - (RATE**2 / 2 * noise[..., :d] if order == 2 else 0.0)
    way = ((pull[:, 1:] + pull[:, :-1]) / 2 * chunks.step[..., None]).cumsum(dim=1)
    goal = chunks.goal.clone()
    goal[:, 1:, -d:] += way
    return replace(chunks, state=chunks.state + noise, goal=goal)


def _smooth_noise(shape: torch.Size, span: int, generator: torch.Generator) -> Tensor:
    """Return noise of variance 1 along the second axis that is new after ``span`` points."""
    n_pieces, n_points, n_state = shape
    n_knots = math.ceil(n_points / span) + 1
    knots = torch.randn((n_pieces, n_knots, n_state), generator=generator)
    position = torch.arange(n_points)
    left, angle = position // span, math.pi / 2 * (position % span) / span
    return angle.cos()[:, None] * knots[:, left] + angle.sin()[:, None] * knots[:, left + 1]
