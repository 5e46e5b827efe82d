"""L0: gates that are open with a probability."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from perturbflow.dynamics._field import VectorField
from perturbflow.dynamics._gates import expected_gates, initial_log_alpha, open_probability, sample_gates
from perturbflow.dynamics._sparsity import Sparsity, Weights


class L0(Sparsity):
    r"""Expected number of open hard-concrete gates, :math:`\lambda \sum P(z \ne 0) / d`.

    With a network per target there is a gate for every input of every target, as in L0-NDDE (Boussard, Debouchage and
    Saulus); in a dense network there is one for every weight (Louizos, Welling and Kingma 2018, arXiv:1712.01312).
    """

    def __init__(self, field: VectorField, *, factors: Tensor | None = None, drop_rate: float = 0.2) -> None:
        super().__init__(field, factors=factors)
        weights = field.weights()
        self.dense = field.config.structure == "dense"
        gated = weights if self.dense else [weights[0][:, :1, :]]
        self.log_alpha = nn.ParameterList(
            nn.Parameter(initial_log_alpha(w.shape, drop_rate=drop_rate, like=w)) for w in gated
        )

    def _gated(self, weights: Weights, gates: list[Tensor]) -> tuple[Tensor, ...]:
        if self.dense:
            return tuple(w * z for w, z in zip(weights, gates, strict=True))
        layers, skip = self.split(weights)
        return (layers[0] * gates[0], *layers[1:], *([] if skip is None else [skip * gates[0]]))

    def draw(self, weights: Weights, *, generator: torch.Generator | None = None) -> tuple[Tensor, ...]:
        return self._gated(weights, [sample_gates(a, generator=generator) for a in self.log_alpha])

    def expected(self, weights: Weights) -> tuple[Tensor, ...]:
        return self._gated(weights, [expected_gates(a) for a in self.log_alpha])

    def penalty(self, weights: Weights) -> Tensor:
        probabilities = [open_probability(a) for a in self.log_alpha]
        if not self.dense:
            return (self.factors * probabilities[0][:, 0]).sum() / len(self.factors)
        first, *others = probabilities
        return ((first * self.factors.mean(dim=0)).sum() + sum(p.sum() for p in others)) / len(self.factors)
