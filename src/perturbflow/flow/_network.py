"""The velocity networks by name, and the plainest of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn
from torch.nn import functional

from perturbflow.flow._embedding import VelocityNetwork
from perturbflow.flow._gene_networks import GeneNetworks
from perturbflow.flow._token_unet import TokenUNet
from perturbflow.flow._unet import UNet

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from perturbflow.flow._embedding import Axis


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


class ResidualMLP(VelocityNetwork):
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
    gene_width
        Channels of a small network of its own for every gene, see :class:`GeneNetworks`; none if 0.

    Examples
    --------
    >>> import perturbflow as pf
    >>> import torch
    >>> network = pf.flow.ResidualMLP(n_genes=5, n_outputs=2, n_conditions=3, width=16)
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
        width: int = 256,
        n_blocks: int = 2,
        gene_width: int = 0,
    ) -> None:
        super().__init__(n_conditions, width)
        self.read = nn.Linear(n_genes, width)
        self.blocks = nn.ModuleList(ResidualBlock(width) for _ in range(n_blocks))
        self.norm = nn.LayerNorm(width)
        self.write = nn.Linear(width, n_outputs * n_genes)
        nn.init.zeros_(self.write.weight)
        nn.init.zeros_(self.write.bias)
        self.genes = GeneNetworks(n_genes, n_outputs, width, width, width=gene_width) if gene_width else None

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
        embedding = self.embed(t, condition)
        hidden = self.read(x)
        for block in self.blocks:
            hidden = block(hidden, embedding)
        hidden = self.norm(hidden)
        output = self.write(hidden)
        return output if self.genes is None else output + self.genes(x, hidden, embedding)

    def axes(self) -> dict[str, tuple[tuple[int, Axis], ...]]:
        return {
            "condition.weight": ((1, "condition"),),
            "read.weight": ((1, "gene"),),
            "write.weight": ((0, "output"),),
            "write.bias": ((0, "output"),),
            **({} if self.genes is None else self.genes.axes("genes.")),
        }


NETWORKS: dict[str, Callable[..., VelocityNetwork]] = {"mlp": ResidualMLP, "unet": UNet, "token_unet": TokenUNet}
"""Networks of the velocity by the name that ``model_kwargs={"network": ...}`` takes."""
