"""Selection of genes that move: others are no targets of a fit, and what is the same everywhere is no regulator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import fdtrc

from perturbflow.dynamics._smoothing import Smoothed, smooth
from perturbflow.dynamics._trajectory import Trajectory

FloatArray = NDArray[np.float64]
Mask = NDArray[np.bool_]

ROUNDING = 1e-6  # of the level of a gene: more than that of float32
DUST = 1e-9  # of what the gene changes that changes most
NEGLIGIBLE = 0.5  # of what a gene changes that clearly moves; what is smaller and mere noise does not move
SIGNIFICANT = 0.005  # chance that mere noise looks like a change
STANDARD_ERRORS = 3  # by which mere noise must be below 0 for its mean to be


@dataclass(frozen=True)
class Movement:
    """Masks of what can be learned about every gene and from it, each of shape (d,).

    A gene is at rest where it changes no more than rounding does, or little next to others and no more than its own
    noise. Noise cannot be told from change along fewer than five times: there every change counts.
    """

    moves: Mask  # along time where no intervention holds it
    varies: Mask  # along time or between trajectories, also where an intervention holds it
    is_negative: Mask  # below 0, on average and by more than noise

    @classmethod
    def of(cls, trajectories: Sequence[Trajectory]) -> Movement:
        """Look at every gene along all trajectories."""
        curves = [smooth(t) for t in trajectories]
        change, is_change = _along_time(trajectories, curves, held=False)
        imposed, is_imposed = _along_time(trajectories, curves, held=True)
        height = np.max([np.abs(t.values).max(axis=0) for t in trajectories], axis=0)
        rounding = np.maximum(ROUNDING * height, DUST * change.max())
        clear = change[is_change & (change > rounding)]
        least = NEGLIGIBLE * np.median(clear) if len(clear) else 0.0
        moves = (change > rounding) & (is_change | (change >= least))
        varies = moves | (is_imposed & (imposed > rounding)) | _between(trajectories, rounding)

        mean = np.mean([t.values.mean(axis=0) for t in trajectories], axis=0)
        error = change / np.sqrt(sum(len(t.time) for t in trajectories))
        # Noise may make single levels of an expressed gene negative, but not the mean; or the mean of one that is at 0.
        below = np.where(is_change, mean <= 0, mean < -STANDARD_ERRORS * error)
        return cls(moves, varies, below & (np.min([t.values.min(axis=0) for t in trajectories], axis=0) < 0))


def rest(trajectory: Trajectory, genes: Mask) -> Trajectory:
    """Return the trajectory with some genes (d,) held: at their mean, or as an intervention already does."""
    mean = np.average(trajectory.values, axis=0, weights=trajectory.weight)
    values = np.where(genes & ~trajectory.clamped, mean, trajectory.values)
    return replace(trajectory, values=values, clamped=trajectory.clamped | genes)


def _along_time(
    trajectories: Sequence[Trajectory], curves: Sequence[Smoothed], *, held: bool
) -> tuple[FloatArray, Mask]:
    """Return the spread of every gene within trajectories, those that hold it or the others, and if it is beyond noise.

    Under mere noise the squares of the curve about its mean and those of the residuals are as their degrees of freedom.
    """
    square, total, signal, residual, fitted, left = np.zeros((6, trajectories[0].n_genes))
    for t, curve in zip(trajectories, curves, strict=True):
        counts, weight = t.clamped == held, t.weight[:, None]
        n = np.rint(curve.freedom.max()) if len(curve.curve.x) < 5 else len(curve.curve.x)
        square += counts * (weight * _centred(t.values, t.weight) ** 2).sum(axis=0)
        total += counts * t.weight.sum()
        signal += counts * (weight * _centred(curve(t.time), t.weight) ** 2).sum(axis=0)
        residual += counts * curve.noise**2 * (n - curve.freedom)
        fitted += counts * (curve.freedom - 1)
        left += counts * (n - curve.freedom)
    return np.sqrt(square / np.maximum(total, 1.0)), _is_more(signal, fitted, residual, left)


def _between(trajectories: Sequence[Trajectory], rounding: FloatArray) -> Mask:
    """Return the genes whose mean differs between trajectories by more than rounding and noise."""
    total = np.array([t.weight.sum() for t in trajectories])
    mean = np.stack([np.average(t.values, axis=0, weights=t.weight) for t in trajectories])
    between = (total[:, None] * _centred(mean, total) ** 2).sum(axis=0)
    within = np.sum([(t.weight[:, None] * _centred(t.values, t.weight) ** 2).sum(axis=0) for t in trajectories], axis=0)
    n, k = sum(len(t.time) for t in trajectories), len(trajectories)
    freedom = np.broadcast_to([[k - 1.0], [float(n - k)]], (2, len(rounding)))
    return (np.ptp(mean, axis=0) > rounding) & _is_more(between, freedom[0], within, freedom[1])


def _is_more(square: FloatArray, freedom: FloatArray, noise: FloatArray, freedom_of_noise: FloatArray) -> Mask:
    """Return where a mean square is significantly more than that of the noise, in an F test."""
    known = (noise > 0) & (freedom_of_noise > 0) & (freedom > 0)
    ratio = (square / np.where(known, freedom, 1.0)) / np.where(
        known, noise / np.where(known, freedom_of_noise, 1.0), 1.0
    )
    chance = fdtrc(np.where(known, freedom, 1.0), np.where(known, freedom_of_noise, 1.0), ratio)
    return np.where(known, chance < SIGNIFICANT, square > 0)


def _centred(values: FloatArray, weight: FloatArray) -> FloatArray:
    return values - np.average(values, axis=0, weights=weight)
