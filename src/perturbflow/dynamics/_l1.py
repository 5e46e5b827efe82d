"""Lasso of all weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from perturbflow.dynamics._field import VectorField
from perturbflow.dynamics._sparsity import Sparsity


def soft_threshold(x: Tensor, amount: Tensor | float) -> Tensor:
    r"""Return :math:`\operatorname{sign}(x)\max(|x| - a, 0)`, the proximal map of :math:`a|x|`."""
    return torch.sign(x) * (x.abs() - amount).clamp(min=0)


class L1(Sparsity):
    r"""Sum of the absolute values of all weights, :math:`\lambda \sum_l \|W_l\|_{1,1} / d`, with proximal steps.

    Sparse weights; whether an input disappears is up to chance, because all its weights must. Tibshirani (1996).
    """

    def proximal_(self, field: VectorField, strength: float, steps: Mapping[str, Tensor]) -> None:
        factors = self.factors[:, None, :] if field.config.structure != "dense" else self.factors.mean(dim=0)
        for k, matrix in enumerate(field.matrices):
            amount = steps[f"matrices.{k}"] * strength / len(self.factors)
            matrix.data.copy_(soft_threshold(matrix.data, amount * factors if k == 0 else amount))
