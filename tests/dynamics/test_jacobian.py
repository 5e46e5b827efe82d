from __future__ import annotations

from typing import Any

import pytest
import torch

from perturbflow.dynamics import FieldConfig, build_field, mean_jacobian

KINDS: dict[str, dict[str, Any]] = {
    "per_target": {},
    "free": {"production": "free", "decay": False, "self_regulation": True},
    "skip": {"skip": True},
    "linear": {"structure": "linear", "self_regulation": True},
    "dense": {"structure": "dense", "hidden": (6, 5), "self_regulation": True},
    "second_order": {"order": 2, "decay": False, "production": "free", "self_regulation": True},
}


@pytest.mark.parametrize("name", KINDS)
def test_finite_differences(name):
    config = FieldConfig(4, (0, 2, 3), **KINDS[name])
    field = build_field(config, seed=1).double()
    states = torch.randn(6, config.order * 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = mean_jacobian(field, states)
    step = 1e-5
    for k, position in enumerate(field.inputs.tolist()):
        up, down = states.clone(), states.clone()
        up[:, position] += step
        down[:, position] -= step
        with torch.no_grad():
            slope = (field.highest_rates(up) - field.highest_rates(down)) / (2 * step)
            if config.decay and position < 4:
                slope[:, position] += field.decay_rates()[position]  # decay is no regulation
        torch.testing.assert_close(found.mean[:, k], slope.mean(dim=0), atol=1e-8, rtol=1e-6)
        torch.testing.assert_close(found.magnitude[:, k], slope.abs().mean(dim=0), atol=1e-8, rtol=1e-6)


def test_linear_field_gives_its_matrix():
    config = FieldConfig(3, (0, 1, 2), structure="linear", decay=False, production="free", self_regulation=True)
    field = build_field(config)
    found = mean_jacobian(field, torch.randn(5, 3))
    torch.testing.assert_close(found.mean, field.matrices[0][:, 0].detach())
    torch.testing.assert_close(found.signed, found.mean)


def test_sign_is_that_of_the_mean_and_size_that_of_single_states():
    config = FieldConfig(1, (0,), decay=False, production="free", self_regulation=True, activation="tanh", hidden=(1,))
    field = build_field(config)
    with torch.no_grad():
        field.matrices[0].fill_(1.0)
        field.matrices[1].fill_(-2.0)
        field.biases[0].zero_()
    found = mean_jacobian(field, torch.zeros(1, 1))
    assert found.mean.item() == found.signed.item() == pytest.approx(-2)
    assert found.magnitude.item() == pytest.approx(2)
    # Two hidden units make a hump: rising left of 0, falling right of it.
    hump = build_field(
        FieldConfig(1, (0,), decay=False, production="free", self_regulation=True, hidden=(2,), activation="tanh")
    )
    with torch.no_grad():
        hump.matrices[0].copy_(torch.tensor([[[1.0], [1.0]]]))
        hump.biases[0].copy_(torch.tensor([[1.0, -1.0]]))
        hump.matrices[1].copy_(torch.tensor([[[1.0, -1.0]]]))
    found = mean_jacobian(hump, torch.tensor([[-1.0], [1.0], [1.5]]))
    assert found.magnitude.item() > abs(found.mean.item())
    assert found.signed.item() == -found.magnitude.item()


def test_other_weights_and_untouched_gradients():
    field = build_field(FieldConfig(3, (0, 1), hidden=(4,)), seed=2)
    states = torch.rand(5, 3)
    first, second = field.weights()
    closed = torch.tensor([1.0, 0.0])
    found = mean_jacobian(field, states, [first * closed, second])
    assert not found.magnitude[:, 1].any()
    torch.testing.assert_close(found.mean[:, 0] != 0, torch.tensor([False, True, True]))  # no self-regulation
    assert not found.mean.requires_grad
    assert all(parameter.grad is None for parameter in field.parameters())
