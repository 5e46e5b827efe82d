"""Solutions compared with observations: short ones from many starts, or whole trajectories."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from perturbflow.dynamics._field import VectorField
from perturbflow.dynamics._integrate import held, solve_rk4
from perturbflow.dynamics._problem import Problem

MAX_STEP = 0.25  # in units of the time scale, in which levels change by about their spread


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
        names = ("start", "time", "observed", "curve", "weight", "clamped", "trajectory")
        return Segments(**{name: getattr(self, name)[chosen] for name in names})


def make_segments(problem: Problem, *, order: int, n_intervals: int | None = None) -> Segments:
    """Cut observations into segments of ``n_intervals`` between observations, or take whole trajectories."""
    units = problem.units
    longest = max(len(t.time) for t in problem.trajectories) - 1
    m = longest if n_intervals is None else min(n_intervals, longest)
    starts, times, observed, curves, weights, clamped, owners = [], [], [], [], [], [], []
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
            starts.append(state)
            times.append(trajectory.time[rows] / units.time)
            observed.append(levels[rows])
            curves.append(smooth_levels[rows])
            weights.append(real * ~trajectory.clamped * relative[rows, None])
            clamped.append(np.tile(trajectory.clamped, order))
            owners.append(k)
    return Segments(
        start=torch.tensor(np.stack(starts), dtype=torch.float32),
        time=torch.tensor(np.stack(times), dtype=torch.float32),
        observed=torch.tensor(np.stack(observed), dtype=torch.float32),
        curve=torch.tensor(np.stack(curves), dtype=torch.float32),
        weight=torch.tensor(np.stack(weights), dtype=torch.float32),
        clamped=torch.tensor(np.stack(clamped)),
        trajectory=torch.tensor(owners),
    )


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
