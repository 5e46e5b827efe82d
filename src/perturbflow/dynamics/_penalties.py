"""Ways to sparsity: penalties, their proximal steps, and gates."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from perturbflow.dynamics._field import VectorField

Weights = Sequence[Tensor]

TEMPERATURE = 2 / 3
LOWER, UPPER = -0.1, 1.1
CLOSED = math.log(-LOWER / UPPER)  # log alpha at and below which the expected gate is exactly 0: -2.398
DROP_RATE = 0.2  # probability that a gate is below one half before training
GATE_RATIO = 0.1  # of released PathReg, penalty of open gates relative to that of weights
HIERARCHY = 10.0  # of LassoNet: weights of a network that leave an input, at most, relative to its linear weight


def path_product(layers: Sequence[Tensor]) -> Tensor:
    r"""Return :math:`W_L \cdots W_2 W_1` (n_targets, n_inputs), the sum over paths of the products of their entries.

    Layers may have leading axes for several networks: those of one output each, (K, 1, n_inputs), give (K, n_inputs).
    """
    product = functools.reduce(lambda inner, outer: outer @ inner, layers)
    return product[..., 0, :] if product.dim() == 3 else product


def path_weights(layers: Sequence[Tensor], skip: Tensor | None = None) -> Tensor:
    r"""Return :math:`|W_L| \cdots |W_1|`, to which a linear skip adds a path: 0 exactly where no path connects the two.

    C-NODE; Aliee, Theis and Kilbertus (2021), arXiv:2106.12430.
    """
    paths = path_product([torch.abs(layer) for layer in layers])
    return paths if skip is None else paths + skip[:, 0].abs()


def path_strengths(field: VectorField, weights: Weights) -> Tensor:
    """Return the path weights of every input of every target of a field (K, n_inputs)."""
    return path_weights(weights[:-1], weights[-1]) if field.config.skip else path_weights(weights)


def soft_threshold(x: Tensor, amount: Tensor | float) -> Tensor:
    r"""Return :math:`\operatorname{sign}(x)\max(|x| - a, 0)`, the proximal map of :math:`a|x|`."""
    return torch.sign(x) * (x.abs() - amount).clamp(min=0)


def group_soft_threshold(groups: Tensor, amount: Tensor, *, dim: int) -> Tensor:
    r"""Return :math:`w \max(1 - a / \|w\|_2, 0)`, the proximal map of :math:`a \|w\|_2`, for groups along ``dim``."""
    norm = groups.norm(dim=dim, keepdim=True)
    return groups * (1 - amount / norm.clamp(min=torch.finfo(groups.dtype).tiny)).clamp(min=0)


def hierarchical_proximal(theta: Tensor, weights: Tensor, amount: Tensor, hierarchy: float) -> tuple[Tensor, Tensor]:
    r"""Project linear weights (...,) and those that leave each input (..., H) onto LassoNet's hierarchy.

    Solves, for every input by itself, :math:`\min_{b, w} \tfrac12 (b - \theta)^2 + \tfrac12 \|w - W\|_2^2 + a |b|`
    subject to :math:`\|w\|_\infty \le M |b|`, exactly, by sorting, with a step times strength a. Lemhadri, Ruan,
    Abraham and Tibshirani (2021), JMLR 22, 127, algorithm 2.
    """
    magnitude, _ = weights.abs().sort(dim=-1, descending=True)
    sums = torch.cat([torch.zeros_like(magnitude[..., :1]), magnitude.cumsum(dim=-1)], dim=-1)
    count = torch.arange(sums.shape[-1], dtype=theta.dtype, device=theta.device)
    bound = hierarchy * soft_threshold(theta.abs()[..., None] + hierarchy * sums, amount[..., None])
    bound = bound / (1 + count * hierarchy**2)
    lower = torch.cat([magnitude, torch.zeros_like(magnitude[..., :1])], dim=-1)
    # The first count whose bound is no less than the next magnitude; with the last, 0, there is always one.
    chosen = bound.gather(-1, (bound >= lower).to(torch.int8).argmax(dim=-1, keepdim=True))
    sign = torch.where(theta >= 0, 1.0, -1.0)
    return sign * chosen[..., 0] / hierarchy, torch.sign(weights) * torch.minimum(weights.abs(), chosen)


def sample_gates(log_alpha: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
    r"""Draw a hard-concrete gate between 0 and 1 for every parameter, differentiable in the parameters.

    It is :math:`\min(1, \max(0, s(\zeta-\gamma) + \gamma))` with stretch limits :math:`\gamma < 0 < 1 < \zeta` and, at
    the temperature :math:`\beta`, :math:`s = \sigma\big((\log u - \log(1-u) + \log\alpha) / \beta\big)`, u uniform.
    Louizos, Welling and Kingma (2018), arXiv:1712.01312.
    """
    uniform = torch.rand(log_alpha.shape, generator=generator, dtype=log_alpha.dtype, device=log_alpha.device)
    uniform = uniform.clamp(1e-6, 1 - 1e-6)
    s = torch.sigmoid((uniform.logit() + log_alpha) / TEMPERATURE)
    return (s * (UPPER - LOWER) + LOWER).clamp(0, 1)


def expected_gates(log_alpha: Tensor) -> Tensor:
    """Return the gates of evaluation: without noise; closed where ``log_alpha`` is at most ``CLOSED``."""
    return (torch.sigmoid(log_alpha) * (UPPER - LOWER) + LOWER).clamp(0, 1)


def open_probability(log_alpha: Tensor) -> Tensor:
    """Return the probability that a drawn gate is not 0 (Louizos et al., eq. 12)."""
    return torch.sigmoid(log_alpha - TEMPERATURE * CLOSED)


class Sparsity(nn.Module):
    """No sparsity: the weights as they are. Others override what they need.

    A fit minimises the error plus ``strength`` times :meth:`penalty`, with the weights that :meth:`draw` returns, and
    calls :meth:`proximal_` after every step. Penalties are means over targets, so that a strength means the same for
    any number of genes. ``factors`` (K, n_inputs) say how much each input of each target is penalised, 1 by default.
    """

    structures: ClassVar[tuple[str, ...]] = ("per_target", "linear", "dense")
    needs_skip: ClassVar[bool] = False
    factors: Tensor

    def __init__(self, field: VectorField, *, factors: Tensor | None = None) -> None:
        super().__init__()
        shape = (len(field.targets), field.config.n_inputs)
        self.register_buffer("factors", torch.ones(shape) if factors is None else factors.to(torch.float32))

    def draw(self, weights: Weights, *, generator: torch.Generator | None = None) -> tuple[Tensor, ...]:
        """Return the weights of one solve in training: gates are drawn here, once."""
        return tuple(weights)

    def expected(self, weights: Weights) -> tuple[Tensor, ...]:
        """Return the weights without noise, for prediction."""
        return tuple(weights)

    def penalty(self, weights: Weights) -> Tensor:
        """Return the penalty, a differentiable number, given the weights of the field."""
        return weights[0].new_zeros(())

    def proximal_(self, field: VectorField, strength: float, steps: Mapping[str, Tensor]) -> None:
        """Take the proximal step of a penalty that is not differentiable, in place.

        ``steps`` has the size of the last gradient step of every parameter by its name, a number for each entry.
        """


class L1(Sparsity):
    r"""Sum of the absolute values of all weights, :math:`\lambda \sum_l \|W_l\|_{1,1} / d`, with proximal steps.

    Sparse weights; whether an input disappears is up to chance, because all its weights must. Tibshirani (1996).
    """

    def proximal_(self, field: VectorField, strength: float, steps: Mapping[str, Tensor]) -> None:
        factors = self.factors[:, None, :] if field.config.structure != "dense" else self.factors.mean(dim=0)
        for k, matrix in enumerate(field.matrices):
            amount = steps[f"matrices.{k}"] * strength / len(self.factors)
            matrix.data.copy_(soft_threshold(matrix.data, amount * factors if k == 0 else amount))


class GroupLasso(Sparsity):
    r"""Norms of all weights that leave an input, :math:`\lambda \sum_{ij} f_{ij} \|W_{1,i}[:, j]\|_2 / d`, proximal.

    With a network per target, input j disappears from target i. In a dense network it disappears from all. The factors
    f make it adaptive: a second fit divides by the norms of the first, :meth:`adapt`. NGM; Bellot, Branson and
    van der Schaar (2022), arXiv:2105.02522.
    """

    def proximal_(self, field: VectorField, strength: float, steps: Mapping[str, Tensor]) -> None:
        matrix = field.matrices[0]
        dense = field.config.structure == "dense"
        dim = 0 if dense else 1
        # One step a group, so that the map stays a multiplication of the group.
        amount = steps["matrices.0"].mean(dim=dim, keepdim=True) * strength
        amount = amount * (self.factors.mean(dim=0) if dense else self.factors[:, None, :] / len(self.factors))
        matrix.data.copy_(group_soft_threshold(matrix.data, amount, dim=dim))

    def adapt(self, field: VectorField) -> None:
        """Divide the factors by the norms of the groups, relative to the mean norm of the target's inputs."""
        matrix = field.matrices[0].data
        norms = matrix.norm(dim=0).expand_as(self.factors) if matrix.dim() == 2 else matrix.norm(dim=1)
        relative = norms / norms.mean(dim=1, keepdim=True).clamp(min=1e-12)
        self.factors.copy_(self.factors / (relative + 0.1))


class LassoNet(Sparsity):
    r"""Lasso of a linear skip connection, :math:`\lambda \|\theta\|_1 / d`, that bounds the network's weights.

    :math:`\|W_{1,i}[:, j]\|_\infty \le M |\theta_{ij}|`: one network per target, so that inputs disappear per target.
    Proximal steps are hierarchical. Lemhadri, Ruan, Abraham and Tibshirani (2021), JMLR 22, 127.
    """

    structures: ClassVar[tuple[str, ...]] = ("per_target",)
    needs_skip: ClassVar[bool] = True

    def proximal_(self, field: VectorField, strength: float, steps: Mapping[str, Tensor]) -> None:
        matrix, linear = field.matrices[0], field.linear
        amount = steps["linear"][:, 0] * self.factors * strength / len(self.factors)
        theta, weights = hierarchical_proximal(linear.data[:, 0], matrix.data.transpose(1, 2), amount, HIERARCHY)
        linear.data[:, 0] = theta
        matrix.data.copy_(weights.transpose(1, 2))


class _PathSparsity(Sparsity):
    """What penalties of paths have in common."""

    def __init__(self, field: VectorField, *, factors: Tensor | None = None) -> None:
        super().__init__(field, factors=factors)
        self.has_skip = field.config.skip

    def split(self, weights: Weights) -> tuple[Weights, Tensor | None]:
        """Return the layers that follow each other, and the linear skip if there is one."""
        return (weights[:-1], weights[-1]) if self.has_skip else (weights, None)

    def total(self, paths: Tensor) -> Tensor:
        """Return the factor-weighted sum over inputs of what paths (K, n_inputs) have, mean over targets."""
        return (self.factors * paths).sum() / len(self.factors)


class CNODE(_PathSparsity):
    r"""Lasso of paths, :math:`\lambda \big\| |W_L| \cdots |W_1| \big\|_{1,1} / d`.

    The sum over all paths from inputs to targets of the products of absolute weights. An entry of the product that is 0
    proves that the target does not depend on the input. Aliee, Theis and Kilbertus (2021), arXiv:2106.12430; there the
    mean over all entries instead of the sum divided by d.
    """

    def penalty(self, weights: Weights) -> Tensor:
        return self.total(path_weights(*self.split(weights)))


class _Gated(_PathSparsity):
    """Weights times gates, which are drawn in training: a gate parameter for every entry of ``shapes``, by layer."""

    of_inputs: ClassVar[bool] = True  # whether the gates of the first layer are those of inputs, and close its skip

    def __init__(self, field: VectorField, *, factors: Tensor | None = None) -> None:
        super().__init__(field, factors=factors)
        chain, _ = self.split(field.weights())
        self.log_alpha = nn.ParameterList()
        for k, gated in enumerate(self.gated(chain)):
            closed = self.drop_rate(k)
            self.log_alpha.append(nn.Parameter(torch.full_like(gated, math.log(1 - closed) - math.log(closed))))

    def gated(self, layers: Weights) -> Weights:
        """Return tensors of the shapes of the gates, from the first layer on."""
        return layers

    def drop_rate(self, layer: int) -> float:
        """Return the probability that a gate is below one half before training."""
        return DROP_RATE

    def draw(self, weights: Weights, *, generator: torch.Generator | None = None) -> tuple[Tensor, ...]:
        return self.apply_gates(weights, [sample_gates(a, generator=generator) for a in self.log_alpha])

    def expected(self, weights: Weights) -> tuple[Tensor, ...]:
        return self.apply_gates(weights, [expected_gates(a) for a in self.log_alpha])

    def apply_gates(self, weights: Weights, gates: Weights) -> tuple[Tensor, ...]:
        """Return the weights times their gates; layers beyond those with gates stay as they are."""
        chain, skip = self.split(weights)
        gated = [*(w * z for w, z in zip(chain, gates, strict=False)), *chain[len(gates) :]]
        if skip is not None:
            gated.append(skip * gates[0] if self.of_inputs else skip)
        return tuple(gated)


class L0(_Gated):
    r"""Expected number of open hard-concrete gates, :math:`\lambda \sum P(z \ne 0) / d`.

    With a network per target there is a gate for every input of every target, as in L0-NDDE (Boussard, Debouchage and
    Saulus); in a dense network there is one for every weight (Louizos, Welling and Kingma 2018, arXiv:1712.01312).
    """

    def gated(self, layers: Weights) -> Weights:
        return layers if layers[0].dim() == 2 else [layers[0][:, :1, :]]

    def penalty(self, weights: Weights) -> Tensor:
        probabilities = [open_probability(a) for a in self.log_alpha]
        if probabilities[0].dim() == 3:
            return self.total(probabilities[0][:, 0])
        first, *others = probabilities
        return ((first * self.factors.mean(dim=0)).sum() + sum(p.sum() for p in others)) / len(self.factors)


class PathReg(_Gated):
    r"""PathReg as it was released, to compare with.

    Gates :math:`z_l`, one for each input unit of layer l, multiply the columns of :math:`W_l`, and the penalty is
    :math:`\lambda\, (\| |W_L| \cdots |W_1| \|_{1,1} + 0.1 \| G_L \cdots G_1 \|_{1,1}) / d` with :math:`G_l = 1 z_l^T`
    from drawn gates. Because a gate serves all units of the next layer, the product of gates has the same row for every
    target of a dense network: it selects inputs for all targets at once. Aliee, Richter, Solonin, Ibarra, Theis and
    Kilbertus (2022), arXiv:2210.14672, and its code; there means instead of sums divided by d, and a new draw at every
    evaluation of the vector field. :class:`PathRegEdge` is without these restrictions.
    """

    def __init__(self, field: VectorField, *, factors: Tensor | None = None) -> None:
        super().__init__(field, factors=factors)
        self.drawn = [torch.ones_like(a) for a in self.log_alpha]

    def gated(self, layers: Weights) -> Weights:
        return [layer[..., :1, :] for layer in layers]

    def drop_rate(self, layer: int) -> float:
        return DROP_RATE if layer == 0 else 0.5

    def draw(self, weights: Weights, *, generator: torch.Generator | None = None) -> tuple[Tensor, ...]:
        self.drawn = [sample_gates(a, generator=generator) for a in self.log_alpha]
        return self.apply_gates(weights, self.drawn)

    def penalty(self, weights: Weights) -> Tensor:
        chain, skip = self.split(weights)
        gates = path_product([z.expand_as(w) for z, w in zip(self.drawn, chain, strict=True)])
        return self.total(path_weights(chain, skip)) + GATE_RATIO * self.total(gates)

    def __getstate__(self) -> dict[str, Any]:
        # Drawn gates belong to the graph of one step, of which torch makes no copies.
        return self.__dict__ | {"drawn": [gates.detach() for gates in self.drawn]}


class PathRegEdge(_Gated):
    r"""PathReg with the penalty that the paper means: one gate a weight, and probabilities along paths.

    :math:`\lambda \big( \| |z_L W_L| \cdots |z_1 W_1| \|_{1,1} + \| P_L \cdots P_1 \|_{1,1} \big) / d` with
    expected gates z in the first term and :math:`P_l = P(z_l \ne 0)`. The second term is the expected number of open
    paths from each input to each target, divided by the number of paths between them, so that it lies between 0 and the
    number of inputs. Gates can close all paths between one input and one target. After Aliee et al. (2022),
    arXiv:2210.14672, equation of PathReg.
    """

    of_inputs: ClassVar[bool] = False

    def penalty(self, weights: Weights) -> Tensor:
        probabilities = [open_probability(a) for a in self.log_alpha]
        n_paths = path_product([torch.ones_like(p) for p in probabilities])
        open_paths = self.total(path_product(probabilities) / n_paths)
        return self.total(path_weights(*self.split(self.expected(weights)))) + open_paths


SPARSITIES: Mapping[str, type[Sparsity]] = MappingProxyType(
    {
        "none": Sparsity,
        "l1": L1,
        "cnode": CNODE,
        "l0": L0,
        "group_lasso": GroupLasso,
        "lassonet": LassoNet,
        "pathreg": PathReg,
        "pathreg_edge": PathRegEdge,
    }
)
"""Sparsity methods by name (read-only); the classes have formulas and sources."""
