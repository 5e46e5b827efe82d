from __future__ import annotations

import numpy as np
import torch

from perturbflow.dynamics import Guard, solve_rk4

STATES = np.array([[-1.0, 0.0], [1.0, 4.0]])


def test_within_the_range_nothing_changes():
    guard = Guard.of(STATES)
    np.testing.assert_allclose(guard.low, [-1.2, -0.4])
    np.testing.assert_allclose(guard.high, [1.2, 4.4])
    inside = torch.tensor([[0.3, 2.0], [1.2, -0.4]], dtype=torch.float64)
    field = lambda x: torch.sin(3 * x)  # noqa: E731
    torch.testing.assert_close(guard.applied(field)(inside), field(inside))
    both = torch.cat([inside, inside], dim=1)
    second = Guard(np.tile(guard.low, 2), np.tile(guard.high, 2)).applied(
        lambda s: torch.cat([s[:, 2:], -s[:, :2]], 1), order=2
    )
    torch.testing.assert_close(second(both), torch.cat([inside, -inside], dim=1))


def test_what_grows_without_bounds_stays_near_the_range():
    guard = Guard.of(np.array([[-1.0], [1.0]]))
    times = torch.linspace(0, 40, 161, dtype=torch.float64)[None]
    start = torch.tensor([[0.5]], dtype=torch.float64)
    ends = solve_rk4(guard.applied(lambda x: x**3 + x), start, times, max_step=0.25)
    # At rest where (x - 1.2) times 3 is the field at 1.2.
    np.testing.assert_allclose(float(ends[0, -1, 0]), 1.2 + (1.2**3 + 1.2) / 3, rtol=1e-6)
    assert float(ends.max()) < 2.3


def test_an_oscillation_that_grows_becomes_a_cycle_of_bounded_size():
    circle = np.array([[-1.0, -1.0], [1.0, 1.0]])
    guard = Guard.of(circle)
    growing = lambda s: torch.cat([s[:, 1:], -s[:, :1] + 0.3 * s[:, 1:]], dim=1)  # noqa: E731
    times = torch.linspace(0, 60, 241, dtype=torch.float64)[None]
    start = torch.tensor([[0.5, 0.0]], dtype=torch.float64)
    levels = solve_rk4(guard.applied(growing, order=2), start, times, max_step=0.25)[0, :, 0]
    assert 1.0 < float(levels[-60:].max()) < 1.5
    free = solve_rk4(growing, start, times, max_step=0.25)[0, :, 0]
    assert float(free.abs().max()) > 100
