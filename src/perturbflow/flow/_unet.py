"""The U-Nets: over the genes, and over a few tokens that are read from them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.nn import functional

from perturbflow.flow._network import Axis, GeneNetworks, VelocityNetwork
from perturbflow.flow._unet_body import UNetBody, group_norm, zero


class UNet(VelocityNetwork):
    r"""Convolutional U-Net over genes in a fixed order, each with an embedding of its own.

    Gene g enters as the token ``W x[g] + e[g] + b`` and leaves through a read-out that sees ``e[g]`` again. The
    embedding is essential: convolutions, normalisation, attention without positions and the noise commute with shifts
    of the gene axis by multiples of the total stride. Without ``e`` all genes of one residue modulo the stride get the
    same marginal distribution, however long the training, but for those near the zero padding at the ends.

    The order of the genes is arbitrary; ``gene_order`` is that of a panel whose weights are taken over.

    Parameters
    ----------
    n_genes, n_outputs, n_conditions
        Number of genes G, outputs per gene, and length of the condition that :class:`ConditionEncoder` encodes.
    width
        Channels of a gene; ``width * patch``, the channels of the first level, is a multiple of 4.
    n_blocks
        Residual blocks a level.
    multipliers
        Channels of every level, relative to the first.
    patch
        Genes in a row that share a position, with the channels of all of them: that many times fewer positions.
    attention_levels, n_heads
        Levels with attention, counted from 0, beside the middle, which always has it; and the heads of it.
    dropout
        Probability of dropout within the blocks.
    gene_features
        Start of the embedding (G, F), for example of a protein language model: its standardised columns through a
        random linear map. Only the start; what is learned is part of the weights.
    gene_order
        Gene at every position, a permutation of 0..G-1; inputs and outputs keep their order.

    Raises
    ------
    ValueError
        If the settings do not make a network.

    Notes
    -----
    The paper's network (PRiMeFlow, arXiv 2604.13986) in the form of Dhariwal and Nichol (2021, arXiv 2105.05233).

    Examples
    --------
    >>> import perturbflow as pf
    >>> import torch
    >>> network = pf.flow.UNet(n_genes=5, n_outputs=2, n_conditions=3, width=8, multipliers=(1, 2))
    >>> output = network(torch.randn(4, 5), torch.rand(4, 1), torch.zeros(4, 3))  # cells, times, conditions
    >>> output.shape, bool((output == 0).all())  # it says nothing until it is trained
    (torch.Size([4, 10]), True)
    """

    order: Tensor | None
    place: Tensor | None

    def __init__(
        self,
        n_genes: int,
        n_outputs: int,
        n_conditions: int,
        *,
        width: int = 16,
        n_blocks: int = 2,
        multipliers: Sequence[int] = (1, 2, 4, 8),
        patch: int = 1,
        attention_levels: Sequence[int] = (),
        n_heads: int = 1,
        dropout: float = 0.0,
        gene_features: ArrayLike | None = None,
        gene_order: Sequence[int] | None = None,
    ) -> None:
        if patch < 1:
            msg = f"Expected `patch` to be at least 1, found {patch}."
            raise ValueError(msg)
        channels = width * patch
        body = UNetBody(
            channels,
            4 * channels,
            multipliers=multipliers,
            n_blocks=n_blocks,
            attention_levels=attention_levels,
            n_heads=n_heads,
            dropout=dropout,
        )
        super().__init__(n_conditions, 4 * channels)
        self.patch, self.body = patch, body
        self.n_padding = -n_genes % (patch * self.body.stride)
        order = _permutation(gene_order, n_genes)
        self.register_buffer("order", order, persistent=False)
        self.register_buffer("place", None if order is None else order.argsort(), persistent=False)
        self.token = nn.Linear(1, width)
        self.genes = nn.Parameter(_first_embedding(gene_features, n_genes, width))
        self.norm = group_norm(self.body.out_channels)
        self.gene_modulation = nn.Linear(width, 2 * width)
        self.write = zero(nn.Conv1d(self.body.out_channels // patch, n_outputs, 1))

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """Evaluate the network; arguments and outputs are those of :meth:`ResidualMLP.forward`."""
        x, embedding, cells = self.flatten(x, t, condition)
        n_genes = x.shape[-1]
        genes: Tensor = self.genes
        if self.order is not None:
            x, genes = x[:, self.order], genes[self.order]
        hidden = self._tokens(x, genes)
        hidden = self._unfold(functional.silu(self.norm(self.body(self._fold(hidden), embedding))))[..., :n_genes]
        scale, shift = self.gene_modulation(genes).T.chunk(2)
        output = self.write(torch.addcmul(shift, hidden, 1 + scale))
        if self.place is not None:
            output = output[..., self.place]
        return output.flatten(1).unflatten(0, cells)

    def axes(self) -> dict[str, tuple[tuple[int, Axis], ...]]:
        return {"condition.weight": ((1, "condition"),), "genes": ((0, "gene"),)}

    def _tokens(self, x: Tensor, genes: Tensor) -> Tensor:
        """One token per gene, and zeros up to a whole number of strides: (n, width, G + padding)."""
        own = self.token.bias[:, None] + genes.T
        x, own = functional.pad(x, (0, self.n_padding)), functional.pad(own, (0, self.n_padding))
        return torch.addcmul(own, x[:, None], self.token.weight)

    def _fold(self, hidden: Tensor) -> Tensor:
        """From (n, width, genes) to (n, width * patch, genes / patch)."""
        if self.patch == 1:
            return hidden
        return hidden.unflatten(-1, (-1, self.patch)).transpose(2, 3).flatten(1, 2)

    def _unfold(self, hidden: Tensor) -> Tensor:
        """From (n, width * patch, genes / patch) to (n, width, genes)."""
        if self.patch == 1:
            return hidden
        return hidden.unflatten(1, (-1, self.patch)).transpose(2, 3).flatten(2)


def _permutation(gene_order: Sequence[int] | None, n_genes: int) -> Tensor | None:
    if gene_order is None:
        return None
    order = np.asarray(gene_order)
    if order.shape != (n_genes,) or (np.sort(order) != np.arange(n_genes)).any():
        msg = f"Expected `gene_order` to be a permutation of 0..{n_genes - 1}, found {order.size} entries that are not one."
        raise ValueError(msg)
    return torch.as_tensor(order, dtype=torch.long)


def _first_embedding(gene_features: ArrayLike | None, n_genes: int, width: int) -> Tensor:
    """Standard normal embeddings (G, width): independent, or a random linear map of standardised features."""
    if gene_features is None:
        return torch.randn(n_genes, width)
    features = torch.as_tensor(np.asarray(gene_features, dtype=np.float32))
    if features.ndim != 2 or len(features) != n_genes or not features.isfinite().all():
        msg = (
            f"Expected finite `gene_features` with {n_genes} rows, one per gene, found shape {tuple(features.shape)}."
            " Order and fill them to match the genes."
        )
        raise ValueError(msg)
    spread = features.std(dim=0, correction=0)
    features = (features[:, spread > 0] - features[:, spread > 0].mean(dim=0)) / spread[spread > 0]
    return features @ torch.randn(features.shape[1], width) / max(1, features.shape[1]) ** 0.5


class TokenUNet(VelocityNetwork):
    """U-Net over a few tokens read from all genes, and a small network of its own for every gene.

    The order of genes means nothing, so neighbourhoods are learned: every channel of every token is a linear read-out
    of all genes, and the U-Net over the tokens gives the state of the cell. From it the outputs are read linearly and,
    together with every gene's own value, through :class:`GeneNetworks`.

    Parameters
    ----------
    n_genes, n_outputs, n_conditions
        Number of genes G, outputs per gene, and length of the condition that :class:`ConditionEncoder` encodes.
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
    attention_levels, n_heads
        Levels with attention, counted from 0, beside the middle, which always has it; and the heads of it.
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
