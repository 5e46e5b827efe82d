from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from perturbflow.flow import METHODS, TABLEAUS, integrate

RUNGE_KUTTA = sorted(TABLEAUS)
STAGES = {"euler": 1, "midpoint": 2, "heun": 2, "rk4": 4, "dopri5": 6, "multistep": 1}
MEAN, VARIANCE = 1.3, 0.4


class CountedField:
    """A velocity field that counts its evaluations."""

    def __init__(self, velocity):
        self.velocity, self.n_evaluations = velocity, 0

    def __call__(self, t, x):
        self.n_evaluations += 1
        return self.velocity(t, x)


def exponential(t):
    """Of dx/dt = t x."""
    return torch.tensor([1.0, -2.0], dtype=torch.float64) * math.exp(t**2 / 2)


def logistic(t):
    """Of dx/dt = 4 t x (1 - x)."""
    return 1 / (1 + torch.tensor([0.5, 4.0, 10.0], dtype=torch.float64) * math.exp(-2 * t**2))


def gaussian_flow(t, x):
    """Velocity of the straight paths from N(0, 1) to N(MEAN, VARIANCE), drawn independently."""
    total = (1 - t) ** 2 + t**2 * VARIANCE
    return MEAN + (t * VARIANCE - (1 - t)) / total * (x - t * MEAN)


def gaussian_map(t):
    """The quantile function of N(0, 1) carried along that flow to time t."""
    x0 = torch.linspace(-2, 2, 9, dtype=torch.float64)
    return t * MEAN + math.sqrt((1 - t) ** 2 + t**2 * VARIANCE) * x0


FLOWS = {
    "linear": (lambda t, x: t * x, exponential, 2.0),
    "nonlinear": (lambda t, x: 4 * t * x * (1 - x), logistic, 1.0),
    "gaussian": (gaussian_flow, gaussian_map, 0.8),
}


def error(flow, **options):
    """Largest error at the stop of the solution through its value at 0."""
    velocity, solution, stop = FLOWS[flow]
    x = integrate(velocity, solution(0.0), start=0.0, stop=stop, **options)
    return float((x - solution(stop)).abs().max())


@pytest.mark.parametrize("method", RUNGE_KUTTA)
@pytest.mark.parametrize(("flow", "spacing"), [*((flow, "uniform") for flow in FLOWS), ("linear", "sine")])
def test_error_falls_with_the_order(method, flow, spacing):
    order = TABLEAUS[method].order
    if (flow, method) == ("gaussian", "midpoint"):
        # With f = g(t) y and g = V' / (2 V), V quadratic, the leading error g'' / 24 + g g' / 4 + g^3 / 6 is 0.
        order = 3
    # The slope of the error between two step sizes approaches the order only as the step goes to 0.
    coarse, fine = (error(flow, n_steps=n, method=method, spacing=spacing) for n in (40, 80))
    assert math.log2(coarse / fine) == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize(("spacing", "middle"), [("uniform", 1.5), ("sine", 1 + math.sin(math.pi / 4))])
def test_times_are_equally_spaced_or_those_of_a_sine(spacing, middle):
    times = []

    def field(t, x):
        times.append(t)
        return x

    integrate(field, torch.ones(1), start=1.0, stop=2.0, n_steps=2, method="heun", spacing=spacing)
    # Heun asks at both ends of a step.
    assert times == pytest.approx([1, middle, middle, 2])


@pytest.mark.parametrize("method", RUNGE_KUTTA)
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


@pytest.mark.parametrize("method", RUNGE_KUTTA)
def test_tableaus_are_consistent(method):
    tableau = TABLEAUS[method]
    assert sum(tableau.b) == pytest.approx(1)
    assert [sum(row) for row in tableau.a] == pytest.approx(tableau.c)
    assert [len(row) for row in tableau.a] == list(range(len(tableau.b)))


def test_estimate_of_the_error_is_that_of_a_fourth_order_method():
    tableau = TABLEAUS["dopri5"]
    nodes = np.array([*tableau.c, 1.0])
    fifth, weights = np.array([*tableau.b, 0.0]), np.array(tableau.error)
    # The embedded method integrates powers of t up to the third exactly, the estimate is therefore 0 for them.
    for power in range(4):
        assert weights @ nodes**power == pytest.approx(0, abs=1e-14)
        assert (fifth - weights) @ nodes**power == pytest.approx(1 / (power + 1))
    assert abs(weights @ nodes**4) > 1e-4


@pytest.mark.parametrize("method", METHODS)
def test_a_step_costs_its_stages(method):
    field = CountedField(gaussian_flow)
    integrate(field, gaussian_map(0), start=0.0, stop=1.0, n_steps=5, method=method)
    assert field.n_evaluations == 5 * STAGES[method]


def test_counted_field_is_the_field():
    field = CountedField(lambda t, x: t * x)
    assert field.n_evaluations == 0
    assert field(2.0, torch.ones(3)).tolist() == [2, 2, 2]
    assert field.n_evaluations == 1


@pytest.mark.parametrize("flow", FLOWS)
def test_adaptive_error_follows_the_tolerance(flow):
    tolerances = [1e-3, 1e-7, 1e-9, 1e-11]
    errors = [error(flow, n_steps=None, method="dopri5", rtol=tol, atol=tol) for tol in tolerances]
    assert errors == sorted(errors, reverse=True)
    for tolerance, found in zip(tolerances, errors, strict=True):
        assert found < 10 * tolerance


@pytest.mark.parametrize("tolerance", [1e-1, 1e-2, 1e-3])
def test_loose_tolerances_do_not_jump_over_the_path(tolerance):
    x = integrate(
        gaussian_flow,
        gaussian_map(0),
        start=0.0,
        stop=1.0,
        n_steps=None,
        method="dopri5",
        rtol=tolerance,
        atol=tolerance,
    )
    assert float((x - gaussian_map(1)).abs().max()) < 2e-3


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("tolerance", [1e-2, 1e-8])
def test_adaptive_steps_are_those_of_scipy(flow, tolerance):
    velocity, solution, stop = FLOWS[flow]
    field = CountedField(velocity)
    options = {"rtol": tolerance, "atol": tolerance}
    x = integrate(field, solution(0.0), start=0.0, stop=stop, n_steps=None, method="dopri5", **options)
    reference = solve_ivp(
        lambda t, x: velocity(t, torch.as_tensor(x)).numpy(),
        (0, stop),
        solution(0.0),
        method="RK45",
        max_step=stop / 5,
        **options,
    )
    np.testing.assert_allclose(x, reference.y[:, -1], rtol=1e-12)
    # SciPy splits off a last step of one rounding error where five longest steps do not add up exactly.
    assert reference.nfev - 6 <= field.n_evaluations <= reference.nfev


def n_evaluations(velocity, *, stop=1.0, **options):
    field = CountedField(velocity)
    integrate(field, torch.ones(2, dtype=torch.float64), start=0.0, stop=stop, n_steps=None, method="dopri5", **options)
    return field.n_evaluations


def test_smooth_fields_take_fewer_evaluations():
    costs = [n_evaluations(lambda t, x, w=w: torch.cos(w * t * torch.ones_like(x))) for w in (1, 50, 250)]
    assert costs == sorted(set(costs))
    assert n_evaluations(gaussian_flow, rtol=1e-2, atol=1e-2) < n_evaluations(gaussian_flow, rtol=1e-6, atol=1e-6)


def test_adaptive_steps_are_short_where_the_field_is_steep():
    times = []

    def ramp(t, x):
        times.append(t)
        return torch.full_like(x, 100 / (1 + (100 * (t - 0.7)) ** 2))

    options: Any = {"n_steps": None, "method": "dopri5", "rtol": 1e-5, "atol": 1e-5}
    x = integrate(ramp, torch.zeros(1, dtype=torch.float64), start=0.0, stop=1.0, **options)
    assert float(x) == pytest.approx(math.atan(30) + math.atan(70), abs=1e-4)
    near = np.mean(np.abs(np.array(times) - 0.7) < 0.1)
    assert near > 0.5


@pytest.mark.parametrize("n_steps", [50, None])
def test_backwards_undoes_forwards(n_steps):
    def field(t, x):
        return torch.sin(x + t)

    options = {"n_steps": n_steps, "method": "dopri5", "rtol": 1e-8, "atol": 1e-8}
    x = torch.tensor([0.3, 1.2], dtype=torch.float64)
    there = integrate(field, x, start=0.0, stop=1.0, **options)
    assert (there - x).abs().min() > 0.1
    back = integrate(field, there, start=1.0, stop=0.0, **options)
    torch.testing.assert_close(back, x, rtol=0, atol=1e-7)


@pytest.mark.parametrize("options", [{"n_steps": 2}, {"n_steps": None, "method": "dopri5"}])
def test_the_start_is_left_as_it_is(options):
    x = torch.ones(2)
    integrate(lambda t, x: x, x, start=0.0, stop=1.0, **options)
    assert (x == 1).all()


def test_no_way_to_go():
    x = integrate(gaussian_flow, torch.ones(2), start=0.5, stop=0.5, n_steps=None, method="dopri5")
    assert (x == 1).all()


@pytest.mark.parametrize("shape", [(), (4, 3)])
def test_adaptive_keeps_shape_and_precision(shape):
    x = integrate(gaussian_flow, torch.ones(shape), start=0.0, stop=1.0, n_steps=None, method="dopri5")
    assert (x.shape, x.dtype) == (shape, torch.float32)


def test_too_many_evaluations():
    message = r"reach t = 1 within 30 evaluations, found t = 0\.\d+ after \d+\. Raise `rtol` and `atol`"
    with pytest.raises(RuntimeError, match=message):
        n_evaluations(lambda t, x: torch.cos(50 * t * x), max_evaluations=30)


def test_field_that_ends():
    with pytest.raises(RuntimeError, match=r"found no step short enough at t = 0.5\d*. Check that the field is finite"):
        n_evaluations(lambda t, x: x * (math.nan if t > 0.5 else 1.0))


def test_unknown_method():
    names = r"\['dopri5', 'euler', 'heun', 'midpoint', 'multistep', 'rk4'\]"
    with pytest.raises(ValueError, match=f"one of {names}, found 'rk45'"):
        integrate(lambda t, x: x, torch.ones(1), start=0.0, stop=1.0, n_steps=1, method="rk45")


def test_unknown_spacing():
    with pytest.raises(ValueError, match="Expected `spacing` to be 'uniform' or 'sine', found 'log'"):
        integrate(lambda t, x: x, torch.ones(1), start=0.0, stop=1.0, n_steps=1, spacing="log")  # type: ignore[arg-type]


@pytest.mark.parametrize("n_steps", [0, -1])
def test_no_steps(n_steps):
    with pytest.raises(ValueError, match=f"at least one step, found `n_steps` {n_steps}"):
        integrate(lambda t, x: x, torch.ones(1), start=0.0, stop=1.0, n_steps=n_steps)


@pytest.mark.parametrize("method", ["euler", "midpoint", "heun", "rk4", "multistep"])
def test_methods_without_an_error_need_a_number_of_steps(method):
    with pytest.raises(ValueError, match=f"Expected `n_steps` for the method '{method}'.* use the method \"dopri5\""):
        integrate(lambda t, x: x, torch.ones(1), start=0.0, stop=1.0, n_steps=None, method=method)


@pytest.mark.parametrize("name", ["rtol", "atol"])
@pytest.mark.parametrize("value", [0.0, -1e-3, math.nan, math.inf])
def test_tolerance_that_nothing_meets(name, value):
    with pytest.raises(ValueError, match=f"Expected `{name}` to be positive and finite, found {value}"):
        n_evaluations(gaussian_flow, **{name: value})
