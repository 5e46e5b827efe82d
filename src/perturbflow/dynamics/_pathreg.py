"""PathReg as released: a gate for every input unit of every layer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from perturbflow.dynamics._cnode import total_paths
from perturbflow.dynamics._field import VectorField
from perturbflow.dynamics._gates import expected_gates, initial_log_alpha, sample_gates
from perturbflow.dynamics._paths import path_product
from perturbflow.dynamics._sparsity import Sparsity, Weights

GATE_RATIO = 0.1


class PathReg(Sparsity):
    r"""PathReg as it was released, to compare with.

    Gates :math:`z_l`, one for each input unit of layer l, multiply the columns of :math:`W_l`, and the penalty is
    :math:`\lambda\, (\| |W_L| \cdots |W_1| \|_{1,1} + 0.1 \| G_L \cdots G_1 \|_{1,1}) / d` with :math:`G_l = 1 z_l^T`
    from drawn gates. Because a gate serves all units of the next layer, the product of gates has the same row for every
    target of a dense network: it selects inputs for all targets at once. Aliee, Richter, Solonin, Ibarra, Theis and
    Kilbertus (2022), arXiv:2210.14672, and its code; there means instead of sums divided by d, and a new draw at every
    evaluation of the vector field. :class:`PathRegEdge` is without these restrictions.
    """

    def __init__(self, field: VectorField, *, factors: Tensor | None = None) -> None:
        super().__init__(field, factors=factors)
        chain, _ = self.split(field.weights())
        self.log_alpha = nn.ParameterList(
            nn.Parameter(initial_log_alpha(w[..., :1, :].shape, drop_rate=0.2 if k == 0 else 0.5, like=w))
            for k, w in enumerate(chain)
        )
        self.drawn = [torch.ones_like(a) for a in self.log_alpha]

    def draw(self, weights: Weights, *, generator: torch.Generator | None = None) -> tuple[Tensor, ...]:
        self.drawn = [sample_gates(a, generator=generator) for a in self.log_alpha]
        return self._gated(weights, self.drawn)

    def expected(self, weights: Weights) -> tuple[Tensor, ...]:
        return self._gated(weights, [expected_gates(a) for a in self.log_alpha])

    def penalty(self, weights: Weights) -> Tensor:
        chain, _ = self.split(weights)
        gates = path_product([z.expand_as(w) for z, w in zip(self.drawn, chain, strict=True)])
        open_paths = (self.factors * gates).sum() / len(self.factors)
        return total_paths(*self.split(weights), self.factors) + GATE_RATIO * open_paths

    def __getstate__(self) -> dict[str, Any]:
        # Drawn gates belong to the graph of one step, of which torch makes no copies.
        return self.__dict__ | {"drawn": [gates.detach() for gates in self.drawn]}

    def _gated(self, weights: Weights, gates: list[Tensor]) -> tuple[Tensor, ...]:
        chain, skip = self.split(weights)
        gated = [w * z for w, z in zip(chain, gates, strict=True)]
        return (*gated, *([] if skip is None else [skip * gates[0]]))
