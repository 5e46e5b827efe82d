from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from perturbflow.dynamics import SPARSITIES, FieldConfig, build_field
from perturbflow.dynamics._penalties import HIERARCHY, hierarchical_proximal, soft_threshold


def problem(seed, width):
    rng = np.random.default_rng(seed)
    return rng.normal(), rng.normal(size=width), rng.uniform(0, 1.5), rng.choice([0.3, 1.0, 10.0])


def solve(theta, weights, amount, hierarchy):
    found = hierarchical_proximal(
        torch.tensor(theta, dtype=torch.float64),
        torch.as_tensor(weights, dtype=torch.float64),
        torch.tensor(amount, dtype=torch.float64),
        hierarchy,
    )
    return found[0].item(), found[1].numpy()


def objective(b, w, theta, weights, amount):
    return 0.5 * (b - theta) ** 2 + 0.5 * ((w - weights) ** 2).sum() + amount * abs(b)


@pytest.mark.parametrize("seed", range(20))
def test_it_minimises_under_the_hierarchy(seed):
    theta, weights, amount, hierarchy = problem(seed, 1 + seed % 4)
    found = solve(theta, weights, amount, hierarchy)
    best = []
    for sign in (1, -1):  # with the sign of b fixed the problem is smooth and convex

        def cost(x, sign=sign):
            return objective(sign * x[0], x[1:], theta, weights, amount)

        limits = [{"type": "ineq", "fun": lambda x, s=s: hierarchy * x[0] - s * x[1:]} for s in (1, -1)]
        start = np.concatenate([[abs(theta) + 1], np.zeros(len(weights))])
        bounds = [(0, None)] + [(None, None)] * len(weights)
        solution = minimize(
            cost, start, method="SLSQP", bounds=bounds, constraints=limits, options={"ftol": 1e-14, "maxiter": 500}
        )
        best.append((solution.fun, sign * solution.x[0], solution.x[1:]))
    lowest, b, w = min(best, key=lambda x: x[0])
    assert objective(found[0], found[1], theta, weights, amount) <= lowest + 1e-8
    np.testing.assert_allclose(found[0], b, atol=1e-4)
    np.testing.assert_allclose(found[1], w, atol=1e-4)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 8))
def test_the_hierarchy_holds_and_signs_stay(seed, width):
    theta, weights, amount, hierarchy = problem(seed, width)
    b, w = solve(theta, weights, amount, hierarchy)
    assert abs(w).max() <= hierarchy * abs(b) * (1 + 1e-12)
    assert (w * weights >= 0).all()
    assert b * theta >= 0
    assert (abs(w) <= abs(weights)).all()
    # Nothing nearby that keeps the hierarchy is better.
    rng = np.random.default_rng(seed)
    for size in (1e-3, 1e-1):
        other = b + size * rng.normal(size=50)
        moved = w + size * rng.normal(size=(50, width))
        moved = np.clip(moved, -hierarchy * abs(other)[:, None], hierarchy * abs(other)[:, None])
        costs = [objective(o, m, theta, weights, amount) for o, m in zip(other, moved, strict=True)]
        assert objective(b, w, theta, weights, amount) <= min(costs) + 1e-12


def test_without_hidden_weights_it_is_the_lasso():
    theta, amount = torch.linspace(-2, 2, 9), torch.full((9,), 0.7)
    b, w = hierarchical_proximal(theta, torch.zeros(9, 3), amount, 10.0)
    torch.testing.assert_close(b, soft_threshold(theta, amount))
    assert (w == 0).all()


def test_a_strong_penalty_removes_all():
    b, w = hierarchical_proximal(torch.tensor([1.0]), torch.tensor([[1.0, -1.0]]), torch.tensor([25.0]), 10.0)
    # |theta| + M (|w_1| + |w_2|) = 21 at most holds against the amount.
    assert b.item() == 0
    assert (w == 0).all()


def test_what_keeps_the_hierarchy_stays_without_penalty():
    theta, weights = torch.tensor([0.5, -2.0]), torch.tensor([[4.9, -1.0], [3.0, 0.0]])
    b, w = hierarchical_proximal(theta, weights, torch.zeros(2), 10.0)
    torch.testing.assert_close(b, theta)
    torch.testing.assert_close(w, weights)


def test_rounding_where_two_cases_meet_does_no_harm():
    # In single precision neither case may seem to apply: the amount is such that the bound is a weight itself.
    draw = torch.Generator().manual_seed(0)
    theta, weights = torch.randn(20_000, generator=draw), torch.randn(20_000, 5, generator=draw)
    magnitude, _ = weights.abs().sort(dim=-1, descending=True)
    for count in range(1, 5):
        target = magnitude[:, count]
        amount = theta.abs() + 10 * magnitude[:, :count].sum(dim=-1) - target * (1 + count * 100) / 10
        some = (amount > 0) & (target > 0.05)
        assert some.sum() > 5000
        b, w = hierarchical_proximal(theta[some], weights[some], amount[some], 10.0)
        torch.testing.assert_close(10 * b.abs(), target[some], rtol=0.01, atol=0)
        assert (w.abs() <= 10 * b.abs()[:, None] * (1 + 1e-5)).all()


def test_the_step_of_a_field_is_that_of_every_input_of_every_target():
    field = build_field(FieldConfig(3, (0, 1), hidden=(4,), skip=True, self_regulation=True))
    draw = torch.Generator().manual_seed(1)
    factors, steps = torch.rand(3, 2, generator=draw) + 0.5, torch.rand(3, 1, 2, generator=draw)
    before, linear = field.matrices[0].detach().clone(), field.linear.detach().clone()
    later = field.matrices[1].detach().clone()
    SPARSITIES["lassonet"](field, factors=factors).proximal_(field, 1.5, {"linear": steps})
    for i in range(3):
        for j in range(2):
            amount = (steps[i, 0, j] * factors[i, j] * 1.5 / 3).item()
            b, w = solve(linear[i, 0, j].item(), before[i, :, j], amount, HIERARCHY)
            assert field.linear[i, 0, j].item() == pytest.approx(b, abs=1e-6)
            np.testing.assert_allclose(field.matrices[0][i, :, j].detach(), w, atol=1e-6)
    assert torch.equal(field.matrices[1], later)


def test_an_input_without_a_linear_weight_has_no_effect():
    field = build_field(FieldConfig(3, (0, 1, 2), hidden=(4,), skip=True, decay=False))
    sparsity = SPARSITIES["lassonet"](field)
    steps = torch.full_like(field.linear, 0.1)
    sparsity.proximal_(field, 450.0, {"linear": steps})
    gone = field.linear[:, 0] == 0
    assert gone.any()
    assert not gone.all()
    slope = torch.autograd.functional.jacobian(lambda s: field.highest_rates(s[None])[0], torch.randn(3))
    assert (slope[gone] == 0).all()
