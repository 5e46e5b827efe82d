"""A small network of its own for every gene."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from torch import Tensor

    from perturbflow.flow._embedding import Axis


class GeneNetworks(nn.Module):
    r"""Networks per gene that join its own noisy value with the state of the cell.

    ``output[g] = k x[g] + sum_c w[c, g] (1 + r[c]) silu(u[c, g] z + (1 + q[c]) a[c, g] x[g] + s[c])``

    with weights a, u and w of the gene's own, the state z of the cell, and k, q, r and s functions of time and
    condition alone. A network narrower than the number of genes cannot carry every gene's value through to its output,
    as a plain velocity asks; here it need not, and only what genes have in common passes through z.

    Parameters
    ----------
    n_genes
        Number of genes G.
    n_outputs
        Outputs per gene.
    state_width
        Length of the state of a cell.
    embedding_width
        Length of the embedding of time and condition.
    width
        Channels of a gene.

    Raises
    ------
    ValueError
        If there is no channel.

    Examples
    --------
    >>> import perturbflow as pf
    >>> import torch
    >>> networks = pf.flow.GeneNetworks(5, 2, state_width=3, embedding_width=4, width=2)
    >>> output = networks(torch.randn(6, 5), torch.randn(6, 3), torch.randn(6, 4))
    >>> output.shape, bool((output == 0).all())
    (torch.Size([6, 10]), True)
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
        """Evaluate the networks; arguments broadcast.

        Parameters
        ----------
        x
            Values of the genes (..., n, G).
        state
            States of the cells (..., n, state_width).
        embedding
            Embeddings (..., n, embedding_width).

        Returns
        -------
        Outputs (..., n, n_outputs * G), zero until trained.
        """
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
        """Return which axes of the weights are indexed by genes; see :class:`perturbflow.flow.VelocityNetwork`.

        Parameters
        ----------
        prefix
            Name of this module within the network, with the dot.

        Returns
        -------
        Pairs of an axis and what it is indexed by, for every such weight.
        """
        return {f"{prefix}{name}": ((axis, "gene"),) for name, axis in (("lift", 1), ("gain", 1), ("write", 2))}
