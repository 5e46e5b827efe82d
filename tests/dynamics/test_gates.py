from __future__ import annotations

import math

import pytest
import torch

from perturbflow.dynamics import SPARSITIES, FieldConfig, build_field, expected_gates, open_probability, sample_gates

N_DRAWS = 40_000
TEMPERATURE, LOWER, UPPER = 2 / 3, -0.1, 1.1  # of Louizos, Welling and Kingma (2018)
CLOSED = math.log(0.1 / 1.1)


def draws(log_alpha: float) -> torch.Tensor:
    parameters = torch.full((N_DRAWS,), log_alpha, dtype=torch.float64)
    return sample_gates(parameters, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("log_alpha", [-5.0, -1.599, 0.0, 1.0, 3.0])
def test_gates_are_open_as_often_as_said(log_alpha):
    p = open_probability(torch.tensor(log_alpha, dtype=torch.float64)).item()
    # P(s > -lower / (upper - lower)) for s, a stretched and tempered logistic variable.
    threshold = -LOWER / (UPPER - LOWER)
    by_hand = 1 / (1 + math.exp(-(log_alpha - TEMPERATURE * math.log(threshold / (1 - threshold)))))
    assert p == pytest.approx(by_hand, rel=1e-12)
    frequency = (draws(log_alpha) != 0).double().mean().item()
    assert abs(frequency - p) < 4 * math.sqrt(p * (1 - p) / N_DRAWS)


def test_gates_are_exactly_one_as_often_as_symmetry_says():
    for log_alpha in (-1.0, 0.0, 2.0):
        p = open_probability(torch.tensor(-log_alpha)).item()  # 1 - z has parameter -log alpha
        frequency = (draws(log_alpha) != 1).double().mean().item()
        assert abs(frequency - p) < 4 * math.sqrt(p * (1 - p) / N_DRAWS)


def test_gates_of_evaluation_close_at_the_threshold():
    closed = torch.tensor([-50.0, -3.0, CLOSED - 1e-6], dtype=torch.float64)
    assert (expected_gates(closed) == 0).all()
    assert (expected_gates(-closed) == 1).all()
    opened = torch.tensor([CLOSED + 1e-3, 0.0, 2.0], dtype=torch.float64)
    gates = expected_gates(opened)
    torch.testing.assert_close(gates, torch.sigmoid(opened) * 1.2 - 0.1)
    assert (gates > 0).all()


def test_gradients_agree_with_finite_differences():
    log_alpha = torch.linspace(-2, 2, 40, dtype=torch.float64, requires_grad=True)

    def sampled(parameters):
        return sample_gates(parameters, generator=torch.Generator().manual_seed(3))

    z = sampled(log_alpha)
    assert ((z == 0) | (z == 1)).any()  # where the gradient is 0
    assert ((z > 0) & (z < 1)).any()
    assert torch.autograd.gradcheck(sampled, log_alpha)
    assert torch.autograd.gradcheck(open_probability, log_alpha)
    assert torch.autograd.gradcheck(expected_gates, log_alpha)


def test_a_generator_repeats_its_gates():
    log_alpha = torch.zeros(3, 4)
    one, again, other = (sample_gates(log_alpha, generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


@pytest.mark.parametrize(("name", "drop_rates"), [("l0", [0.2]), ("pathreg", [0.2, 0.5]), ("pathreg_edge", [0.2, 0.2])])
def test_initial_gates_exceed_one_half_at_the_rate_of_keeping(name, drop_rates):
    gates = list(SPARSITIES[name](build_field(FieldConfig(3, (0, 1), hidden=(4,)))).parameters())
    for log_alpha, drop_rate in zip(gates, drop_rates, strict=True):
        assert log_alpha.unique().numel() == 1
        frequency = (draws(log_alpha.flatten()[0].item()) > 0.5).double().mean().item()
        assert abs(frequency - (1 - drop_rate)) < 4 * math.sqrt(drop_rate * (1 - drop_rate) / N_DRAWS)
