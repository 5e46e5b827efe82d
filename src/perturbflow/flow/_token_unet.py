"""A U-Net over learned tokens instead of genes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn
from torch.nn import functional

from perturbflow.flow._embedding import VelocityNetwork
from perturbflow.flow._gene_networks import GeneNetworks
from perturbflow.flow._unet_body import UNetBody, group_norm, zero

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from perturbflow.flow._embedding import Axis


class TokenUNet(VelocityNetwork):
    """U-Net over a few tokens read from all genes, and a small network of its own for every gene.

    The order of genes means nothing, so neighbourhoods are learned: every channel of every token is a linear read-out
    of all genes, and the U-Net over the tokens gives the state of the cell. From it the outputs are read linearly and,
    together with every gene's own value, through :class:`GeneNetworks`.

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

    Examples
    --------
    >>> import perturbflow as pf
    >>> import torch
    >>> network = pf.flow.TokenUNet(n_genes=5, n_outputs=2, n_conditions=3, width=8)
    >>> output = network(torch.randn(4, 5), torch.rand(4, 1), torch.zeros(4, 3))  # cells, times, conditions
    >>> output.shape, bool((output == 0).all())  # it says nothing until it is trained
    (torch.Size([4, 10]), True)
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
        multipliers: Sequence[int] = (1, 1),
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
        super().__init__(n_conditions, 4 * width)
        self.n_tokens, self.body = n_tokens, body
        self.read = nn.Linear(n_genes, n_tokens * width)
        self.norm = group_norm(body.out_channels)
        n_state = n_tokens * body.out_channels
        self.write = zero(nn.Linear(n_state, n_outputs * n_genes))
        self.genes = GeneNetworks(n_genes, n_outputs, n_state, 4 * width, width=gene_width)

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """Evaluate the network; arguments and outputs are those of :meth:`ResidualMLP.forward`."""
        x, embedding, cells = self.flatten(x, t, condition)
        tokens = self.read(x).unflatten(-1, (-1, self.n_tokens))
        state = functional.silu(self.norm(self.body(tokens, embedding))).flatten(1)
        return (self.write(state) + self.genes(x, state, embedding)).unflatten(0, cells)

    def axes(self) -> dict[str, tuple[tuple[int, Axis], ...]]:
        return {
            "condition.weight": ((1, "condition"),),
            "read.weight": ((1, "gene"),),
            "write.weight": ((0, "output"),),
            "write.bias": ((0, "output"),),
            **self.genes.axes("genes."),
        }
