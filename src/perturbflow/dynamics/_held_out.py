"""Held-out data by which a fit of dynamics makes its choices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from perturbflow.dynamics._matching import mean_square_change
from perturbflow.dynamics._problem import Problem, Units
from perturbflow.dynamics._smoothing import smooth
from perturbflow.dynamics._trajectory import Trajectory

SHARE = 0.25
FEWEST_TRAJECTORIES = 4
FEWEST_TIMES = 8
LEAST_CHANGE = 0.01  # of the mean square change of a gene: what errors are relative to where it hardly changes


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
