from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from perturbflow.dynamics._penalties import group_soft_threshold, soft_threshold


@settings(max_examples=50, deadline=None)
@given(st.floats(-3, 3), st.floats(0, 2))
def test_the_soft_threshold_is_the_proximal_map_of_the_absolute_value(x, amount):
    found = soft_threshold(torch.tensor(x, dtype=torch.float64), amount).item()
    assert found == pytest.approx(math.copysign(max(abs(x) - amount, 0), x), abs=1e-12)
    grid = np.append(np.linspace(-3, 3, 6001), 0)
    objective = 0.5 * (grid - x) ** 2 + amount * abs(grid)
    assert 0.5 * (found - x) ** 2 + amount * abs(found) <= objective.min() + 1e-12
    assert grid[objective.argmin()] == pytest.approx(found, abs=1e-3)


@pytest.mark.parametrize("amount", [0.0, 0.3, 1.0, 5.0])
def test_the_group_threshold_is_the_proximal_map_of_the_norm(amount):
    x = np.random.default_rng(0).normal(size=4)
    found = group_soft_threshold(torch.tensor(x)[:, None], torch.tensor(amount), dim=0)[:, 0].numpy()
    np.testing.assert_allclose(found, max(1 - amount / np.linalg.norm(x), 0) * x)

    def objective(w):
        return 0.5 * ((w - x) ** 2).sum() + amount * np.linalg.norm(w)

    solution = minimize(
        objective, x / 2, method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-12, "maxiter": 4000}
    )
    np.testing.assert_allclose(found, solution.x, atol=1e-4)
    assert objective(found) <= solution.fun + 1e-9


def test_groups_of_zeros_stay_zero():
    found = group_soft_threshold(torch.zeros(3, 2), torch.tensor(0.1), dim=0)
    assert (found == 0).all()
