"""Hard-concrete gates: random numbers that are exactly 0 or 1 with a probability that can be learned.

Louizos, Welling and Kingma (2018), arXiv:1712.01312.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

TEMPERATURE = 2 / 3
LOWER, UPPER = -0.1, 1.1
CLOSED = math.log(-LOWER / UPPER)  # log alpha at and below which the expected gate is exactly 0: -2.398


def sample_gates(log_alpha: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
    r"""Draw a gate between 0 and 1 for every parameter, differentiable in the parameters.

    It is :math:`\min(1, \max(0, s(\zeta-\gamma) + \gamma))` with stretch limits :math:`\gamma < 0 < 1 < \zeta` and, at
    the temperature :math:`\beta`, :math:`s = \sigma\big((\log u - \log(1-u) + \log\alpha) / \beta\big)`, u uniform.
    """
    uniform = torch.rand(log_alpha.shape, generator=generator, dtype=log_alpha.dtype, device=log_alpha.device)
    uniform = uniform.clamp(1e-6, 1 - 1e-6)
    s = torch.sigmoid((uniform.logit() + log_alpha) / TEMPERATURE)
    return (s * (UPPER - LOWER) + LOWER).clamp(0, 1)


def expected_gates(log_alpha: Tensor) -> Tensor:
    """Return the gates of evaluation: without noise; closed where ``log_alpha`` is at most ``CLOSED``."""
    return (torch.sigmoid(log_alpha) * (UPPER - LOWER) + LOWER).clamp(0, 1)


def open_probability(log_alpha: Tensor) -> Tensor:
    """Return the probability that a drawn gate is not 0 (Louizos et al., eq. 12)."""
    return torch.sigmoid(log_alpha - TEMPERATURE * CLOSED)


def initial_log_alpha(shape: torch.Size | tuple[int, ...], *, drop_rate: float, like: Tensor) -> Tensor:
    """Return parameters of gates that exceed one half with probability ``1 - drop_rate``."""
    return torch.full(tuple(shape), math.log(1 - drop_rate) - math.log(drop_rate), dtype=like.dtype, device=like.device)
