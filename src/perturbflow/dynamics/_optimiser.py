"""Minimising errors under a penalty: Adam with proximal steps, and the best weights where a loss becomes infinite."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from perturbflow.dynamics._field import VectorField
from perturbflow.dynamics._penalties import Sparsity

BETAS = (0.9, 0.999)
EPSILON = 1e-8
EVERY = 25  # steps between copies of the weights
GATE_LEARNING_RATE = 5.0  # times that of the weights: a gate has to move by several units before it closes


class ProximalAdam:
    """Minimise an error plus a penalty that may have kinks.

    The proximal step of a parameter uses the size of Adam's own step for it, so that a fixed point is one of the
    penalised error and not of Adam's scaling (Yun, Lozano and Yang, 2021, arXiv:2007.07990). The learning rate falls
    along a half cosine to a twentieth.
    """

    def __init__(self, field: VectorField, sparsity: Sparsity, *, learning_rate: float, n_steps: int) -> None:
        self.field, self.sparsity = field, sparsity
        groups: list[dict[str, Any]] = [{"params": [*field.parameters()]}]
        gates = list(sparsity.parameters())
        if gates:
            groups.append({"params": gates, "lr": GATE_LEARNING_RATE * learning_rate})
        self.adam = torch.optim.Adam(groups, lr=learning_rate, betas=BETAS, eps=EPSILON, fused=True)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.adam, lambda k: 0.05 + 0.95 * (1 + math.cos(math.pi * min(k / max(n_steps, 1), 1))) / 2
        )

    def step(self, loss: Tensor, *, strength: float) -> None:
        """Take a gradient step, and a proximal one with the given strength of sparsity."""
        self.adam.zero_grad(set_to_none=True)
        loss.backward()
        self.adam.step()
        if strength > 0:
            with torch.no_grad():
                self.sparsity.proximal_(self.field, strength, self._steps())
        self.schedule.step()

    def _steps(self) -> dict[str, Tensor]:
        """Return the size of Adam's last step for every entry, per unit of gradient."""
        rate = self.adam.param_groups[0]["lr"]
        steps = {}
        for name, parameter in self.field.named_parameters():
            state = self.adam.state.get(parameter)
            if state:
                second = state["exp_avg_sq"] / (1 - BETAS[1] ** float(state["step"]))
                steps[name] = rate / (second.sqrt() + EPSILON)
        return steps


class BestWeights:
    """Keeps a copy of the weights of some modules at the lowest loss, looked at now and then."""

    def __init__(self, *modules: nn.Module) -> None:
        self.modules = modules
        self.loss = math.inf
        self.states = self._copies()

    def see(self, step: int, loss: float) -> None:
        """Keep the weights, of which the loss is, if they are the best; before they are changed."""
        if step % EVERY == 0 and loss < self.loss:
            self.loss, self.states = loss, self._copies()

    def restore(self) -> None:
        """Give the modules the weights that were kept."""
        for module, state in zip(self.modules, self.states, strict=True):
            module.load_state_dict(state)

    def _copies(self) -> list[dict[str, Tensor]]:
        return [copy.deepcopy(module.state_dict()) for module in self.modules]


def worst(errors: Tensor, targets: Tensor) -> list[int]:
    """Return the genes whose errors are infinite or NaN, or else that with the largest."""
    bad = ~errors.isfinite()
    if not bad.any():
        bad = errors == errors.max()
    return [int(gene) for gene in targets[bad]]


def minimise(
    field: VectorField,
    sparsity: Sparsity,
    errors: Callable[[Sequence[Tensor]], Tensor],
    *,
    n_steps: int,
    learning_rate: float,
    strength: float = 0.0,
    n_free_steps: int = 0,
    on_step: Callable[[float], None] | None = None,
) -> list[int]:
    """Minimise the mean over targets of errors plus the penalty, in place; ``on_step`` is called with the loss.

    ``errors`` returns those of a step (K,), given the weights of the layers. The first ``n_free_steps`` have no penalty.
    It ends early where the loss becomes infinite or NaN: the weights are then the best before, and the genes whose errors
    ended it are returned.
    """
    best = BestWeights(field, sparsity)
    optimiser = ProximalAdam(field, sparsity, learning_rate=learning_rate, n_steps=n_steps)
    for step in range(n_steps):
        weights = field.weights()
        found = errors(weights)
        loss = found.mean()
        now = strength if step >= n_free_steps else 0.0
        if now > 0:
            loss = loss + now * sparsity.penalty(weights)
        value = loss.item()
        if not math.isfinite(value):
            best.restore()
            return worst(found.detach(), field.targets)
        if step == n_free_steps:
            best.loss = math.inf  # what was lost before cannot be compared
        best.see(step, value)
        optimiser.step(loss, strength=now)
        if on_step is not None:
            on_step(value)
    return []
