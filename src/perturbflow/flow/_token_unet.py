"""A U-Net over learned tokens instead of genes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from perturbflow.flow._embedding import VelocityNetwork
from perturbflow.flow._unet_body import UNetBody, group_norm, zero

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from perturbflow.flow._embedding import Axis


class TokenUNet(VelocityNetwork):
    r"""U-Net over a few tokens read from all genes, and a small network of its own for every gene.

    The order of genes means nothing, so neighbourhoods are learned: every channel of every token is a linear read-out
    of all genes. A U-Net over the tokens gives the state z of the cell, and gene g, with its own weights a, u, v and w,

    ``output[g] = k x[g] + v[g] z + sum_c w[c, g] (1 + r[c]) silu(u[c, g] z + (1 + q[c]) a[c, g] x[g] + s[c])``

    where k, q, r and s are functions of time and condition alone. What is known of a gene from its own noisy value thus
    never has to pass through the tokens, which carry only what genes have in common; a plain perceptron narrower than
    the number of genes cannot even copy its input.

    Parameters
    ----------
    n_genes
        Number of genes G.
    n_outputs
        Outputs per gene.
    n_conditions
        Length of the encoded condition; see :class:`perturbflow.flow.ConditionEncoder`.
    width
        Channels of a token, a multiple of 4.
    n_blocks
        Residual blocks a level.
    n_tokens
        Number of tokens, a multiple of 2 to the power of the number of levels less one.
    gene_width
        Channels of a gene.
    multipliers
        Channels of every level, relative to the first; between two levels the tokens are halved.
    attention_levels
        Levels with attention, counted from 0; the middle always has it.
    n_heads
        Heads of the attention.
    dropout
        Probability of dropout within the blocks.

    Raises
    ------
    ValueError
        If the settings do not make a network.
    """

    def __init__(
        self,
        n_genes: int,
        n_outputs: int,
        n_conditions: int,
        *,
        width: int = 32,
        n_blocks: int = 1,
        n_tokens: int = 8,
        gene_width: int = 2,
        multipliers: Sequence[int] = (1, 2),
        attention_levels: Sequence[int] = (),
        n_heads: int = 1,
        dropout: float = 0.0,
    ) -> None:
        body = UNetBody(
            width,
            4 * width,
            multipliers=multipliers,
            n_blocks=n_blocks,
            attention_levels=attention_levels,
            n_heads=n_heads,
            dropout=dropout,
        )
        if n_tokens < 1 or n_tokens % body.stride:
            msg = f"Expected `n_tokens` to be a positive multiple of {body.stride}, found {n_tokens}."
            raise ValueError(msg)
        if gene_width < 1:
            msg = f"Expected `gene_width` to be at least 1, found {gene_width}."
            raise ValueError(msg)
        super().__init__(n_conditions, 4 * width)
        self.n_tokens, self.body = n_tokens, body
        self.read = nn.Linear(n_genes, n_tokens * width)
        self.norm = group_norm(body.out_channels)
        n_state = n_tokens * body.out_channels
        self.lift = nn.Parameter(torch.randn(gene_width, n_genes, n_state) * n_state**-0.5)
        self.gain = nn.Parameter(torch.randn(gene_width, n_genes))
        self.modulation = nn.Linear(4 * width, 3 * gene_width)
        self.write_gene = nn.Parameter(torch.zeros(n_outputs, gene_width, n_genes))
        self.write = zero(nn.Linear(n_state, n_outputs * n_genes))
        self.skip = zero(nn.Linear(4 * width, n_outputs))
        zero(self.modulation)

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
        x, embedding, cells = self.flatten(x, t, condition)
        tokens = self.read(x).unflatten(-1, (-1, self.n_tokens))
        state = functional.silu(self.norm(self.body(tokens, embedding))).flatten(1)
        own = x[:, None]
        gain, scale, shift = self.modulation(embedding)[..., None].chunk(3, dim=1)
        common = functional.linear(state, self.lift.flatten(0, 1)).unflatten(-1, self.gain.shape)
        hidden = functional.silu(torch.addcmul(common + shift, own, self.gain * (1 + gain))) * (1 + scale)
        output = self.write(state).unflatten(-1, (-1, x.shape[-1]))
        output = torch.addcmul(output, own, self.skip(embedding)[..., None])
        # A product a channel: batched matrix products with a batch of genes would be slow.
        for channel, weight in zip(hidden.unbind(1), self.write_gene.unbind(1), strict=True):
            output = torch.addcmul(output, channel[:, None], weight)
        return output.flatten(1).unflatten(0, cells)

    def axes(self) -> dict[str, tuple[tuple[int, Axis], ...]]:
        return {
            "condition.weight": ((1, "condition"),),
            "read.weight": ((1, "gene"),),
            "lift": ((1, "gene"),),
            "gain": ((1, "gene"),),
            "write_gene": ((2, "gene"),),
            "write.weight": ((0, "output"),),
            "write.bias": ((0, "output"),),
        }
