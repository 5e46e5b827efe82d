"""Networks of the velocity: what they have in common, a small one for every gene, and the residual perceptron."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

Axis: TypeAlias = Literal["gene", "output", "condition"]

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
        """Axes of entries of the ``state_dict`` with what indexes them: ``"gene"``, ``"output"``, ``"condition"``.

        An ``"output"`` is a block of all genes. Lengths of other axes are settings, so that weights go from one gene
        panel to another by copying what both have along these.
        """


class GeneNetworks(nn.Module):
    r"""Networks per gene that join its own noisy value with the state of the cell.

    ``output[g] = k x[g] + sum_c w[c, g] (1 + r[c]) silu(u[c, g] z + (1 + q[c]) a[c, g] x[g] + s[c])``

    with weights a, u and w of the gene's own, the state z of the cell, and k, q, r and s functions of time and
    condition alone. A network narrower than the number of genes cannot carry every gene's value through to its output,
    as a plain velocity asks; here it need not, and only what genes have in common passes through z.
    """

    def __init__(self, n_genes: int, n_outputs: int, state_width: int, embedding_width: int, *, width: int) -> None:
        if width < 1:
            msg = f"Expected `gene_width` to be at least 1, found {width}."
            raise ValueError(msg)
        super().__init__()
        self.lift = nn.Parameter(torch.randn(width, n_genes, state_width) * state_width**-0.5)
        self.gain = nn.Parameter(torch.randn(width, n_genes))
        self.write = nn.Parameter(torch.zeros(n_outputs, width, n_genes))
        self.modulation = nn.Linear(embedding_width, 3 * width)
        self.skip = nn.Linear(embedding_width, n_outputs)
        for parameter in (*self.modulation.parameters(), *self.skip.parameters()):
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, state: Tensor, embedding: Tensor) -> Tensor:
        """Outputs (..., n, n_outputs * G) for values of genes, states and embeddings (..., n, size); zero until trained."""
        own = x[..., None, :]
        gain, scale, shift = self.modulation(embedding)[..., None].chunk(3, dim=-2)
        common = functional.linear(state, self.lift.flatten(0, 1)).unflatten(-1, self.gain.shape)
        hidden = functional.silu(torch.addcmul(common + shift, own, self.gain * (1 + gain))) * (1 + scale)
        output = self.skip(embedding)[..., None] * own
        # A product a channel: batched matrix products with a batch of genes would be slow.
        for channel, weight in zip(hidden.unbind(-2), self.write.unbind(1), strict=True):
            output = torch.addcmul(output, channel[..., None, :], weight)
        return output.flatten(-2)

    @staticmethod
    def axes(prefix: str) -> dict[str, tuple[tuple[int, Axis], ...]]:
        """Axes as of :meth:`VelocityNetwork.axes`, ``prefix`` being the name of this module there, with the dot."""
        return {f"{prefix}{name}": ((axis, "gene"),) for name, axis in (("lift", 1), ("gain", 1), ("write", 2))}


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
    n_genes, n_outputs, n_conditions
        Number of genes G, outputs per gene, and length of the condition that :class:`ConditionEncoder` encodes.
    width, n_blocks
        Hidden width, and number of residual blocks.
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
        x, t, condition
            Inputs of a parametrisation (..., n, G), times (..., n, 1), encoded conditions (..., n, n_conditions).

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
