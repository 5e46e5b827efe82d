"""Velocity networks: from a noisy cell, a time and a condition to the outputs a parametrisation needs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

_N_FREQUENCIES = 32
_LONGEST_PERIOD = 10_000.0
_TIME_SCALE = 1000.0


def encode_time(t: Tensor) -> Tensor:
    """Sinusoidal encoding of times in [0, 1] (n, 1), stretched to the 0..1000 the wavelengths are made for: (n, 64)."""
    exponents = torch.arange(_N_FREQUENCIES, dtype=t.dtype, device=t.device) / _N_FREQUENCIES
    angles = _TIME_SCALE * t * torch.exp(-math.log(_LONGEST_PERIOD) * exponents)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


class ResidualBlock(nn.Module):
    """Normalise, modulate by the embedding (FiLM), widen, SiLU, narrow; starts as the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = nn.Linear(width, 2 * width)
        self.widen = nn.Linear(width, width)
        self.narrow = nn.Linear(width, width)
        for layer in (self.modulation, self.narrow):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, hidden: Tensor, embedding: Tensor) -> Tensor:
        """Refine the hidden state (n, width) given the embedding (n, width)."""
        scale, shift = self.modulation(embedding).chunk(2, dim=-1)
        modulated = self.norm(hidden) * (1 + scale) + shift
        return hidden + self.narrow(functional.silu(self.widen(modulated)))


class ResidualMLP(nn.Module):
    """Residual multilayer perceptron over all genes, modulated by time and condition.

    Parameters
    ----------
    n_genes
        Number of genes G.
    n_outputs
        Outputs per gene.
    n_conditions
        Length of the encoded condition; see :class:`perturbflow.flow.ConditionEncoder`.
    width
        Hidden width.
    n_blocks
        Number of residual blocks.
    """

    def __init__(self, n_genes: int, n_outputs: int, n_conditions: int, *, width: int = 256, n_blocks: int = 2) -> None:
        super().__init__()
        self.time = nn.Sequential(nn.Linear(2 * _N_FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))
        self.condition = nn.Linear(n_conditions, width, bias=False)
        self.read = nn.Linear(n_genes, width)
        self.blocks = nn.ModuleList(ResidualBlock(width) for _ in range(n_blocks))
        self.norm = nn.LayerNorm(width)
        self.write = nn.Linear(width, n_outputs * n_genes)
        nn.init.zeros_(self.condition.weight)
        nn.init.zeros_(self.write.weight)
        nn.init.zeros_(self.write.bias)

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """Evaluate the network; arguments broadcast.

        Parameters
        ----------
        x
            Inputs (..., n, G) of a parametrisation.
        t
            Times (..., n, 1).
        condition
            Encoded conditions (..., n, n_conditions).

        Returns
        -------
        Outputs (..., n, n_outputs * G).
        """
        embedding = functional.silu(self.time(encode_time(t)) + self.condition(condition))
        hidden = self.read(x)
        for block in self.blocks:
            hidden = block(hidden, embedding)
        return self.write(self.norm(hidden))


NETWORKS: dict[str, Callable[..., nn.Module]] = {"mlp": ResidualMLP}
