r"""Integral matching: vector fields fitted to smoothed curves without solving an equation.

For a window from a to b of length h, the miss of target i is :math:`(x_i(b) - x_i(a) - \int_a^b f_i(x(s))\,ds) / h`,
with the smoothed curve x and the trapezoidal rule; the sum of its squares relative to that of the changes per time is
the relative error. Dattner and Klaassen (2015), *Electron. J. Stat.* 9, 1939.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from perturbflow.dynamics._field import TargetField, VectorField
from perturbflow.dynamics._network_errors import NetworkErrors
from perturbflow.dynamics._optimiser import minimise
from perturbflow.dynamics._penalties import Sparsity
from perturbflow.dynamics._smoothing import Smoothed
from perturbflow.dynamics._trajectory import Trajectory

FINE_POINTS = 60  # of a trajectory, at least
CHUNK_POINTS = 120  # at most; longer trajectories are cut, so that a step has bounded memory
CHUNKS_A_STEP = 24
PER_PIECE = ("state", "goal", "step", "valid", "weight", "trajectory")
SMALLEST_ERROR = 1e-4  # relative; what a square-root loss takes for perfect


@dataclass(frozen=True)
class Chunks:
    """Smoothed curves on fine grids, in C pieces of L points."""

    state: Tensor  # on the grid, scaled (C, L, order * d)
    goal: Tensor  # what changes are measured along: the states, unless these are displaced (C, L, order * d)
    step: Tensor  # of the grid, scaled; 0 after the end of a shorter piece (C, L - 1)
    start: Tensor  # first point of every window, a position in the grid (W,)
    end: Tensor  # last point of every window (W,)
    valid: Tensor  # whether a window lies within a piece (C, W)
    weight: Tensor  # of a piece for every gene; 0 where an intervention holds the gene (C, d)
    trajectory: Tensor  # that a piece belongs to (C,)
    least_change: (
        Tensor  # mean square per time that errors are at least relative to, from other curves or 0 (order * d,)
    )

    def __len__(self) -> int:
        return len(self.state)

    def pieces(self, chosen: Tensor) -> Self:
        """Return some of the pieces."""
        return replace(self, **{name: getattr(self, name)[chosen] for name in PER_PIECE})

    def to(self, device: torch.device | str) -> Self:
        """Return the chunks on a device."""
        return replace(self, **{field.name: getattr(self, field.name).to(device) for field in fields(self)})


def make_chunks(
    trajectories: Sequence[Trajectory],
    curves: Sequence[Smoothed],
    *,
    scale: NDArray[np.float64],
    time_scale: float,
    order: int,
    window: float = 1 / 6,
) -> Chunks:
    """Cut smoothed trajectories into pieces of equal length, in units ``scale`` (d,) and ``time_scale``.

    ``window`` is the length of the windows over which rates are integrated, a share of the number of observations.
    """
    counts = [len(t.time) for t in trajectories]
    typical = float(np.median(counts))
    fine = max(1, math.ceil(FINE_POINTS / typical))
    span = fine * max(1, round(window * min(typical, CHUNK_POINTS / fine)))
    longest = min(max((n - 1) * fine + 1 for n in counts), CHUNK_POINTS + span)
    grids, owners = [], []
    for k, trajectory in enumerate(trajectories):
        position = np.linspace(0, len(trajectory.time) - 1, (len(trajectory.time) - 1) * fine + 1)
        grid = np.interp(position, np.arange(len(trajectory.time)), trajectory.time)
        n_pieces = max(1, math.ceil((len(grid) - span) / (longest - span)))
        for first in np.linspace(0, max(len(grid) - longest, 0), n_pieces).astype(int):
            grids.append(grid[first : first + longest])
            owners.append(k)
    found: list[dict[str, Any]] = []
    starts = np.arange(longest - span) if longest > span else np.array([0])
    ends = np.minimum(starts + span, longest - 1)
    for grid, k in zip(grids, owners, strict=True):
        curve, n = curves[k], len(grid)
        points = curve(grid) / scale
        if order == 2:
            points = np.concatenate([points, curve.derivative(grid) * time_scale / scale], axis=1)
        inside = ends < n
        inside[0] = True  # a trajectory that is shorter than a window is one window
        found.append(
            {
                "state": np.concatenate([points, np.repeat(points[-1:], longest - n, axis=0)]),
                "step": np.concatenate([np.diff(grid) / time_scale, np.zeros(longest - n)]),
                "valid": inside,
                "weight": (~trajectories[k].clamped).astype(float),
                "trajectory": k,
            }
        )
    pieces = stacked(found)
    return Chunks(
        **pieces,
        goal=pieces["state"],
        start=torch.tensor(starts),
        end=torch.tensor(ends),
        least_change=torch.zeros(order * len(scale)),
    )


def stacked(parts: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
    """Return arrays of several parts by name, one after the other along a first axis, numbers in single precision."""
    arrays = {name: np.stack([part[name] for part in parts]) for name in parts[0]}
    return {name: torch.tensor(a, dtype=torch.float32 if a.dtype.kind == "f" else None) for name, a in arrays.items()}


@dataclass(frozen=True)
class MatchedWindows:
    """Data that the mechanisms of K targets are matched to, and their inputs: all that training does not change."""

    inputs: Tensor  # of the networks, see :meth:`VectorField.network_inputs`
    level: Tensor  # of the targets on the grid (K, C * L)
    quadrature: Tensor  # weights of the trapezoidal rule over windows (C, W, L)
    change: Tensor  # over windows per time, times the root of their weight (K, C, W)
    per_time: Tensor  # root of the weight over the duration of a window (K, C, W)
    size: Tensor  # weighted sums of the squared changes per time, or what errors are at least relative to (K, C)

    @classmethod
    def of(cls, field: VectorField, chunks: Chunks) -> Self:
        """Return what the mechanisms of a field are matched to in smoothed curves."""
        state = chunks.state.reshape(-1, chunks.state.shape[-1])
        highest = field.targets + (field.config.order - 1) * field.config.n_genes
        change, duration = _changes(chunks, highest)
        weight = chunks.valid[..., None] * chunks.weight[:, None, field.targets]
        size = (weight * change**2).sum(dim=1)
        size = torch.maximum(size, weight.sum(dim=1) * chunks.least_change[highest])
        root = weight.sqrt()
        return cls(
            inputs=field.network_inputs(state),
            level=state.T[field.targets],
            quadrature=_quadrature(chunks),
            change=(root * change).permute(2, 0, 1).contiguous(),
            per_time=(root / duration).permute(2, 0, 1).contiguous(),
            size=size.T,
        )

    def missed(self, rates: Tensor, some: slice = slice(None)) -> tuple[Tensor, Tensor]:
        """Return by how much rates (n, C * L) of some of the targets miss their changes, and their `per_time`, (C, n, W)."""
        n_pieces, _, n_points = self.quadrature.shape
        over = torch.bmm(rates.view(-1, n_pieces, n_points).transpose(0, 1), self.quadrature.mT)
        per_time = self.per_time[some].transpose(0, 1)
        return self.change[some].transpose(0, 1) - per_time * over, per_time


def together(parts: Sequence[Chunks]) -> Chunks:
    """Return the pieces of several of the same grid, one after the other."""
    return replace(parts[0], **{name: torch.cat([getattr(part, name) for part in parts]) for name in PER_PIECE})


def window_errors(
    field: VectorField, windows: MatchedWindows, *, weights: Sequence[Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """Return weighted sums of the squared misses and of the squared changes per time, (K,) each."""
    used = field.weights() if weights is None else weights
    config = field.config
    if isinstance(field, TargetField) and len(field.matrices) == 2 and config.activation == "elu" and not config.skip:
        first, second = used
        highest = functional.softplus(field.raw_range) if config.production == "bounded" else None
        decay = field.decay_rates() if config.decay else None
        miss = NetworkErrors.apply(windows, first, field.biases[0], second, field.biases[1], highest, decay)
        return miss, windows.size.sum(dim=1)
    miss, size = piece_errors(field, windows, weights=used)
    return miss.sum(dim=1), size.sum(dim=1)


def piece_errors(
    field: VectorField, windows: MatchedWindows, *, weights: Sequence[Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """Return what :func:`window_errors` sums, of every piece, (K, C)."""
    miss, _ = windows.missed(field.rates_of(windows.inputs, windows.level, weights))
    return (miss**2).sum(dim=2).T, windows.size


def mean_square_change(chunks: Chunks) -> Tensor:
    """Return the mean square change per time over windows of every part of the state, (order * d,); 0 where all are held."""
    change, _ = _changes(chunks, torch.arange(chunks.state.shape[-1]))
    weight = (
        chunks.valid[..., None] * chunks.weight.repeat(1, len(chunks.least_change) // chunks.weight.shape[1])[:, None]
    )
    return (weight * change**2).sum(dim=(0, 1)) / weight.sum(dim=(0, 1)).clamp(min=1)


def _quadrature(chunks: Chunks) -> Tensor:
    """Return weights of the trapezoidal rule over every window at every point of a piece (C, W, L)."""
    interval = torch.arange(chunks.step.shape[1], device=chunks.step.device)
    inside = (interval >= chunks.start[:, None]) & (interval < chunks.end[:, None])
    half = chunks.step[:, None] / 2 * inside
    return functional.pad(half, (0, 1)) + functional.pad(half, (1, 0))


def _changes(chunks: Chunks, columns: Tensor) -> tuple[Tensor, Tensor]:
    """Return changes per time of parts of the state over windows (C, W, K), and the durations of windows (C, W, 1)."""
    level = chunks.goal[..., columns]
    time = functional.pad(chunks.step.cumsum(dim=1), (1, 0))
    duration = (time[:, chunks.end] - time[:, chunks.start]).clamp(min=1e-12)[..., None]
    return (level[:, chunks.end] - level[:, chunks.start]) / duration, duration


def root_error(miss: Tensor, size: Tensor) -> Tensor:
    r"""Return the root of the relative error of every target.

    Its sum over targets is the loss of the square-root lasso (Belloni, Chernozhukov and Wang, 2011): a strength of
    sparsity then suits targets of any noise.
    """
    return (miss / size.clamp(min=1e-12) + SMALLEST_ERROR**2).sqrt()


def drawn_windows(
    field: VectorField, chunks: Chunks, n_steps: int, generator: torch.Generator
) -> Iterator[MatchedWindows]:
    """Yield what every step is matched to: all pieces, or others every time where a step takes no more."""
    if len(chunks) <= CHUNKS_A_STEP:
        yield from itertools.repeat(MatchedWindows.of(field, chunks), n_steps)
        return
    for _ in range(n_steps):
        some = torch.randperm(len(chunks), generator=generator)[:CHUNKS_A_STEP]
        yield MatchedWindows.of(field, chunks.pieces(some))


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
    on_step: Callable[[float], None] | None = None,
) -> list[int]:
    """Fit a field to smoothed curves, see :func:`minimise`; gates and the pieces of a step are drawn."""
    windows = drawn_windows(field, chunks, n_steps, generator)

    def errors(weights: Sequence[Tensor]) -> Tensor:
        now = next(windows)
        return root_error(*window_errors(field, now, weights=sparsity.draw(weights, generator=generator)))

    return minimise(
        field,
        sparsity,
        errors,
        strength=strength,
        n_steps=n_steps,
        learning_rate=learning_rate,
        n_free_steps=n_free_steps,
        on_step=on_step,
    )


def matching_error(field: VectorField, chunks: Chunks, weights: Sequence[Tensor] | None = None) -> Tensor:
    """Return the root of the relative error of every target (K,), with weights of the layers or those of the field."""
    with torch.no_grad():
        miss, size = torch.zeros(len(field.targets)), torch.zeros(len(field.targets))
        for some in torch.arange(len(chunks)).split(CHUNKS_A_STEP):
            part = window_errors(field, MatchedWindows.of(field, chunks.pieces(some)), weights=weights)
            miss, size = miss + part[0], size + part[1]
        return root_error(miss, size)
