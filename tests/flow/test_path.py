from __future__ import annotations

import torch

from perturbflow.flow import point_on_path

X0, X1 = torch.randn((2, 5, 3), generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_ends():
    assert (point_on_path(X0, X1, torch.zeros(5, 1)) == X0).all()
    assert (point_on_path(X0, X1, torch.ones(5, 1)) == X1).all()


def test_every_cell_has_its_own_time():
    t = torch.linspace(0, 1, 5, dtype=torch.float64)[:, None]
    points = point_on_path(X0, X1, t)
    for i in range(5):
        torch.testing.assert_close(points[i], point_on_path(X0[i : i + 1], X1[i : i + 1], t[i : i + 1])[0])


def test_time_derivative_is_the_velocity():
    t = torch.full((5, 1), 0.4, dtype=torch.float64)
    derivative = (point_on_path(X0, X1, t + 1e-3) - point_on_path(X0, X1, t - 1e-3)) / 2e-3
    torch.testing.assert_close(derivative, X1 - X0, rtol=0, atol=1e-9)
