"""Embedding of time and condition that velocity networks share, and which of their weights belong to which gene."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from torch import Tensor

    Axis = Literal["gene", "output", "condition"]

_N_FREQUENCIES = 32
_LONGEST_PERIOD = 10_000.0
_TIME_SCALE = 1000.0


def encode_time(t: Tensor) -> Tensor:
    """Sinusoidal encoding of times in [0, 1] (n, 1), stretched to the 0..1000 the wavelengths are made for: (n, 64)."""
    exponents = torch.arange(_N_FREQUENCIES, dtype=t.dtype, device=t.device) / _N_FREQUENCIES
    angles = _TIME_SCALE * t * torch.exp(-math.log(_LONGEST_PERIOD) * exponents)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


class VelocityNetwork(nn.Module, ABC):
    """A network of a noisy cell, a time and an encoded condition of length ``n_conditions``, zero until it is trained.

    ``width`` is the length of the embedding of time and condition.
    """

    def __init__(self, n_conditions: int, width: int) -> None:
        super().__init__()
        self.time = nn.Sequential(nn.Linear(2 * _N_FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))
        self.condition = nn.Linear(n_conditions, width, bias=False)
        nn.init.zeros_(self.condition.weight)

    def embed(self, t: Tensor, condition: Tensor) -> Tensor:
        """Embed times (..., n, 1) and encoded conditions (..., n, n_conditions); the null condition adds nothing."""
        return functional.silu(self.time(encode_time(t)) + self.condition(condition))

    def flatten(self, x: Tensor, t: Tensor, condition: Tensor) -> tuple[Tensor, Tensor, torch.Size]:
        """Bring inputs (..., n, G), times and conditions that broadcast to one axis of cells.

        Returns inputs (m, G), embeddings (m, width) or (1, width) where all share one, and the axes (..., n) they stand
        for.
        """
        embedding = self.embed(t, condition)
        cells = torch.broadcast_shapes(x.shape[:-1], embedding.shape[:-1])
        if embedding.shape[:-1].numel() > 1:
            embedding = embedding.expand(*cells, -1)
        return x.expand(*cells, -1).flatten(0, -2), embedding.flatten(0, -2), cells

    @abstractmethod
    def axes(self) -> dict[str, tuple[tuple[int, Axis], ...]]:
        """Return which axes of the weights are indexed by genes or by entries of the condition.

        All other axes have lengths that the settings of the network decide, so that weights go from one gene panel to
        another by copying along the axes named here what the two panels share.

        Returns
        -------
        For every such entry of the ``state_dict``, pairs of an axis and what it is indexed by: ``"gene"``,
        ``"output"`` (one block of all genes per output) or ``"condition"``.
        """
