"""Vector fields, the rate of change of every gene given the levels of all, and their mean Jacobian."""

from __future__ import annotations

import math
import threading
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from perturbflow.dynamics._settings import FieldConfig

ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType(
    {
        "elu": functional.elu,
        "identity": lambda x: x,
        "silu": functional.silu,
        "tanh": torch.tanh,
    }
)
"""Nonlinearities by name, a read-only view."""

SHARED = ("inputs", "centre")  # buffers that mechanisms have in common


class VectorField(nn.Module, ABC):
    """Rates of change of genes as a function of the state, with weights that can be replaced.

    ``forward`` takes the weights of the layers as an argument, so that gates are drawn once and then held through a
    whole solve. States (B, order * d) are levels and, in second order, rates, in units of each gene's spread; times are
    in units of the data's time scale. There are K targets, whose mechanisms these are.
    """

    targets: Tensor
    inputs: Tensor
    centre: Tensor
    allowed: Tensor
    matrices: nn.ParameterList
    biases: nn.ParameterList
    linear: nn.Parameter

    def __init__(self, config: FieldConfig, targets: Sequence[int], *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.generator = torch.Generator().manual_seed(seed)
        regulators = torch.tensor(config.regulators, dtype=torch.long)
        offsets = torch.arange(config.order).repeat_interleave(len(regulators)) * config.n_genes
        self.register_buffer("targets", torch.tensor(list(targets), dtype=torch.long))
        self.register_buffer("inputs", regulators.repeat(config.order) + offsets)
        self.register_buffer("centre", torch.zeros(config.n_inputs))
        allowed = torch.ones(len(self.targets), config.n_inputs)
        if not config.self_regulation:
            allowed[self.targets[:, None] == (self.inputs % config.n_genes)[None, :]] = 0.0
        self.register_buffer("allowed", allowed)
        self.raw_decay = nn.Parameter(torch.full((len(self.targets),), math.log(math.expm1(1.0))))
        self.raw_range = nn.Parameter(torch.full((len(self.targets),), 1.0))

    @abstractmethod
    def weights(self) -> tuple[Tensor, ...]:
        """Return the matrices of the layers, from the first to the last, without what is not allowed."""

    @abstractmethod
    def network(self, inputs: Tensor, weights: Sequence[Tensor]) -> Tensor:
        """Return the output of the networks, shape (K, B)."""

    def decay_rates(self) -> Tensor:
        """Return the positive rates of decay, shape (K,)."""
        return functional.softplus(self.raw_decay)

    def highest_rates(self, state: Tensor, weights: Sequence[Tensor] | None = None) -> Tensor:
        """Return the highest derivative of every target, shape (B, K)."""
        return self.rates_of(self.network_inputs(state), state.T[self.targets], weights).T

    def network_inputs(self, state: Tensor) -> Tensor:
        """Return what enters the networks, which does not depend on weights."""
        return state[:, self.inputs] - self.centre

    def rates_of(self, inputs: Tensor, level: Tensor, weights: Sequence[Tensor] | None = None) -> Tensor:
        """Return the highest derivative of every target, shape (K, B)."""
        output = self.network(inputs, self.weights() if weights is None else weights)
        if self.config.production == "bounded":
            output = functional.softplus(self.raw_range)[:, None] * torch.sigmoid(output)
        if self.config.decay:
            output = output - self.decay_rates()[:, None] * level
        return output

    def forward(self, state: Tensor, weights: Sequence[Tensor] | None = None) -> Tensor:
        """Return the time derivative of the state, shape (B, order * d)."""
        derivative = self.highest_rates(state, weights)
        if self.config.at_rest:
            derivative = self.of_all_genes(derivative.T).T
        if self.config.order == 1:
            return derivative
        rates = state[:, self.config.n_genes :]
        if self.config.at_rest:
            rates = rates.index_fill(1, self.targets.new_tensor(self.config.at_rest), 0.0)
        return torch.cat([rates, derivative], dim=1)

    def of_all_genes(self, values: Tensor) -> Tensor:
        """Return rows of the targets among rows of all genes (d, ...), which are 0 for genes without a mechanism."""
        everything = values.new_zeros(self.config.n_genes, *values.shape[1:])
        return everything.index_copy(0, self.targets, values)

    def _normal(self, *shape: int, scale: float) -> nn.Parameter:
        return nn.Parameter(scale * torch.randn(shape, generator=self.generator))


class TargetField(VectorField):
    """A network of its own for every target; a linear function without hidden layers.

    Several mechanisms of one target can stand side by side: all are evaluated by the same matrix products.
    """

    def __init__(self, config: FieldConfig, targets: Sequence[int], *, seed: int = 0) -> None:
        super().__init__(config, targets, seed=seed)
        hidden = () if config.structure == "linear" else config.hidden
        n_heads, sizes = len(self.targets), (config.n_inputs, *hidden, 1)
        self.matrices = nn.ParameterList(
            self._normal(n_heads, n_out, n_in, scale=1 / math.sqrt(n_in))
            for n_in, n_out in zip(sizes, sizes[1:], strict=False)
        )
        self.biases = nn.ParameterList(
            self._normal(n_heads, n_out, scale=0.0 if n_out == 1 else 0.5) for n_out in sizes[1:]
        )
        if config.skip:
            self.linear = self._normal(n_heads, 1, config.n_inputs, scale=0.1)

    def weights(self) -> tuple[Tensor, ...]:
        first, *others = self.matrices
        allowed = self.allowed[:, None, :]
        return (first * allowed, *others, *([self.linear * allowed] if self.config.skip else []))

    def network(self, inputs: Tensor, weights: Sequence[Tensor]) -> Tensor:
        layers = weights[: len(self.matrices)]
        n_heads, width, n_in = layers[0].shape
        # The first layer of all targets is one matrix product.
        values = (layers[0].reshape(-1, n_in) @ inputs.T).view(n_heads, width, -1) + self.biases[0][..., None]
        values = self.after_first(values, layers[1:])
        if self.config.skip:
            values = values + weights[-1][:, 0] @ inputs.T
        return values

    def after_first(self, values: Tensor, layers: Sequence[Tensor]) -> Tensor:
        """Return what the layers after the first make of its values (K, n, B)."""
        for layer, bias in zip(layers, list(self.biases)[1:], strict=True):
            values = torch.baddbmm(bias[..., None], layer, ACTIVATIONS[self.config.activation](values))
        return values[:, 0]

    def select(self, heads: Tensor) -> Self:
        """Return some of the mechanisms, in this order and possibly repeated; weights are copies."""
        chosen = object.__new__(type(self))
        nn.Module.__init__(chosen)
        chosen.config = self.config
        for name, buffer in self.named_buffers():
            chosen.register_buffer(name, buffer if name in SHARED else buffer[heads])
        for name, layers in self.named_children():
            setattr(chosen, name, nn.ParameterList(nn.Parameter(layer.data[heads]) for layer in layers.parameters()))
        for name, parameter in self.named_parameters(recurse=False):
            setattr(chosen, name, nn.Parameter(parameter.data[heads]))
        return chosen


class DenseField(VectorField):
    """One network for all targets, as in the papers, with an activation after every hidden layer.

    Self-regulation cannot be excluded, and a regulator is one for every target.
    """

    def __init__(self, config: FieldConfig, targets: Sequence[int], *, seed: int = 0) -> None:
        super().__init__(config, targets, seed=seed)
        sizes = (config.n_inputs, *config.hidden, len(self.targets))
        self.matrices = nn.ParameterList(
            self._normal(n_out, n_in, scale=1 / math.sqrt(n_in)) for n_in, n_out in zip(sizes, sizes[1:], strict=False)
        )
        self.biases = nn.ParameterList(self._normal(n_out, scale=0.0) for n_out in sizes[1:])
        for k, matrix in enumerate(self.matrices):
            self.register_buffer(f"mask{k}", torch.ones_like(matrix.data))

    def masks(self) -> list[Tensor]:
        """Return which weights may differ from 0, a matrix a layer."""
        return [self.get_buffer(f"mask{k}") for k in range(len(self.matrices))]

    def weights(self) -> tuple[Tensor, ...]:
        return tuple(matrix * mask for matrix, mask in zip(self.matrices, self.masks(), strict=True))

    def network(self, inputs: Tensor, weights: Sequence[Tensor]) -> Tensor:
        values = inputs
        last = len(weights) - 1
        for k, (layer, bias) in enumerate(zip(weights, self.biases, strict=True)):
            values = functional.linear(values, layer, bias)
            values = ACTIVATIONS[self.config.activation](values) if k < last else values
        return values.T


def build_field(config: FieldConfig, *, seed: int = 0) -> VectorField:
    """Return a new vector field of all genes that are not at rest."""
    kind = DenseField if config.structure == "dense" else TargetField
    return kind(config, config.targets, seed=seed)


_ONE_AT_A_TIME = threading.Lock()  # torch has one level of forward-mode differentiation for all threads


@dataclass(frozen=True)
class MeanJacobian:
    """Averages over states of the derivatives of rates by inputs, all of shape (K, n_inputs).

    Attributes
    ----------
    mean
        Mean of the derivative.
    magnitude
        Mean of its absolute value.

    Examples
    --------
    >>> import perturbflow as pf
    >>> import torch
    >>> found = pf.dynamics.MeanJacobian(mean=torch.tensor([[-0.5]]), magnitude=torch.tensor([[2.0]]))
    >>> found.signed  # strong, and negative more often than not
    tensor([[-2.]])
    """

    mean: Tensor
    magnitude: Tensor

    @property
    def signed(self) -> Tensor:
        """Mean absolute value with the sign of the mean."""
        return torch.sign(self.mean) * self.magnitude


def mean_jacobian(field: VectorField, states: Tensor, weights: Sequence[Tensor] | None = None) -> MeanJacobian:
    """Average the Jacobian of the rates of all targets by all inputs over states, without a gene's own decay.

    One forward-mode product an input: memory does not grow with the number of inputs.
    """
    used = tuple(w.detach() for w in (field.weights() if weights is None else weights))
    means, magnitudes = [], []
    with torch.no_grad():
        for position in field.inputs.tolist():
            direction = torch.zeros_like(states)
            direction[:, position] = 1.0
            slope = _slope(lambda s: field.highest_rates(s, used), states, direction)
            if field.config.decay:
                own = (field.targets == position).to(slope.dtype)
                slope = slope + own * field.decay_rates()
            means.append(slope.mean(dim=0))
            magnitudes.append(slope.abs().mean(dim=0))
    return MeanJacobian(mean=torch.stack(means, dim=1), magnitude=torch.stack(magnitudes, dim=1))


def _slope(function: Callable[[Tensor], Tensor], states: Tensor, direction: Tensor) -> Tensor:
    with _ONE_AT_A_TIME, warnings.catch_warnings():
        # The first forward-mode product makes torch load decompositions in a way that it has deprecated itself.
        warnings.filterwarnings("ignore", "`torch.jit")
        return torch.func.jvp(function, (states,), (direction,))[1]
