"""Trajectories made ready for a fit: smoothed, in units of their own spread, in pieces, a part of them held out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perturbflow.dynamics._field import VectorField
from perturbflow.dynamics._matching import Chunks, make_chunks, mean_square_change, together
from perturbflow.dynamics._settings import DynamicsSettings, FieldConfig
from perturbflow.dynamics._smoothing import Smoothed, smooth
from perturbflow.dynamics._trajectory import Trajectory

SHARE = 0.25  # of trajectories or times that are held out
FEWEST_TRAJECTORIES = 4
FEWEST_TIMES = 8
LEAST_CHANGE = 0.01  # of the mean square change of a gene: what errors are relative to where it hardly changes
N_COPIES = 3  # that are displaced
RETURN_RATE = 2.0  # at which displacements fade, per unit of time


@dataclass(frozen=True)
class Units:
    """Units of a model: levels are divided by the spread of each gene, times by a typical time of change."""

    scale: NDArray[np.float64]  # standard deviation (d,); of means, or the smallest of all, for what does not move
    time: float  # median over genes of spread / root mean square of the rate of change

    @classmethod
    def of(cls, trajectories: Sequence[Trajectory], curves: Sequence[Smoothed]) -> Units:
        """Measure the units on trajectories; a gene that an intervention holds does not count there."""
        levels = np.concatenate(
            [np.where(t.clamped, np.nan, c(t.time)) for t, c in zip(trajectories, curves, strict=True)]
        )
        rates = np.concatenate(
            [np.where(t.clamped, np.nan, c.derivative(t.time)) for t, c in zip(trajectories, curves, strict=True)]
        )
        seen = np.isfinite(levels).any(axis=0)
        scale, speed, rounding = np.ones(levels.shape[1]), np.zeros(levels.shape[1]), np.zeros(levels.shape[1])
        scale[seen] = np.nanstd(levels[:, seen], axis=0)
        speed[seen] = np.sqrt(np.nanmean(rates[:, seen] ** 2, axis=0))
        rounding[seen] = 1e-12 * np.nanmax(np.abs(levels[:, seen]), axis=0)
        moves = (scale > np.maximum(1e-9 * scale.max(), rounding)) & (speed > 0)
        duration = max(float(t.time[-1] - t.time[0]) for t in trajectories)
        time = float(np.median(scale[moves] / speed[moves])) if moves.any() else duration
        smallest = scale[moves].min() if moves.any() else 1.0
        # What does not move acts on others by how it differs between trajectories.
        mean = np.stack([c(t.time).mean(axis=0) for t, c in zip(trajectories, curves, strict=True)])
        differs = np.ptp(mean, axis=0) > 1e-6 * np.abs(mean).max(axis=0)
        scale[~moves] = np.where(differs, mean.std(axis=0), smallest)[~moves]
        return cls(scale=scale, time=min(max(time, 1e-3 * duration), duration))


@dataclass(frozen=True)
class Problem:
    """Data that a vector field is fitted to."""

    trajectories: tuple[Trajectory, ...]  # observations
    curves: tuple[Smoothed, ...]  # their smooth curves
    chunks: Chunks  # the curves in pieces, scaled
    units: Units  # of the scaled numbers

    @classmethod
    def of(
        cls, trajectories: Sequence[Trajectory], *, order: int, units: Units | None = None, window: float = 1 / 6
    ) -> Problem:
        """Smooth, scale and cut trajectories, in units of their own unless others are given.

        ``window`` is the length of the windows of integral matching, a share of the number of observations.
        """
        curves = [smooth(t) for t in trajectories]
        units = units or Units.of(trajectories, curves)
        chunks = make_chunks(trajectories, curves, scale=units.scale, time_scale=units.time, order=order, window=window)
        return cls(tuple(trajectories), tuple(curves), chunks, units)

    def some(self, chosen: Sequence[int]) -> Problem:
        """Return the problem of trajectories at some positions, possibly repeated, in the same units."""
        pieces = [torch.nonzero(self.chunks.trajectory == k)[:, 0] for k in chosen]
        owners = torch.arange(len(pieces)).repeat_interleave(torch.tensor([len(mine) for mine in pieces]))
        return Problem(
            tuple(self.trajectories[k] for k in chosen),
            tuple(self.curves[k] for k in chosen),
            replace(self.chunks.pieces(torch.cat(pieces)), trajectory=owners),
            self.units,
        )


def start_from_data(field: VectorField, chunks: Chunks) -> None:
    """Set what data say about a field before it is fitted: centres of the inputs, rates of decay, maxima of production.

    The rate of decay is the regression of the rate of change on the level, the maximum three times what the data need:
    a lower start makes the logistic function saturate, and its gradient vanish.
    """
    with torch.no_grad():
        states = chunks.state
        field.centre.copy_(states[..., field.inputs].reshape(-1, field.config.n_inputs).mean(dim=0))
        if field.config.order == 2:
            return
        moving = chunks.step > 0
        rate = (states.diff(dim=1) / chunks.step.clamp(min=1e-12)[..., None])[moving]
        level = ((states[:, 1:] + states[:, :-1]) / 2)[moving]
        spread = level.var(dim=0).clamp(min=1e-6)
        decay = (-((level - level.mean(dim=0)) * rate).mean(dim=0) / spread).clamp(0.1, 3.0)
        needed = 3 * torch.quantile(rate + decay * level, 0.99, dim=0).clamp(0.1, 30.0)
        field.raw_decay.copy_(torch.expm1(decay)[field.targets].log())
        field.raw_range.copy_((needed + torch.log(-torch.expm1(-needed)))[field.targets])


def hold_out(
    trajectories: Sequence[Trajectory], *, order: int, seed: int, window: float
) -> tuple[Problem, Problem | None, str]:
    """Problem to fit, the one to judge with, and what was held out: "trajectories", "time" or "nothing".

    A quarter of the trajectories is held out if there are at least four; otherwise the last quarter of the times of
    each; nothing if they have fewer than eight.
    """
    n = len(trajectories)
    units = Units.of(trajectories, [smooth(t) for t in trajectories])
    whole = Problem.of(trajectories, order=order, units=units, window=window)
    if n >= FEWEST_TRAJECTORIES:
        chosen = np.random.default_rng(seed).permutation(n)
        n_held_out = max(1, round(SHARE * n))
        # A gene that rests in one part and moves in the other would have errors relative to nothing.
        least = LEAST_CHANGE * mean_square_change(whole.chunks)
        whole = replace(whole, chunks=replace(whole.chunks, least_change=least))
        return whole.some(sorted(chosen[n_held_out:])), whole.some(sorted(chosen[:n_held_out])), "trajectories"
    if min(len(t.time) for t in trajectories) < FEWEST_TIMES:
        return whole, None, "nothing"
    # Smoothed apart, so that what is held out does not shape the curves that are fitted.
    cuts = [len(t.time) - max(3, round(SHARE * len(t.time))) for t in trajectories]
    early = [t.rows(slice(0, cut)) for t, cut in zip(trajectories, cuts, strict=True)]
    late = [t.rows(slice(cut, None)) for t, cut in zip(trajectories, cuts, strict=True)]
    train = Problem.of(early, order=order, units=units, window=window)
    valid = Problem.of(late, order=order, units=units, window=window)
    # Where a gene has come to rest its errors are relative to how it moved before, and not to nothing.
    chunks = replace(valid.chunks, least_change=mean_square_change(train.chunks))
    return train, replace(valid, chunks=chunks), "time"


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
    pull = -RETURN_RATE * noise[..., -d:] - (RETURN_RATE**2 / 2 * noise[..., :d] if order == 2 else 0.0)
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
