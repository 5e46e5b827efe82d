"""Trajectories made ready for a fit: smoothed, in units of their own spread, in pieces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from perturbflow.dynamics._field import VectorField
from perturbflow.dynamics._matching import Chunks, make_chunks
from perturbflow.dynamics._smoothing import Smoothed, smooth
from perturbflow.dynamics._trajectory import Trajectory


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
