"""LassoNet: an input enters the network only if it also enters linearly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from perturbflow.dynamics._field import VectorField
from perturbflow.dynamics._l1 import soft_threshold
from perturbflow.dynamics._sparsity import Sparsity, first_layer


def hierarchical_proximal(theta: Tensor, weights: Tensor, amount: Tensor, hierarchy: float) -> tuple[Tensor, Tensor]:
    r"""Project linear weights (...,) and those that leave each input (..., H) onto LassoNet's hierarchy.

    Solves, for every input by itself, :math:`\min_{b, w} \tfrac12 (b - \theta)^2 + \tfrac12 \|w - W\|_2^2 + a |b|`
    subject to :math:`\|w\|_\infty \le M |b|`, exactly, by sorting, with a step times strength a. Lemhadri, Ruan,
    Abraham and Tibshirani (2021), JMLR 22, 127, algorithm 2.
    """
    magnitude, _ = weights.abs().sort(dim=-1, descending=True)
    sums = torch.cat([torch.zeros_like(magnitude[..., :1]), magnitude.cumsum(dim=-1)], dim=-1)
    count = torch.arange(sums.shape[-1], dtype=theta.dtype, device=theta.device)
    bound = hierarchy * soft_threshold(theta.abs()[..., None] + hierarchy * sums, amount[..., None])
    bound = bound / (1 + count * hierarchy**2)
    lower = torch.cat([magnitude, torch.zeros_like(magnitude[..., :1])], dim=-1)
    # The first count whose bound is no less than the next magnitude; with the last, 0, there is always one.
    chosen = bound.gather(-1, (bound >= lower).to(torch.int8).argmax(dim=-1, keepdim=True))
    sign = torch.where(theta >= 0, 1.0, -1.0)
    return sign * chosen[..., 0] / hierarchy, torch.sign(weights) * torch.minimum(weights.abs(), chosen)


class LassoNet(Sparsity):
    r"""Lasso of a linear skip connection, :math:`\lambda \|\theta\|_1 / d`, that bounds the network's weights.

    :math:`\|W_{1,i}[:, j]\|_\infty \le M |\theta_{ij}|`: one network per target, so that inputs disappear per target.
    Proximal steps are hierarchical. Lemhadri, Ruan, Abraham and Tibshirani (2021), JMLR 22, 127.
    """

    structures: ClassVar[tuple[str, ...]] = ("per_target",)
    needs_skip: ClassVar[bool] = True

    def __init__(self, field: VectorField, *, factors: Tensor | None = None, hierarchy: float = 10.0) -> None:
        super().__init__(field, factors=factors)
        self.hierarchy = hierarchy

    def proximal_(self, field: VectorField, strength: float, steps: Mapping[str, Tensor]) -> None:
        matrix, linear = first_layer(field), field.linear
        amount = steps["linear"][:, 0] * self.factors * strength / len(self.factors)
        theta, weights = hierarchical_proximal(linear.data[:, 0], matrix.data.transpose(1, 2), amount, self.hierarchy)
        linear.data[:, 0] = theta
        matrix.data.copy_(weights.transpose(1, 2))
