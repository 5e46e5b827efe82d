"""What the other weights of a mechanism have to do for an input that it loses, to first order."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from perturbflow.dynamics._compact import CompactField
from perturbflow.dynamics._matching import Chunks, MatchedWindows

DAMPING = 0.01  # of the mean curvature; the networks are not linear in their weights
TARGETS_AT_ONCE = 16


def compensated(field: CompactField, heads: Tensor, column: Tensor, chunks: Chunks) -> CompactField:
    """Return mechanisms without one input each, after a damped Gauss-Newton step of all weights that stay.

    The curvature of a mechanism serves the removals of all its inputs. Optimal brain surgeon; Hassibi and Stork (1992),
    *NeurIPS* 5, 164, with groups of weights.

    Parameters
    ----------
    field
        Mechanisms with one hidden layer of exponential linear units.
    heads
        Mechanisms that lose an input, ascending, shape (K,).
    column
        Which each loses, positions among its candidates, shape (K,).
    chunks
        The curves that they are fitted to.

    Returns
    -------
    The K mechanisms.
    """
    without = field.select(heads)
    without.allowed[torch.arange(len(heads)), column] = 0
    with torch.no_grad():
        for some in heads.unique().split(TARGETS_AT_ONCE):
            mine = torch.nonzero(torch.isin(heads, some))[:, 0]
            chosen = field.select(some)
            owner = torch.searchsorted(some, heads[mine])
            change = _changes(chosen, MatchedWindows.of(chosen, chunks), owner, without.allowed[mine])
            for parameter, part in zip(
                _trained(without), change.split([p[0].numel() for p in _trained(field)], 1), strict=True
            ):
                parameter[mine] += part.view(-1, *parameter.shape[1:])
    return without


def _changes(field: CompactField, windows: MatchedWindows, owner: Tensor, allowed: Tensor) -> Tensor:
    """Return changes of the weights (K, P) of mechanisms of which others are allowed; 0 where no curvature can be had."""
    slopes, miss = _linearised(field, windows)
    curvature, descent = torch.bmm(slopes, slopes.mT)[owner], torch.bmm(slopes, miss[..., None])[owner]
    n_heads, n_weights, _ = descent.shape
    first = field.matrices[0].shape[1:]
    n_first = first.numel()
    fixed = torch.zeros(n_heads, n_weights, dtype=torch.bool)
    fixed[:, :n_first] = (allowed == 0)[:, None].expand(-1, *first).flatten(1)
    lost = torch.zeros(n_heads, n_weights, 1)
    is_lost = (allowed == 0) & (field.allowed[owner] > 0)
    lost[:, :n_first, 0] = -(field.matrices[0][owner] * is_lost[:, None]).flatten(1)
    # Weights that are fixed have no say: unit rows, and nothing on the right.
    wanted = (descent - torch.bmm(curvature, lost)).masked_fill(fixed[..., None], 0.0)
    curvature = curvature.masked_fill(fixed[:, :, None] | fixed[:, None, :], 0.0)
    diagonal = curvature.diagonal(dim1=1, dim2=2)
    diagonal += DAMPING * diagonal.mean(dim=1, keepdim=True) + fixed
    factor, failed = torch.linalg.cholesky_ex(curvature)
    change = torch.cholesky_solve(wanted, factor)[..., 0]
    return torch.where((failed == 0)[:, None] & change.isfinite(), change, 0.0)


def _linearised(field: CompactField, windows: MatchedWindows) -> tuple[Tensor, Tensor]:
    """Return how integrals over windows grow with every weight (K, P, C * W), and what they miss (K, C * W)."""
    first, second = field.weights()
    hidden = torch.baddbmm(field.biases[0][..., None], first, windows.inputs)
    slope, value = hidden.clamp(max=0).exp(), functional.elu(hidden)
    output = torch.bmm(second, value)[:, 0] + field.biases[1]
    rate, of_output = output, torch.ones_like(output)
    of_highest, of_decay = torch.zeros_like(output), torch.zeros_like(output)
    if field.config.production == "bounded":
        share, highest = output.sigmoid(), functional.softplus(field.raw_range)[:, None]
        rate, of_output = highest * share, highest * share * (1 - share)
        of_highest = share * field.raw_range.sigmoid()[:, None]
    if field.config.decay:
        rate = rate - field.decay_rates()[:, None] * windows.level
        of_decay = -windows.level * field.raw_decay.sigmoid()[:, None]
    of_hidden = of_output[:, None] * second.mT * slope
    of_first = (of_hidden[:, :, None] * windows.inputs[:, None]).flatten(1, 2)
    rows = [of_first, of_hidden, of_output[:, None] * value, *(r[:, None] for r in (of_output, of_decay, of_highest))]
    of_rate = torch.cat(rows, dim=1)
    miss, per_time = windows.missed(rate)
    n_pieces, _, n_points = windows.quadrature.shape
    over = torch.bmm(of_rate.view(-1, n_pieces, n_points).transpose(0, 1), windows.quadrature.mT)
    over = over.view(n_pieces, *of_rate.shape[:2], -1) * per_time[:, :, None]
    return over.permute(1, 2, 0, 3).flatten(2), miss.transpose(0, 1).flatten(1)


def _trained(field: CompactField) -> tuple[nn.Parameter, ...]:
    """Return all weights, in the order in which they stand among the P."""
    return (
        field.matrices[0],
        field.biases[0],
        field.matrices[1],
        field.biases[1],
        field.raw_decay,
        field.raw_range,
    )
