from __future__ import annotations

import pytest
import torch

from perturbflow.dynamics import SPARSITIES, FieldConfig, Sparsity, build_field
from perturbflow.dynamics._optimiser import GATE_LEARNING_RATE, ProximalAdam

N_GENES, N_STATES = 4, 64


def regression(seed=0):
    """Orthogonal states, with what a sparse linear function gives there, plus noise; and its least-squares solution."""
    generator = torch.Generator().manual_seed(seed)
    centred = torch.randn(N_STATES, N_GENES + 1, generator=generator, dtype=torch.float64)
    centred[:, 0] = 1
    states = torch.linalg.qr(centred).Q[:, 1:] * N_STATES**0.5  # states' states / n = 1, and no mean
    truth = torch.tensor([[1.0, 0.0, 0.0, -0.5], [0.0, 0.2, 0.0, 0.0], [0.0, 0.0, 2.0, 0.3], [0.1, -1.0, 0.0, 0.0]])
    noise = 0.3 * torch.randn(N_STATES, N_GENES, generator=generator, dtype=torch.float64)
    rates = states @ truth.T.double() + noise
    return states, rates, rates.T @ states / N_STATES


def soft_threshold(x, amount):
    return x.sign() * (x.abs() - amount).clamp(min=0)


def linear_field():
    config = FieldConfig(
        N_GENES, tuple(range(N_GENES)), structure="linear", decay=False, production="free", self_regulation=True
    )
    return build_field(config).double()


def fit(field, sparsity, states, rates, *, strength, n_steps=600, learning_rate=0.04):
    optimiser = ProximalAdam(field, sparsity, learning_rate=learning_rate, n_steps=n_steps)
    for _ in range(n_steps):
        weights = field.weights()
        loss = ((field.highest_rates(states, sparsity.draw(weights)) - rates) ** 2).mean(dim=0).sum() / 2
        optimiser.step(loss + strength * sparsity.penalty(weights), strength=strength)
    return field.matrices[0].detach()[:, 0]


@pytest.mark.parametrize("name", ["l1", "group_lasso"])
def test_it_ends_at_the_lasso_solution(name):
    states, rates, least_squares = regression()
    factors = torch.ones(N_GENES, N_GENES)
    factors[:, 3] = 0.2  # a prior
    field = linear_field()
    found = fit(field, SPARSITIES[name](field, factors=factors), states, rates, strength=1.0)
    # Orthogonal design: the lasso is the soft threshold of the least-squares solution.
    expected = soft_threshold(least_squares, factors.double() / N_GENES)
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)
    assert torch.equal(found == 0, expected == 0)  # exactly
    assert 4 <= (expected == 0).sum() <= 12


def test_without_strength_it_ends_at_least_squares():
    states, rates, least_squares = regression()
    field = linear_field()
    found = fit(field, SPARSITIES["l1"](field), states, rates, strength=0.0)
    torch.testing.assert_close(found, least_squares, atol=1e-3, rtol=0)


def test_a_smooth_penalty_is_left_to_the_loss():
    states, rates, least_squares = regression()
    field = linear_field()
    found = fit(field, SPARSITIES["cnode"](field), states, rates, strength=1.0)
    # The same optimum, but zeros are only approached.
    torch.testing.assert_close(found, soft_threshold(least_squares, 1 / N_GENES), atol=0.01, rtol=0)


class Watching(Sparsity):
    """Remembers what its proximal step is called with."""

    def __init__(self, field):
        super().__init__(field)
        self.seen = []

    def proximal_(self, field, strength, steps):
        self.seen.append((strength, steps))


def test_steps_are_those_of_adam_and_so_is_the_size_of_the_proximal_step():
    states, rates, _ = regression()
    ours, reference = linear_field(), linear_field()
    sparsity = Watching(ours)
    optimiser = ProximalAdam(ours, sparsity, learning_rate=0.1, n_steps=5)
    adam = torch.optim.Adam(reference.parameters(), lr=0.1)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(adam, T_max=5, eta_min=0.005)
    for k in range(1, 6):
        before = ours.matrices[0].detach().clone()
        optimiser.step(((ours.highest_rates(states) - rates) ** 2).mean(), strength=0.1 * k)
        adam.zero_grad()
        ((reference.highest_rates(states) - rates) ** 2).mean().backward()
        adam.step()
        torch.testing.assert_close(ours.matrices[0], reference.matrices[0])
        cosine.step()
        strength, steps = sparsity.seen[-1]
        assert strength == 0.1 * k
        assert set(steps) == {"matrices.0", "biases.0"}  # the others have no gradient here
        # By how much the parameter moved per unit of Adam's mean gradient.
        gradient = adam.state[reference.matrices[0]]["exp_avg"] / (1 - 0.9**k)
        torch.testing.assert_close(steps["matrices.0"] * gradient, before - ours.matrices[0], rtol=1e-5, atol=1e-12)
    assert optimiser.adam.param_groups[0]["lr"] == pytest.approx(0.005)


def test_without_strength_there_is_no_proximal_step():
    states, rates, _ = regression()
    field = linear_field()
    sparsity = Watching(field)
    fit(field, sparsity, states, rates, strength=0.0, n_steps=3)
    assert sparsity.seen == []


def test_gates_move_too():
    field = linear_field()
    sparsity = SPARSITIES["l0"](field).double()
    start = [gate.detach().clone() for gate in sparsity.parameters()]
    optimiser = ProximalAdam(field, sparsity, learning_rate=0.01, n_steps=10)
    optimiser.step(sparsity.penalty(field.weights()), strength=1.0)
    # The first step of Adam is the learning rate, whatever the gradient.
    moved = next(sparsity.parameters()).detach() - start[0]
    torch.testing.assert_close(moved, torch.full_like(moved, -0.01 * GATE_LEARNING_RATE))
