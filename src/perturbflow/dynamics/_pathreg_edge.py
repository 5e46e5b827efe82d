"""PathReg with a gate for every weight."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from perturbflow.dynamics._cnode import total_paths
from perturbflow.dynamics._field import VectorField
from perturbflow.dynamics._gates import expected_gates, initial_log_alpha, open_probability, sample_gates
from perturbflow.dynamics._paths import path_product
from perturbflow.dynamics._sparsity import Sparsity, Weights


class PathRegEdge(Sparsity):
    r"""PathReg with the penalty that the paper means: one gate a weight, and probabilities along paths.

    :math:`\lambda \big( \| |z_L W_L| \cdots |z_1 W_1| \|_{1,1} + c\, \| P_L \cdots P_1 \|_{1,1} \big) / d` with
    expected gates z in the first term and :math:`P_l = P(z_l \ne 0)`. The second term is the expected number of open
    paths from each input to each target, divided by the number of paths between them, so that it lies between 0 and the
    number of inputs. Gates can close all paths between one input and one target. After Aliee et al. (2022),
    arXiv:2210.14672, equation of PathReg.
    """

    def __init__(
        self, field: VectorField, *, factors: Tensor | None = None, gate_ratio: float = 1.0, drop_rate: float = 0.2
    ) -> None:
        super().__init__(field, factors=factors)
        self.gate_ratio = gate_ratio
        chain, _ = self.split(field.weights())
        self.log_alpha = nn.ParameterList(
            nn.Parameter(initial_log_alpha(w.shape, drop_rate=drop_rate, like=w)) for w in chain
        )

    def draw(self, weights: Weights, *, generator: torch.Generator | None = None) -> tuple[Tensor, ...]:
        return self._gated(weights, [sample_gates(a, generator=generator) for a in self.log_alpha])

    def expected(self, weights: Weights) -> tuple[Tensor, ...]:
        return self._gated(weights, [expected_gates(a) for a in self.log_alpha])

    def penalty(self, weights: Weights) -> Tensor:
        return total_paths(*self.split(self.expected(weights)), self.factors) + self.gate_ratio * self._open_paths()

    def _open_paths(self) -> Tensor:
        """Return the expected share of open paths, summed over inputs, mean over targets."""
        probabilities = [open_probability(a) for a in self.log_alpha]
        n_paths = path_product([torch.ones_like(p) for p in probabilities])
        return (self.factors * path_product(probabilities) / n_paths).sum() / len(self.factors)

    def _gated(self, weights: Weights, gates: list[Tensor]) -> tuple[Tensor, ...]:
        chain, skip = self.split(weights)
        gated = [w * z for w, z in zip(chain, gates, strict=True)]
        return (*gated, *([] if skip is None else [skip]))
