"""Errors of many small networks over windows, with their gradients, a few networks at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

if TYPE_CHECKING:
    from perturbflow.dynamics._matching import MatchedWindows

BLOCK = 2**18  # hidden values at once: two arrays of a megabyte stay in the cache of one core


class NetworkErrors(torch.autograd.Function):
    r"""Return sums of the squared misses of networks with one hidden layer of exponential linear units, shape (K,).

    The error of a network depends on its own weights alone, so that its gradient is known as soon as the error is, and
    arrays of hidden values are used again for the next networks: memory that is asked for anew at every step costs more
    than the arithmetic.
    """

    @staticmethod
    def forward(
        ctx: Any,
        windows: MatchedWindows,
        first: Tensor,
        bias: Tensor,
        second: Tensor,
        offset: Tensor,
        highest: Tensor | None,
        decay: Tensor | None,
    ) -> Tensor:
        """Return the sums for layers (K, n, n_inputs) and (K, 1, n), their biases, highest productions and decays (K,)."""
        wanted = any(ctx.needs_input_grad)
        n_heads, width, _ = first.shape
        n_pieces, _, n_points = windows.quadrature.shape
        at_once = max(1, min(n_heads, BLOCK // (width * n_pieces * n_points)))
        values = first.new_empty(at_once, width, n_pieces * n_points)
        slopes = torch.empty_like(values)
        errors = first.new_empty(n_heads)
        gradients = [torch.empty_like(each) for each in (first, bias, second, offset)] if wanted else []
        of_highest, of_decay = (
            None if each is None or not wanted else torch.empty_like(each) for each in (highest, decay)
        )
        for start in range(0, n_heads, at_once):
            some = slice(start, min(start + at_once, n_heads))
            value, slope = values[: some.stop - start], slopes[: some.stop - start]
            inputs = windows.inputs[some] if windows.inputs.dim() == 3 else windows.inputs.T
            if inputs.dim() == 3:
                torch.baddbmm(bias[some, :, None], first[some], inputs, out=value)
            else:
                rows = value.view(-1, value.shape[2])
                torch.addmm(bias[some].reshape(-1, 1), first[some].reshape(len(rows), -1), inputs, out=rows)
            torch.clamp(value, max=0, out=slope).exp_()
            value.clamp_(min=0).add_(slope)  # the unit plus 1
            output = torch.baddbmm(
                (offset[some] - second[some, 0].sum(dim=1, keepdim=True))[..., None], second[some], value
            )
            rate = output = output[:, 0]
            if highest is not None:
                output = output.sigmoid_()
                rate = highest[some, None] * output
            if decay is not None:
                rate = rate - decay[some, None] * windows.level[some]
            miss, per_time = windows.missed(rate, some)
            errors[some] = (miss**2).sum(dim=(0, 2))
            if not wanted:
                continue
            of_rate = torch.bmm(miss.mul_(per_time).mul_(-2), windows.quadrature).transpose(0, 1).reshape(rate.shape)
            if of_decay is not None:
                of_decay[some] = -(of_rate * windows.level[some]).sum(dim=1)
            if highest is not None and of_highest is not None:
                of_rate *= output
                of_highest[some] = of_rate.sum(dim=1)
                of_rate *= highest[some, None] * (1 - output)
            change = of_rate[:, None]
            gradients[3][some] = total = of_rate.sum(dim=1, keepdim=True)
            gradients[2][some] = torch.bmm(change, value.mT).sub_(total[..., None])
            torch.mul(second[some].mT, change, out=value).mul_(slope)
            gradients[1][some] = value.sum(dim=2)
            if inputs.dim() == 3:
                torch.bmm(value, inputs.mT, out=gradients[0][some])
            else:
                rows = value.view(-1, value.shape[2])
                torch.mm(rows, inputs.T, out=gradients[0][some].view(len(rows), -1))
        ctx.save_for_backward(*gradients, of_highest, of_decay)
        return errors

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        """Return gradients of all that can be trained, from that of the sums."""
        of_error = gradients[0]
        scaled = (
            None if each is None else each * of_error.view(-1, *[1] * (each.dim() - 1)) for each in ctx.saved_tensors
        )
        return None, *scaled
