"""A hidden layer of exponential linear units and the layer after it, differentiated as one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class EluLayer(torch.autograd.Function):
    r"""Return :math:`W \operatorname{elu}(h) + b` for a batch of networks.

    Training spends most of its time here. The slope of the unit is :math:`e^{\min(h, 0)}`, which its value needs
    anyway, so that the way back is three multiplications without a further exponential.
    """

    @staticmethod
    def forward(hidden: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the outputs (K, m, B), and values and slopes of the hidden units (K, n, B)."""
        slope = hidden.clamp(max=0).exp_()
        value = hidden.clamp(min=0).add_(slope).sub_(1)
        return torch.baddbmm(bias, weight, value), value, slope

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        """Keep what both ways to differentiate need."""
        _, weight, _ = inputs
        _, value, slope = output
        ctx.mark_non_differentiable(value, slope)
        ctx.save_for_backward(weight, value, slope)
        ctx.save_for_forward(weight, value, slope)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Return gradients of the three inputs, from that of the outputs."""
        gradient = gradients[0]
        weight, value, slope = ctx.saved_tensors
        of_value = weight.mT * gradient if weight.shape[1] == 1 else torch.bmm(weight.mT, gradient)
        return of_value * slope, torch.bmm(gradient, value.mT), gradient.sum(dim=2, keepdim=True)

    @staticmethod
    def jvp(ctx: Any, *changes: Any) -> tuple[Tensor, None, None]:
        """Return the change of the outputs along changes of the three inputs, None where one does not change."""
        hidden, weight, bias = changes
        own, value, slope = ctx.saved_tensors
        change = torch.zeros_like(own[:, :, :1] * value[:, :1])
        if hidden is not None:
            change = change + torch.bmm(own, slope * hidden)
        if weight is not None:
            change = change + torch.bmm(weight, value)
        return change if bias is None else change + bias, None, None
