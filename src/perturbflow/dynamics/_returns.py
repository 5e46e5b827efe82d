"""Copies of curves that are displaced, with rates that lead back: what makes fitted trajectories attract others."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from perturbflow.dynamics._field_config import FieldConfig
from perturbflow.dynamics._matching import Chunks, together
from perturbflow.dynamics._problem import Problem
from perturbflow.dynamics._settings import DynamicsSettings

N_COPIES = 3
RATE = 2.0  # at which displacements fade, per unit of time


def with_returns(problem: Problem, settings: DynamicsSettings, config: FieldConfig) -> Problem:
    r"""Return the problem with three displaced copies of its pieces, of which a field learns that solutions come back.

    Observations say nothing of states beside them, where a field may lead solutions away. A copy has the states
    :math:`x + \delta` with a smooth random :math:`\delta`, and the rates :math:`\dot x - \kappa\delta`; in second
    order, with displaced levels and rates :math:`\delta` and :math:`\epsilon`, the accelerations :math:`\ddot x -
    \kappa\epsilon - \kappa^2\delta / 2`. For a linear field this is a ridge penalty, of the variance of :math:`\delta`,
    on how it differs from one under which everything decays. Copies are the same ones whenever they are asked for.
    """
    if settings.displacement == 0:
        return problem
    chunks, generator = problem.chunks, torch.Generator().manual_seed(settings.seed)
    span = max(int(chunks.end[0] - chunks.start[0]), 1)
    copies = [_displaced(chunks, settings.displacement, span, config.order, generator) for _ in range(N_COPIES)]
    return replace(problem, chunks=together([chunks, *copies]))


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
