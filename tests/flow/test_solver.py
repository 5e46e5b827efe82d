from __future__ import annotations

import math

import pytest
import torch

from perturbflow.flow import TABLEAUS, integrate

METHODS = sorted(TABLEAUS)


def error(velocity, solution, method, n_steps):
    """Error at t = 1.5 of the solution through its value at t = 0.5."""
    x = integrate(velocity, solution(0.5), start=0.5, stop=1.5, n_steps=n_steps, method=method)
    return float((x - solution(1.5)).abs().max())


def exponential(t):
    return torch.tensor([1.0, -2.0], dtype=torch.float64) * math.exp(-t)


def riccati(t):
    """Of dx/dt = x^2 cos t."""
    return torch.tensor([1 / (3 - math.sin(t)), 1 / (-2 - math.sin(t))], dtype=torch.float64)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("velocity", "solution"),
    [(lambda t, x: -x, exponential), (lambda t, x: x**2 * math.cos(t), riccati)],
    ids=["linear", "nonlinear_time_dependent"],
)
def test_error_falls_with_the_order(method, velocity, solution):
    coarse, fine = (error(velocity, solution, method, n) for n in (20, 40))
    # The slope of the error between two step sizes approaches the order only as the step goes to 0.
    assert math.log2(coarse / fine) == pytest.approx(TABLEAUS[method].order, abs=0.2)


@pytest.mark.parametrize("method", METHODS)
def test_polynomials_in_time_up_to_the_order_are_exact(method):
    degree = TABLEAUS[method].order - 1
    x = integrate(
        lambda t, x: (degree + 1) * torch.full_like(x, t) ** degree,
        torch.zeros(3, dtype=torch.float64),
        start=0.0,
        stop=2.0,
        n_steps=3,
        method=method,
    )
    torch.testing.assert_close(x, torch.full_like(x, 2.0 ** (degree + 1)), rtol=1e-12, atol=0)


@pytest.mark.parametrize("method", METHODS)
def test_tableaus_are_consistent(method):
    tableau = TABLEAUS[method]
    assert sum(tableau.b) == pytest.approx(1)
    assert [sum(row) for row in tableau.a] == pytest.approx(tableau.c)
    assert [len(row) for row in tableau.a] == list(range(len(tableau.b)))


def test_backwards_undoes_forwards():
    x = torch.tensor([0.3, 1.2], dtype=torch.float64)
    there = integrate(lambda t, x: torch.sin(x + t), x, start=0.0, stop=1.0, n_steps=50, method="rk4")
    back = integrate(lambda t, x: torch.sin(x + t), there, start=1.0, stop=0.0, n_steps=50, method="rk4")
    torch.testing.assert_close(back, x, rtol=0, atol=1e-7)


def test_the_start_is_left_as_it_is():
    x = torch.ones(2)
    integrate(lambda t, x: x, x, start=0.0, stop=1.0, n_steps=2)
    assert (x == 1).all()


def test_unknown_method():
    with pytest.raises(ValueError, match=r"one of \['euler', 'heun', 'midpoint', 'rk4'\], found 'dopri5'"):
        integrate(lambda t, x: x, torch.ones(1), start=0.0, stop=1.0, n_steps=1, method="dopri5")


@pytest.mark.parametrize("n_steps", [0, -1])
def test_no_steps(n_steps):
    with pytest.raises(ValueError, match=f"at least one step, found `n_steps` {n_steps}"):
        integrate(lambda t, x: x, torch.ones(1), start=0.0, stop=1.0, n_steps=n_steps)
