"""Adam with proximal steps."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from perturbflow.dynamics._field import VectorField
from perturbflow.dynamics._sparsity import Sparsity

BETAS = (0.9, 0.999)
EPSILON = 1e-8
GATE_LEARNING_RATE = 5.0  # times that of the weights: a gate has to move by several units before it closes


class ProximalAdam:
    """Minimise an error plus a penalty that may have kinks.

    The proximal step of a parameter uses the size of Adam's own step for it, so that a fixed point is one of the
    penalised error and not of Adam's scaling (Yun, Lozano and Yang, 2021, arXiv:2007.07990). The learning rate falls
    along a half cosine to a twentieth; ``extra`` parameters move with it.
    """

    def __init__(
        self,
        field: VectorField,
        sparsity: Sparsity,
        *,
        learning_rate: float,
        n_steps: int,
        extra: list[nn.Parameter] | None = None,
    ) -> None:
        self.field, self.sparsity = field, sparsity
        groups: list[dict[str, Any]] = [{"params": [*field.parameters(), *(extra or [])]}]
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
