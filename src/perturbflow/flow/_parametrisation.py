"""Parametrisations: the meaning of the velocity network's output."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

_LOWEST_VARIANCE = 1e-4


@dataclass(frozen=True)
class GeneDistribution:
    """Hurdle distribution of every gene for every cell of a batch; see :class:`perturbflow.flow.HurdleDistribution`."""

    expressed: Tensor  # probability (n, G)
    mean: Tensor  # of the expressed values (n, G)
    variance: Tensor  # of the expressed values (n, G) or (G,)

    def moments(self) -> tuple[Tensor, Tensor]:
        """Means and variances over all cells (n, G), zeros included."""
        mean = self.expressed * self.mean
        second = self.expressed * (self.variance + self.mean**2)
        return mean, (second - mean**2).clamp_min(_LOWEST_VARIANCE)


class Parametrisation(ABC):
    """Map from a network's output to the velocity of the flow from N(0, I) to cells.

    With x_t = (1 - t) x0 + t x1 the velocity is ``(E[x1 | x_t] - x_t) / (1 - t)``; a parametrisation decides how much
    of that is written down in closed form from the gene's distribution and what is left to the network.
    """

    n_outputs: int
    """Network outputs per gene."""
    last_time: float
    """Time at which integration stops."""
    uses_distribution: bool = True
    """True if the velocity is that of the prior where the output of the network is zero."""
    has_zeros: bool = False
    """True if its cells have exact zeros rather than small values of either sign."""

    @abstractmethod
    def inputs(self, x: Tensor, t: Tensor, distribution: GeneDistribution) -> Tensor:
        """Return what the network sees of points on the path (n, G) at times (n, 1), about unit scale at every time."""

    @abstractmethod
    def velocity(self, x: Tensor, t: Tensor, distribution: GeneDistribution, output: Tensor) -> Tensor:
        """Velocities (n, G) at points (n, G) and times (n, 1) for outputs of the network (n, n_outputs * G)."""

    def finish(self, x: Tensor, t: Tensor, distribution: GeneDistribution, output: Tensor) -> Tensor:
        """Turn states at the last time, with the outputs there, into cells (n, G): expression is not negative."""
        del t, distribution, output
        return x.clamp_min(0)

    def loss_weight(self, t: Tensor) -> Tensor:
        """Weights of the squared errors of the velocity at times (n, 1)."""
        return torch.ones_like(t)


class Velocity(Parametrisation):
    """``v = net(x_t, t, c)``: the plain velocity of PRiMeFlow (arXiv 2604.13986).

    Examples
    --------
    >>> import perturbflow as pf
    >>> import torch
    >>> distribution = pf.flow.GeneDistribution(torch.tensor([[0.5]]), torch.tensor([[2.0]]), torch.tensor([[1.0]]))
    >>> pf.flow.Velocity().velocity(torch.zeros(1, 1), torch.zeros(1, 1), distribution, torch.tensor([[3.0]]))
    tensor([[3.]])
    """

    n_outputs = 1
    last_time = 1.0
    uses_distribution = False

    def inputs(self, x: Tensor, t: Tensor, distribution: GeneDistribution) -> Tensor:
        del t, distribution
        return x

    def velocity(self, x: Tensor, t: Tensor, distribution: GeneDistribution, output: Tensor) -> Tensor:
        del x, t, distribution
        return output


class Gaussian(Parametrisation):
    r"""The exact velocity of an independent Gaussian gene, and a scaled correction.

    With mean mu and variance s^2 of a gene over all cells, V = (1-t)^2 + t^2 s^2 and z = (x_t - t mu) / sqrt(V):
    ``v = mu + (t s^2 - (1 - t)) / V (x_t - t mu) + s / sqrt(V) net(z, t, c)``. s^2 / V is the residual variance of
    x1 - x0 given x_t, so the network's target has unit variance at every time (the flow-matching analogue of the
    preconditioning of Karras et al. 2022, arXiv 2206.00364).

    Examples
    --------
    A network that says nothing leaves the flow from N(0, 1) to N(2, 0.5^2), which takes z to ``2 + 0.5 z``:

    >>> import perturbflow as pf
    >>> import torch
    >>> distribution = pf.flow.GeneDistribution(torch.ones(1, 1), torch.full((1, 1), 2.0), torch.full((1, 1), 0.25))
    >>> def field(t, x):
    ...     return pf.flow.Gaussian().velocity(x, torch.full((1, 1), t), distribution, torch.zeros(3, 1))
    >>> noise = torch.tensor([[-1.0], [0.0], [1.0]])
    >>> pf.flow.integrate(field, noise, start=0.0, stop=1.0, n_steps=20, method="rk4").T
    tensor([[1.5000, 2.0000, 2.5000]])
    """

    n_outputs = 1
    last_time = 1.0

    def inputs(self, x: Tensor, t: Tensor, distribution: GeneDistribution) -> Tensor:
        mean, variance = distribution.moments()
        return (x - t * mean) / ((1 - t) ** 2 + t**2 * variance).sqrt()

    def velocity(self, x: Tensor, t: Tensor, distribution: GeneDistribution, output: Tensor) -> Tensor:
        mean, variance = distribution.moments()
        total = (1 - t) ** 2 + t**2 * variance
        drift = mean + (t * variance - (1 - t)) / total * (x - t * mean)
        return drift + (variance / total).sqrt() * output


class ZeroInflated(Parametrisation):
    r"""The exact posterior of a gene that is 0 with probability 1 - p and N(m, s^2) otherwise.

    The network moves the log-odds and the mean: with (a, b) = net(...), m' = m + s b and V = (1-t)^2 + t^2 s^2,

    ``logit q = logit p + a + log N(x_t; t m', V) - log N(x_t; 0, (1-t)^2)``
    ``E[x1 | x_t] = q (m' + t s^2 / V (x_t - t m'))``, ``v = (E[x1 | x_t] - x_t) / (1 - t)``.

    With the network at zero this is the best model of independent genes. The network sees the closed-form posterior
    mean, centred and scaled by the gene's moments: nothing at t = 0, the standardised cell at t = 1, and never the
    condition's own effect, which the distribution carries; so what it learns in one condition holds in the next.

    Examples
    --------
    At time 0 nothing is known of the cell but the distribution, whose mean is ``p m``, here 0.25 * 2:

    >>> import perturbflow as pf
    >>> import torch
    >>> distribution = pf.flow.GeneDistribution(
    ...     torch.full((1, 1), 0.25), torch.full((1, 1), 2.0), torch.full((1, 1), 0.1)
    ... )
    >>> nothing, x = torch.zeros(2, 2), torch.tensor([[0.0], [2.0]])
    >>> pf.flow.ZeroInflated().velocity(x, torch.zeros(1, 1), distribution, nothing).T
    tensor([[ 0.5000, -1.5000]])
    >>> pf.flow.ZeroInflated().finish(x, torch.ones(1, 1), distribution, nothing).T  # at the end, off is exactly 0
    tensor([[0., 2.]])
    """

    n_outputs = 2
    last_time = 0.99
    has_zeros = True

    def inputs(self, x: Tensor, t: Tensor, distribution: GeneDistribution) -> Tensor:
        mean, variance = distribution.moments()
        probability, value = self._posterior(x, t, distribution, None)
        return (probability * value - mean) / variance.clamp_min(1e-3).sqrt()

    def velocity(self, x: Tensor, t: Tensor, distribution: GeneDistribution, output: Tensor) -> Tensor:
        t = t.clamp(max=self.last_time)
        probability, value = self._posterior(x, t, distribution, output)
        return (probability * value - x) / (1 - t)

    def finish(self, x: Tensor, t: Tensor, distribution: GeneDistribution, output: Tensor) -> Tensor:
        probability, value = self._posterior(x, t, distribution, output)
        return torch.where(probability > 0.5, value.clamp_min(0), torch.zeros((), dtype=x.dtype, device=x.device))

    def loss_weight(self, t: Tensor) -> Tensor:
        # The raw velocity loss would put nearly all weight next to t = 1, where nothing is left to decide.
        left = (1 - t.clamp(max=self.last_time)) ** 2
        return left / (left + 0.05)

    def _posterior(
        self, x: Tensor, t: Tensor, distribution: GeneDistribution, output: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Probability of being expressed and expected value if so, given x_t (n, G)."""
        t = t.clamp(max=self.last_time)
        log_odds, mean = torch.logit(distribution.expressed), distribution.mean
        if output is not None:
            shift, move = output.chunk(2, dim=-1)
            log_odds, mean = log_odds + shift, mean + distribution.variance.sqrt() * move
        left = (1 - t) ** 2
        total = left + t**2 * distribution.variance
        residual = x - t * mean
        log_odds = log_odds - 0.5 * (total / left).log() - residual**2 / (2 * total) + x**2 / (2 * left)
        return torch.sigmoid(log_odds.clamp(-30, 30)), mean + t * distribution.variance / total * residual


PARAMETRISATIONS: dict[str, Parametrisation] = {
    "velocity": Velocity(),
    "gaussian": Gaussian(),
    "zero_inflated": ZeroInflated(),
}
