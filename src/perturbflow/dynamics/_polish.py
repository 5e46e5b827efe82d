"""Fitting solutions to the observations themselves, with the support of the field fixed."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable

import torch
from torch import Tensor

from perturbflow.dynamics._best import BestWeights, worst
from perturbflow.dynamics._field import VectorField
from perturbflow.dynamics._optimiser import ProximalAdam
from perturbflow.dynamics._shooting import Segments, noise_of, solution_errors
from perturbflow.dynamics._sparsity import Sparsity

logger = logging.getLogger(__name__)

SEGMENTS_A_STEP = 96
UNUSABLE = 0.5  # error of whole solutions beyond the noise, in variances, above which they say nothing: chaos
UNUSABLE_ATTRACTED = 3.0  # the same where solutions were taught to come back, and are not chaotic but out of phase
SMALLEST = 1e-8
ROUND = 25  # iterations of L-BFGS after which it is asked whether they were worthwhile
WORTHWHILE = 0.03  # share of the error that they must save


def shoot(
    field: VectorField,
    segments: Segments,
    *,
    n_steps: int,
    learning_rate: float,
    generator: torch.Generator,
    on_step: Callable[[float], None],
) -> list[int]:
    """Fit short solutions with Adam, some segments a step, in place; ``on_step`` is called with the loss.

    It ends early where the loss becomes infinite or NaN: the weights are then the best before, and the genes whose
    error ended it are returned.
    """
    best = BestWeights(field)
    optimiser = ProximalAdam(field, Sparsity(field), learning_rate=learning_rate, n_steps=n_steps)
    for step in range(n_steps):
        chosen = torch.randperm(len(segments), generator=generator)[:SEGMENTS_A_STEP]
        errors = solution_errors(field, segments.some(chosen))
        loss = (errors + SMALLEST).sqrt().mean()
        value = loss.item()
        if not math.isfinite(value):
            best.restore()
            return worst(errors.detach(), field.targets)
        best.see(step, value)
        optimiser.step(loss, strength=0.0)
        on_step(value)
    return []


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
        logger.info("Whole solutions miss the smooth curves by %.2g variances: they are not fitted.", beyond_noise)
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
