from __future__ import annotations

import math

import numpy as np
import torch
from scipy.integrate import solve_ivp
from scipy.linalg import expm

from perturbflow.dynamics import rk4_step, solve_rk4
from perturbflow.dynamics._integrate import held

MATRIX = torch.tensor([[-0.5, 2.0, 0.0], [-2.0, -0.5, 0.3], [0.4, 0.0, -1.0]], dtype=torch.float64)
START = torch.tensor([[1.0, 0.0, 2.0], [-1.0, 0.5, 0.0]], dtype=torch.float64)


def linear(state):
    return state @ MATRIX.T


def exact(start, times):
    """Solution of the linear system from one start, shape (n, d)."""
    return torch.stack([torch.tensor(expm(float(t) * MATRIX.numpy())) @ start for t in times])


def test_rk4_is_of_order_4():
    times = torch.tensor([[0.0, 2.0]], dtype=torch.float64)
    errors = []
    for n_steps in (20, 40, 80):
        found = solve_rk4(linear, START[:1], times, max_step=2.0 / n_steps * (1 + 1e-12))
        errors.append((found[0, -1] - exact(START[0], [2.0])[0]).abs().max().item())
    orders = [math.log2(coarse / fine) for coarse, fine in zip(errors, errors[1:], strict=False)]
    np.testing.assert_allclose(orders, 4, atol=0.2)


def test_a_step_of_a_linear_system_is_the_series_to_fourth_order():
    step = torch.tensor([[0.3], [0.7]], dtype=torch.float64)
    found = rk4_step(linear, START, step)
    for k in range(2):
        h = step[k, 0] * MATRIX
        series = sum(torch.linalg.matrix_power(h, n) / math.factorial(n) for n in range(5))
        torch.testing.assert_close(found[k], series @ START[k])


def test_every_start_has_times_of_its_own_and_padding_repeats_the_state():
    times = torch.tensor([[0.0, 0.5, 2.0, 2.5], [1.0, 1.1, 1.1, 1.1]], dtype=torch.float64)
    found = solve_rk4(linear, START, times, max_step=0.02)
    torch.testing.assert_close(found[0], exact(START[0], times[0]), atol=1e-7, rtol=0)
    torch.testing.assert_close(found[1, 1], exact(START[1], [0.1])[0], atol=1e-7, rtol=0)
    assert torch.equal(found[1, 2], found[1, 1])
    assert torch.equal(found[1, 3], found[1, 1])


def test_steps_are_no_longer_than_allowed():
    seen = []

    def derivative(state):
        seen.append(state)
        return torch.ones_like(state)

    times = torch.tensor([[0.0, 1.0, 1.0], [0.0, 0.3, 0.5]])
    solve_rk4(derivative, torch.zeros(2, 1), times, max_step=0.26)
    assert len(seen) == 4 * (4 + 1)  # four steps of 0.25, then one of 0.2


def test_a_single_time_is_the_start():
    found = solve_rk4(linear, START, torch.zeros(2, 1), max_step=0.1)
    assert torch.equal(found, START[:, None])


def test_held_genes_stay_exactly():
    clamped = torch.tensor([[False, True, False], [True, False, True]])
    times = torch.tensor([[0.0, 0.7, 1.3]] * 2, dtype=torch.float64)
    found = solve_rk4(held(linear, clamped), START, times, max_step=0.05)
    for k in range(2):
        assert (found[k][:, clamped[k]] == START[k][clamped[k]]).all()
        assert (found[k][1:, ~clamped[k]] != START[k][~clamped[k]]).all()
        # The others follow the system without the rows of the held genes.
        rest = MATRIX.clone()
        rest[clamped[k]] = 0
        torch.testing.assert_close(found[k, -1], torch.tensor(expm(1.3 * rest.numpy())) @ START[k], atol=1e-6, rtol=0)


def test_one_intervention_may_serve_all_starts():
    clamped = torch.tensor([False, True, False])
    times = torch.tensor([[0.0, 1.0]] * 2, dtype=torch.float64)
    one = solve_rk4(held(linear, clamped), START, times, max_step=0.1)
    assert torch.equal(one, solve_rk4(held(linear, clamped.expand(2, 3)), START, times, max_step=0.1))


def test_solution_of_a_nonlinear_system_is_that_of_scipy():
    def derivative(state):
        return torch.sin(linear(state)) - 0.1 * state**3

    times = torch.linspace(0, 2, 5, dtype=torch.float64)
    fixed = solve_rk4(derivative, START, times.expand(2, 5), max_step=0.01)
    for start, found in zip(START, fixed, strict=True):
        expected = solve_ivp(
            lambda _, state: derivative(torch.from_numpy(state)[None])[0],
            (0, 2),
            start,
            t_eval=times,
            rtol=1e-10,
            atol=1e-10,
        ).y.T
        np.testing.assert_allclose(found, expected, atol=1e-7)


def test_gradients_of_a_solution_agree_with_finite_differences():
    times = torch.tensor([[0.0, 0.5, 1.0], [0.0, 0.2, 0.2]], dtype=torch.float64)

    def solve(matrix, start):
        return solve_rk4(lambda x: torch.tanh(x @ matrix.T), start, times, max_step=0.25)

    assert torch.autograd.gradcheck(solve, (MATRIX.clone().requires_grad_(), START.clone().requires_grad_()))
