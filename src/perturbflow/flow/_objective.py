"""The probability path between noise and cells, the loss on it, and what a step of training draws."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perturbflow.flow._parametrisation import GeneDistribution

if TYPE_CHECKING:
    from perturbflow.flow._model import ConditionalFlow

Values = TypeVar("Values", Tensor, NDArray[np.float32])
_LAST_TIME = 0.99  # beyond the last time of integration nothing is asked of the network
_LARGEST_STEP = 2**32


def point_on_path(x0: Values, x1: Values, t: Any) -> Values:
    """Points (n, G) of the straight path ``x_t = (1 - t) x0 + t x1``, with velocity ``x1 - x0``, at times (n, 1).

    Lipman et al. 2023 (ICLR), eq. 20-23 with sigma_min = 0; noise x0 and cells x1 (n, G) are coupled independently, as
    in PRiMeFlow (arXiv 2604.13986).
    """
    return (1 - t) * x0 + t * x1


def flow_matching_errors(
    flow: ConditionalFlow, x1: Tensor, distribution: GeneDistribution, condition: Tensor, *, t: Tensor, x0: Tensor
) -> Tensor:
    """Weighted squared errors of the velocity, eq. 3 of PRiMeFlow with the weight of the parametrisation.

    Parameters
    ----------
    flow
        The flow.
    x1, x0, t
        Cells and noise (n, G), and times (n, 1) between 0 and 1.
    distribution, condition
        Distribution of every gene (n, G), and encoded conditions (n, size).

    Returns
    -------
    Errors (n, G); their mean is the loss.

    Examples
    --------
    >>> import torch
    >>> import perturbflow as pf
    >>> x = np.log1p(np.random.default_rng(0).poisson([3.0, 1.0], (200, 2))).astype(np.float32)
    >>> cells = pf.flow.CellData(x, np.zeros((200, 1)), np.zeros((200, 0), dtype=int))
    >>> prior = pf.flow.AdditiveHurdlePrior.fit(cells)
    >>> config = pf.flow.FlowConfig(n_genes=2, n_components=1, n_categories=(), parametrisation="velocity", width=16)
    >>> flow = pf.flow.ConditionalFlow(config, prior)
    >>> distribution = flow.gene_distribution(prior.distributions(np.zeros((200, 1)), cells.covariates))
    >>> condition = flow.encode(np.zeros((200, 1)), cells.covariates)
    >>> t, x0 = pf.flow.draw_path(200, 2, torch.Generator().manual_seed(0))
    >>> errors = pf.flow.flow_matching_errors(flow, torch.from_numpy(x), distribution, condition, t=t, x0=x0)
    >>> errors.shape, errors.requires_grad
    (torch.Size([200, 2]), True)
    """
    predicted = flow.velocity(point_on_path(x0, x1, t), t, distribution, condition)
    return flow.parametrisation.loss_weight(t) * (predicted - (x1 - x0)).square()


def draw_path(n_cells: int, n_genes: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw a time and a starting point for every cell.

    Parameters
    ----------
    n_cells, n_genes
        Number of cells n and of genes G.
    generator
        Source of randomness, on the device where the noise is wanted: at 18,000 genes copying it would take longer than
        the network.

    Returns
    -------
    Times (n, 1), at most 0.99, and noise (n, G).

    Examples
    --------
    >>> import torch
    >>> import perturbflow as pf
    >>> t, x0 = pf.flow.draw_path(4, 3, torch.Generator().manual_seed(0))
    >>> t.shape, x0.shape
    (torch.Size([4, 1]), torch.Size([4, 3]))
    """
    t = torch.rand((n_cells, 1), generator=generator, device=generator.device)
    x0 = torch.randn((n_cells, n_genes), generator=generator, device=generator.device)
    return t.clamp(max=_LAST_TIME), x0


def seed_of_step(seed: int, step: int) -> int:
    """Seed of 64 bits of what one step draws, whatever came before it.

    A run that is continued, or shared by several processes, draws what a run of its own would.
    """
    # The finaliser of splitmix64 (Steele, Lea and Flood, OOPSLA 2014): neighbouring inputs give unrelated seeds.
    value = (seed * _LARGEST_STEP + step + 0x9E3779B97F4A7C15) % 2**64
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB % 2**64
    return value ^ (value >> 31)
