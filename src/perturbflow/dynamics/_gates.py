r"""Hard-concrete gates: random numbers in [0, 1] that are exactly 0 or 1 with a probability that can be learned.

With :math:`\log\alpha` the parameter of a gate, :math:`\beta` the temperature and stretch limits
:math:`\gamma < 0 < 1 < \zeta`,

.. math::

    z = \min(1, \max(0, s(\zeta-\gamma) + \gamma)), \qquad
    s = \sigma\big((\log u - \log(1-u) + \log\alpha) / \beta\big), \quad u \sim U(0, 1).

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
    """Draw a gate for every parameter, differentiable in the parameters.

    Parameters
    ----------
    log_alpha
        Parameters of the gates, any shape.
    generator
        Source of randomness; that of torch by default.

    Returns
    -------
    Gates between 0 and 1, of the same shape.

    Examples
    --------
    >>> import perturbflow as pf
    >>> import torch
    >>> gates = pf.dynamics.sample_gates(torch.zeros(10_000), generator=torch.Generator().manual_seed(0))
    >>> round(float((gates > 0).float().mean()), 2), round(float((gates == 1).float().mean()), 2)
    (0.83, 0.17)
    """
    uniform = torch.rand(log_alpha.shape, generator=generator, dtype=log_alpha.dtype, device=log_alpha.device)
    uniform = uniform.clamp(1e-6, 1 - 1e-6)
    s = torch.sigmoid((uniform.logit() + log_alpha) / TEMPERATURE)
    return (s * (UPPER - LOWER) + LOWER).clamp(0, 1)


def expected_gates(log_alpha: Tensor) -> Tensor:
    """Return the gates of evaluation: without noise; closed where ``log_alpha`` is at most ``CLOSED``.

    Parameters
    ----------
    log_alpha
        Parameters of the gates, any shape.

    Returns
    -------
    Gates between 0 and 1, of the same shape.

    Examples
    --------
    >>> import perturbflow as pf
    >>> import torch
    >>> pf.dynamics.expected_gates(torch.tensor([-3.0, 0.0, 3.0]))  # closed, half open, open
    tensor([0.0000, 0.5000, 1.0000])
    """
    return (torch.sigmoid(log_alpha) * (UPPER - LOWER) + LOWER).clamp(0, 1)


def open_probability(log_alpha: Tensor) -> Tensor:
    """Return the probability that a drawn gate is not 0.

    Parameters
    ----------
    log_alpha
        Parameters of the gates, any shape.

    Returns
    -------
    Probabilities, of the same shape; their sum is the expected number of open gates (eq. 12 of Louizos et al.).

    Examples
    --------
    >>> import perturbflow as pf
    >>> import torch
    >>> pf.dynamics.open_probability(torch.tensor([-5.0, 0.0, 5.0]))
    tensor([0.0323, 0.8318, 0.9986])
    """
    return torch.sigmoid(log_alpha - TEMPERATURE * CLOSED)


def initial_log_alpha(shape: torch.Size | tuple[int, ...], *, drop_rate: float, like: Tensor) -> Tensor:
    """Return parameters of gates that exceed one half with probability ``1 - drop_rate``."""
    return torch.full(tuple(shape), math.log(1 - drop_rate) - math.log(drop_rate), dtype=like.dtype, device=like.device)
