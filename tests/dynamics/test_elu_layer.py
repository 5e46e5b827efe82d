"""A hidden layer and the layer after it: values and derivatives of the plain layers."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from perturbflow.dynamics._elu_layer import EluLayer


def batch(*, n_outputs=1):
    rng = torch.Generator().manual_seed(0)
    shapes = ((3, 4, 5), (3, n_outputs, 4), (3, n_outputs, 1))
    return [torch.randn(shape, generator=rng, dtype=torch.float64, requires_grad=True) for shape in shapes]


@pytest.mark.parametrize("n_outputs", [1, 2])
def test_values_and_gradients_are_those_of_the_plain_layers(n_outputs):
    hidden, weight, bias = batch(n_outputs=n_outputs)
    plain = torch.baddbmm(bias, weight, functional.elu(hidden))
    found = EluLayer.apply(hidden, weight, bias)[0]
    torch.testing.assert_close(found, plain)
    inputs = (hidden, weight, bias)
    for one, other in zip(
        torch.autograd.grad(found.sin().sum(), inputs), torch.autograd.grad(plain.sin().sum(), inputs), strict=True
    ):
        torch.testing.assert_close(one, other)
    assert torch.autograd.gradcheck(lambda *each: EluLayer.apply(*each)[0], inputs)


@pytest.mark.filterwarnings("ignore:`torch.jit")  # of torch itself, at its first forward-mode product
def test_changes_along_a_direction_are_those_of_the_plain_layers():
    values = tuple(each.detach() for each in batch())
    directions = tuple(torch.ones_like(each) for each in values)
    found = torch.func.jvp(lambda *each: EluLayer.apply(*each)[0], values, directions)[1]
    plain = torch.func.jvp(lambda h, w, b: torch.baddbmm(b, w, functional.elu(h)), values, directions)[1]
    torch.testing.assert_close(found, plain)


def test_large_values_neither_overflow_nor_lose_their_slope():
    hidden = torch.tensor([[[500.0], [-500.0]]], requires_grad=True)
    found = EluLayer.apply(hidden, torch.ones(1, 1, 2), torch.zeros(1, 1, 1))[0]
    found.sum().backward()
    assert found.item() == 499.0
    assert hidden.grad is not None
    assert hidden.grad[0, :, 0].tolist() == [1.0, 0.0]


def test_weights_of_another_width_are_refused():
    hidden, weight, bias = batch()
    with pytest.raises(RuntimeError, match="batch"):
        EluLayer.apply(hidden[:, :3], weight, bias)
