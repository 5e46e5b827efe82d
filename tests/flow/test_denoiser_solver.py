from __future__ import annotations

import math

import pytest
import torch

from perturbflow.flow import follow_expectation, integrate

# Cells of one gene are N(MEAN, VARIANCE), noise is N(0, 1), both drawn independently.
MEAN, VARIANCE = 1.3, 0.4


def gaussian_flow(t, x):
    total = (1 - t) ** 2 + t**2 * VARIANCE
    return MEAN + (t * VARIANCE - (1 - t)) / total * (x - t * MEAN)


def gaussian_map(t):
    """The quantile function of N(0, 1) carried along the flow to time t."""
    x0 = torch.linspace(-2, 2, 9, dtype=torch.float64)
    return t * MEAN + math.sqrt((1 - t) ** 2 + t**2 * VARIANCE) * x0


def error(n_steps, *, start=0.0, stop=1.0, method="multistep", spacing="uniform"):
    x = integrate(
        gaussian_flow, gaussian_map(start), start=start, stop=stop, n_steps=n_steps, method=method, spacing=spacing
    )
    return float((x - gaussian_map(stop)).abs().max())


@pytest.mark.parametrize("spacing", ["uniform", "sine"])
@pytest.mark.parametrize(("start", "stop"), [(0.0, 1.0), (0.0, 0.99), (0.3, 0.9)])
def test_error_falls_with_order_two(start, stop, spacing):
    coarse, fine = (error(n, start=start, stop=stop, spacing=spacing) for n in (160, 320))
    assert math.log2(coarse / fine) == pytest.approx(2, abs=0.15)


def test_it_is_more_accurate_than_one_evaluation_a_step_was_so_far():
    assert error(20, spacing="sine") < 0.1 * error(20, method="euler", spacing="sine")


@pytest.mark.parametrize("n_steps", [1, 2, 5])
def test_one_known_cell_is_reached_exactly(n_steps):
    """Where all paths end in one cell the expected end does not change, and any steps are exact."""
    cell = torch.tensor([0.0, 2.5, 1.0], dtype=torch.float64)
    x0 = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for stop in (0.7, 1.0):
        x = integrate(lambda t, x: (cell - x) / (1 - t), x0, start=0.0, stop=stop, n_steps=n_steps, method="multistep")
        torch.testing.assert_close(x, (1 - stop) * x0 + stop * cell, rtol=0, atol=1e-12)


@pytest.mark.parametrize("stop", [0.8, 1.0])
def test_expected_end_that_is_linear_in_time_is_followed_exactly_after_the_first_step(stop):
    slope = 3.0
    times = [0.0, 1e-9, 0.3, 0.35, stop]
    x = follow_expectation(lambda t, x: (slope * t - x) / (1 - t), torch.zeros(2, dtype=torch.float64), times)
    # dx/dt = (c t - x) / (1 - t) from x(0) = 0 has the solution c (1 - u + u log u) with u = 1 - t.
    left = 1 - stop
    exact = slope * (1 - left + (left * math.log(left) if left else 0.0))
    torch.testing.assert_close(x, torch.full_like(x, exact), rtol=0, atol=1e-8)


def test_one_evaluation_a_step_and_none_at_the_end():
    times = []

    def field(t, x):
        times.append(t)
        return gaussian_flow(t, x)

    x = integrate(field, torch.ones(2), start=0.5, stop=1.0, n_steps=2, method="multistep")
    assert times == [0.5, 0.75]
    assert torch.isfinite(x).all()


def test_the_start_is_left_as_it_is():
    x = torch.ones(2)
    integrate(gaussian_flow, x, start=0.0, stop=1.0, n_steps=3, method="multistep")
    assert (x == 1).all()
    assert integrate(gaussian_flow, x, start=0.4, stop=0.4, n_steps=3, method="multistep") is x


@pytest.mark.parametrize(("start", "stop"), [(1.0, 0.0), (-0.1, 1.0), (0.0, 1.5)])
def test_times_outside_the_path(start, stop):
    with pytest.raises(ValueError, match="Expected increasing times between 0 and 1 for the method 'multistep'"):
        integrate(gaussian_flow, torch.ones(1), start=start, stop=stop, n_steps=3, method="multistep")
