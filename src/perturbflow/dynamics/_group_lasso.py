"""Adaptive group lasso: inputs disappear as a whole."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from perturbflow.dynamics._field import VectorField
from perturbflow.dynamics._sparsity import Sparsity, first_layer


def group_soft_threshold(groups: Tensor, amount: Tensor, *, dim: int) -> Tensor:
    r"""Return :math:`w \max(1 - a / \|w\|_2, 0)`, the proximal map of :math:`a \|w\|_2`, for groups along ``dim``."""
    norm = groups.norm(dim=dim, keepdim=True)
    return groups * (1 - amount / norm.clamp(min=torch.finfo(groups.dtype).tiny)).clamp(min=0)


class GroupLasso(Sparsity):
    r"""Norms of all weights that leave an input, :math:`\lambda \sum_{ij} f_{ij} \|W_{1,i}[:, j]\|_2 / d`, proximal.

    With a network per target, input j disappears from target i. In a dense network it disappears from all. The factors
    f make it adaptive: a second fit divides by the norms of the first, :meth:`adapt`. NGM; Bellot, Branson and
    van der Schaar (2022), arXiv:2105.02522.
    """

    def proximal_(self, field: VectorField, strength: float, steps: Mapping[str, Tensor]) -> None:
        matrix = first_layer(field)
        dense = field.config.structure == "dense"
        dim = 0 if dense else 1
        # One step a group, so that the map stays a multiplication of the group.
        amount = steps["matrices.0"].mean(dim=dim, keepdim=True) * strength
        amount = amount * (self.factors.mean(dim=0) if dense else self.factors[:, None, :] / len(self.factors))
        matrix.data.copy_(group_soft_threshold(matrix.data, amount, dim=dim))

    def adapt(self, field: VectorField) -> None:
        """Divide the factors by the norms of the groups, relative to the mean norm of the target's inputs."""
        matrix = first_layer(field).data
        norms = matrix.norm(dim=0).expand_as(self.factors) if matrix.dim() == 2 else matrix.norm(dim=1)
        relative = norms / norms.mean(dim=1, keepdim=True).clamp(min=1e-12)
        self.factors.copy_(self.factors / (relative + 0.1))
