"""The U-Net of guided diffusion in one dimension: channels in, channels out, at every position."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

_MOST_GROUPS = 32
_CHANNELS_OF_A_GROUP = 4


def group_norm(channels: int, *, affine: bool = True) -> nn.GroupNorm:
    """Normalise over positions and groups of at least four channels: with fewer, means of channels would be lost."""
    return nn.GroupNorm(math.gcd(_MOST_GROUPS, channels // _CHANNELS_OF_A_GROUP), channels, affine=affine)


def zero(layer: nn.Module) -> nn.Module:
    """Set all weights of a layer to zero."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


class ResidualConvolutions(nn.Module):
    """Two convolutions of three positions with a skip, modulated by the embedding (FiLM); starts as the skip alone."""

    def __init__(self, channels: int, out_channels: int, embedding_width: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.first_norm = group_norm(channels)
        self.first = nn.Conv1d(channels, out_channels, 3, padding=1)
        self.modulation = nn.Linear(embedding_width, 2 * out_channels)
        self.second_norm = group_norm(out_channels, affine=False)
        self.dropout = nn.Dropout(dropout)
        self.second = zero(nn.Conv1d(out_channels, out_channels, 3, padding=1))
        self.skip = nn.Identity() if channels == out_channels else nn.Conv1d(channels, out_channels, 1)

    def forward(self, hidden: Tensor, embedding: Tensor) -> Tensor:
        """Refine the hidden state (n, channels, positions) given the embedding (n, width) or (1, width)."""
        scale, shift = self.modulation(embedding)[..., None].chunk(2, dim=1)
        inner = self.first(functional.silu(self.first_norm(hidden)))
        inner = torch.addcmul(shift, self.second_norm(inner), 1 + scale)
        return self.skip(hidden) + self.second(self.dropout(functional.silu(inner)))


class SelfAttention(nn.Module):
    """Attention between all positions; starts as the identity."""

    def __init__(self, channels: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.norm = group_norm(channels)
        self.queries_keys_values = nn.Conv1d(channels, 3 * channels, 1)
        self.project = zero(nn.Conv1d(channels, channels, 1))

    def forward(self, hidden: Tensor, embedding: Tensor) -> Tensor:
        """Refine the hidden state (n, channels, positions); the embedding has no part in it."""
        del embedding
        # One head is a block of channels: (n, 3, heads, positions, channels of a head).
        split = self.queries_keys_values(self.norm(hidden)).unflatten(1, (3, self.n_heads, -1)).transpose(-1, -2)
        mixed = functional.scaled_dot_product_attention(*split.unbind(1))
        return hidden + self.project(mixed.transpose(-1, -2).flatten(1, 2))


class Shrink(nn.Module):
    """Half the positions, by a convolution of stride 2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(channels, channels, 3, stride=2, padding=1)

    def forward(self, hidden: Tensor, embedding: Tensor) -> Tensor:
        """Shrink the hidden state (n, channels, positions); the embedding has no part in it."""
        del embedding
        return self.convolution(hidden)


class Grow(nn.Module):
    """Twice the positions, each repeated, and a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(channels, channels, 3, padding=1)

    def forward(self, hidden: Tensor, embedding: Tensor) -> Tensor:
        """Grow the hidden state (n, channels, positions); the embedding has no part in it."""
        del embedding
        return self.convolution(hidden.repeat_interleave(2, dim=-1))


class Modulated(nn.ModuleList):
    """Layers in a row that all take the embedding."""

    def forward(self, hidden: Tensor, embedding: Tensor) -> Tensor:
        """Apply the layers to the hidden state (n, channels, positions)."""
        for layer in self:
            hidden = layer(hidden, embedding)
        return hidden


class UNetBody(nn.Module):
    """Down over the levels, through the middle and up again, with the states on the way down concatenated.

    The network of Dhariwal and Nichol (2021, arXiv 2105.05233) in one dimension: ``n_blocks`` residual blocks with FiLM
    a level on the way down, stride-2 convolutions, one block more a level on the way up, with nearest neighbours and a
    convolution, attention at ``attention_levels``, counted from 0, and in the middle. ``channels`` is a multiple of 4.
    """

    def __init__(
        self,
        channels: int,
        embedding_width: int,
        *,
        multipliers: Sequence[int] = (1, 2, 4, 8),
        n_blocks: int = 2,
        attention_levels: Sequence[int] = (),
        n_heads: int = 1,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        _check(channels, multipliers, n_blocks, attention_levels, n_heads, dropout)
        self.stride = 2 ** (len(multipliers) - 1)

        def layers(width: int, out_width: int, level: int) -> list[nn.Module]:
            block = ResidualConvolutions(width, out_width, embedding_width, dropout=dropout)
            return [block, SelfAttention(out_width, n_heads)] if level in attention_levels else [block]

        widths = [channels * multiplier for multiplier in multipliers]
        width, kept = channels, [channels]
        down, up = [], []
        for level, out_width in enumerate(widths):
            for _ in range(n_blocks):
                down.append(Modulated(layers(width, out_width, level)))
                width = out_width
                kept.append(width)
            if level < len(widths) - 1:
                down.append(Modulated([Shrink(width)]))
                kept.append(width)
        middle = [
            ResidualConvolutions(width, width, embedding_width, dropout=dropout),
            SelfAttention(width, n_heads),
            ResidualConvolutions(width, width, embedding_width, dropout=dropout),
        ]
        for level, out_width in reversed(list(enumerate(widths))):
            for block in range(n_blocks + 1):
                steps = layers(width + kept.pop(), out_width, level)
                if level and block == n_blocks:
                    steps.append(Grow(out_width))
                up.append(Modulated(steps))
                width = out_width
        self.down, self.middle, self.up = nn.ModuleList(down), Modulated(middle), nn.ModuleList(up)
        self.out_channels = width

    def forward(self, hidden: Tensor, embedding: Tensor) -> Tensor:
        """States (n, out_channels, positions) from states and embeddings (n or 1, embedding_width).

        Positions are a multiple of ``stride``.
        """
        kept = [hidden]
        for step in self.down:
            hidden = step(hidden, embedding)
            kept.append(hidden)
        hidden = self.middle(hidden, embedding)
        for step in self.up:
            hidden = step(torch.cat([hidden, kept.pop()], dim=1), embedding)
        return hidden


def _check(
    channels: int,
    multipliers: Sequence[int],
    n_blocks: int,
    attention_levels: Sequence[int],
    n_heads: int,
    dropout: float,
) -> None:
    if channels < 1 or channels % _CHANNELS_OF_A_GROUP:
        msg = f"Expected a positive multiple of {_CHANNELS_OF_A_GROUP} channels, found {channels}. Change `width`."
        raise ValueError(msg)
    if not multipliers or min(multipliers) < 1:
        msg = f"Expected `multipliers` to be at least one positive number, found {list(multipliers)}."
        raise ValueError(msg)
    if n_blocks < 1:
        msg = f"Expected `n_blocks` to be at least 1, found {n_blocks}."
        raise ValueError(msg)
    absent = sorted(set(attention_levels) - set(range(len(multipliers))))
    if absent:
        msg = f"Expected `attention_levels` between 0 and {len(multipliers) - 1}, found {absent}."
        raise ValueError(msg)
    attended = {channels * multipliers[level] for level in (*attention_levels, len(multipliers) - 1)}
    undivided = sorted(width for width in attended if n_heads < 1 or width % n_heads)
    if undivided:
        msg = f"Expected `n_heads` to divide {undivided} channels, found {n_heads}. Change it or `width`."
        raise ValueError(msg)
    if not 0 <= dropout < 1:
        msg = f"Expected `dropout` to be at least 0 and below 1, found {dropout}."
        raise ValueError(msg)
