"""Fitting solutions to the observations themselves: short ones from many starts, or whole trajectories."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from perturbflow.dynamics._field import VectorField
from perturbflow.dynamics._integrate import held, solve_rk4
from perturbflow.dynamics._matching import stacked
from perturbflow.dynamics._optimiser import minimise, worst
from perturbflow.dynamics._penalties import Sparsity
from perturbflow.dynamics._problem import Problem

logger = logging.getLogger(__name__)

MAX_STEP = 0.25  # in units of the time scale, in which levels change by about their spread
SEGMENTS_A_STEP = 96
UNUSABLE = 0.5  # error of whole solutions beyond the noise, in variances, above which they say nothing: chaos
UNUSABLE_ATTRACTED = 3.0  # the same where solutions were taught to come back, and are not chaotic but out of phase
SMALLEST = 1e-8
ROUND = 25  # iterations of L-BFGS after which it is asked whether they were worthwhile
WORTHWHILE = 0.03  # share of the error that they must save


@dataclass(frozen=True)
class Segments:
    """Starts, times and observations of S solutions, scaled and padded to m + 1 times."""

    start: Tensor  # states at the first times, from the smooth curves (S, order * d)
    time: Tensor  # repeated at the end where a trajectory is over (S, m + 1)
    observed: Tensor  # levels at the times (S, m + 1, d)
    curve: Tensor  # levels of the smooth curves (S, m + 1, d)
    weight: Tensor  # relative to the trajectory's mean (S, m + 1, d); 0 if unobserved, held or a given start
    clamped: Tensor  # what an intervention holds (S, order * d)
    trajectory: Tensor  # of each (S,)

    def __len__(self) -> int:
        return len(self.start)

    def some(self, chosen: Tensor) -> Segments:
        """Return some of the solutions."""
        return Segments(**{each.name: getattr(self, each.name)[chosen] for each in fields(self)})


def make_segments(problem: Problem, *, order: int, n_intervals: int | None = None) -> Segments:
    """Cut observations into segments of ``n_intervals`` between observations, or take whole trajectories."""
    units = problem.units
    longest = max(len(t.time) for t in problem.trajectories) - 1
    m = longest if n_intervals is None else min(n_intervals, longest)
    found: list[dict[str, Any]] = []
    for k, (trajectory, curve) in enumerate(zip(problem.trajectories, problem.curves, strict=True)):
        n = len(trajectory.time)
        levels = trajectory.values / units.scale
        relative = trajectory.weight / trajectory.weight.mean()
        firsts = [0] if n_intervals is None else range(max(n - m, 1))
        smooth_levels, rates = curve(trajectory.time) / units.scale, curve.derivative(trajectory.time)
        for first in firsts:
            rows = np.minimum(np.arange(first, first + m + 1), n - 1)
            real = (np.arange(first, first + m + 1) < n)[:, None]
            if n_intervals is not None:
                real[0] = False
            state = smooth_levels[first]
            if order == 2:
                state = np.concatenate([state, rates[first] * units.time / units.scale])
            found.append(
                {
                    "start": state,
                    "time": trajectory.time[rows] / units.time,
                    "observed": levels[rows],
                    "curve": smooth_levels[rows],
                    "weight": real * ~trajectory.clamped * relative[rows, None],
                    "clamped": np.tile(trajectory.clamped, order),
                    "trajectory": k,
                }
            )
    return Segments(**stacked(found))


def solution_errors(
    field: VectorField,
    segments: Segments,
    *,
    weights: Sequence[Tensor] | None = None,
    start: Tensor | None = None,
    max_step: float = MAX_STEP,
) -> Tensor:
    """Return the mean square error of solutions for every target, in units of its variance (K,); 0 if unobserved.

    ``weights`` of the layers are held through the solve, by default those of the field; ``start`` has other starts.
    """
    used = field.weights() if weights is None else tuple(weights)
    derivative = held(lambda state: field(state, used), segments.clamped)
    states = solve_rk4(derivative, segments.start if start is None else start, segments.time, max_step=max_step)
    return _mean_square(states[..., : field.config.n_genes], segments)[field.targets]


def noise_of(segments: Segments) -> Tensor:
    """Return the mean square error of the smooth curves, in units of each gene's variance, shape (d,)."""
    return _mean_square(segments.curve, segments)


def _mean_square(levels: Tensor, segments: Segments) -> Tensor:
    total = segments.weight.sum(dim=(0, 1))
    return (segments.weight * (levels - segments.observed) ** 2).sum(dim=(0, 1)) / total.clamp(min=1e-12)


def shoot(
    field: VectorField,
    segments: Segments,
    *,
    n_steps: int,
    learning_rate: float,
    generator: torch.Generator,
    on_step: Callable[[float], None],
) -> list[int]:
    """Fit short solutions, some segments a step, see :func:`minimise`."""

    def errors(weights: Sequence[Tensor]) -> Tensor:
        chosen = torch.randperm(len(segments), generator=generator)[:SEGMENTS_A_STEP]
        return (solution_errors(field, segments.some(chosen), weights=weights) + SMALLEST).sqrt()

    return minimise(field, Sparsity(field), errors, n_steps=n_steps, learning_rate=learning_rate, on_step=on_step)


def solve(
    field: VectorField,
    segments: Segments,
    *,
    start: Tensor,
    n_steps: int,
    unusable: float = UNUSABLE,
    on_step: Callable[[float], None],
) -> list[int]:
    """Fit solutions of whole trajectories and their starts (K, order * d), with L-BFGS, both in place.

    Errors of genes count relative to what they are at first, as in a likelihood with that noise. Nothing is done where
    solutions have lost the observations, beyond ``unusable`` variances; what makes them worse is taken back, as is a
    last round with infinite errors, whose genes are returned. An interruption leaves weights and starts of the round
    before.
    """
    with torch.no_grad():
        first = solution_errors(field, segments, start=start)
        beyond_noise = float((first - noise_of(segments)[field.targets]).mean())
    if not beyond_noise < unusable:
        logger.info(
            "Full solutions are not fitted, because they deviate from the smoothed curves by %.2g variances.",
            beyond_noise,
        )
        return []
    saved = copy.deepcopy(field.state_dict())
    free = start.clone().requires_grad_(True)
    optimiser = torch.optim.LBFGS(
        [*field.parameters(), free],
        max_iter=min(ROUND, n_steps),
        history_size=20,
        line_search_fn="strong_wolfe",
        tolerance_grad=1e-9,
        tolerance_change=1e-12,
    )
    seen = (first > 0).sum()

    def closure() -> Tensor:
        optimiser.zero_grad()
        begin = torch.where(segments.clamped, start, free)
        errors = solution_errors(field, segments, start=begin)
        loss = (errors / (first + SMALLEST)).sum() / seen
        loss.backward()
        on_step(errors.detach().mean().sqrt().item())
        return loss

    last = 1.0
    for _ in range(max(1, round(n_steps / ROUND))):
        try:
            optimiser.step(closure)
        except KeyboardInterrupt:  # in the middle of a line search, whose trial is no result
            field.load_state_dict(saved)
            raise
        with torch.no_grad():
            end = torch.where(segments.clamped, start, free.detach())
            errors = solution_errors(field, segments, start=end)
            after = float((errors / (first + SMALLEST)).sum() / seen)
        if not after <= last:
            field.load_state_dict(saved)
            return [] if math.isfinite(after) else worst(errors, field.targets)
        saved = copy.deepcopy(field.state_dict())
        start.copy_(end)
        if after > (1 - WORTHWHILE) * last:
            break
        last = after
    return []
