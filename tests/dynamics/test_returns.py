from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from perturbflow.dynamics import DynamicsSettings, DynamicsTrainer, FieldConfig, Problem, Trajectory
from perturbflow.dynamics._problem import RETURN_RATE, with_returns

LINEAR: dict[str, Any] = {"structure": "linear", "decay": False, "production": "free", "self_regulation": True}


def run(*, clamped=(False, False, False)) -> Trajectory:
    time = np.linspace(0, 12, 61)
    levels = np.column_stack([np.cos(time), np.sin(time), np.cos(time)])
    return Trajectory("run", time, levels, np.ones(len(time)), np.array(clamped))


def config(order=1) -> FieldConfig:
    return FieldConfig(3, (0, 1, 2), order=order, **LINEAR)


def test_nothing_is_added_without_displacement():
    problem = Problem.of([run()], order=1)
    assert with_returns(problem, DynamicsSettings(), config()) is problem


@pytest.mark.parametrize("order", [1, 2])
def test_copies_lead_back(order):
    problem = Problem.of([run(clamped=(False, True, False))], order=order)
    some = with_returns(problem, DynamicsSettings(displacement=0.5), config(order)).chunks
    own = problem.chunks
    n = len(own)
    assert len(some) == 4 * n
    torch.testing.assert_close(some.state[:n], own.state)
    torch.testing.assert_close(some.goal[:n], own.goal)
    noise = some.state[n : 2 * n] - own.state
    assert 0.3 < float(noise[..., 0].std()) < 0.7
    assert float(noise[..., 1].abs().max()) == 0  # held
    pull = -RETURN_RATE * noise[..., -3:] - (RETURN_RATE**2 / 2 * noise[..., :3] if order == 2 else 0)
    expected = (pull[:, 1:] + pull[:, :-1]) / 2 * own.step[..., None]
    change = (some.goal[n : 2 * n] - own.goal)[..., -3:].diff(dim=1)
    torch.testing.assert_close(change, expected, atol=1e-5, rtol=1e-4)
    again = with_returns(problem, DynamicsSettings(displacement=0.5), config(order)).chunks
    torch.testing.assert_close(again.state, some.state)


def test_a_direction_without_data_decays():
    settings = DynamicsSettings(
        sparsity="none",
        strength=0.0,
        eliminate=False,
        matching_steps=300,
        shooting_steps=0,
        solving_steps=1,
        displacement=0.5,
        learning_rate=0.03,
    )
    fitted = DynamicsTrainer([run()], config(), settings).fit()
    found = fitted.jacobian().mean.numpy()
    # Genes 0 and 2 are the same: what they differ by was never seen, and fades at the rate of the copies.
    difference = np.array([1.0, 0.0, -1.0]) / np.sqrt(2)
    assert float(difference @ found @ difference) == pytest.approx(-RETURN_RATE, abs=0.5)
    # The circle is still gone round, dx/dt = -y, dy/dt = x, if slower for what was never seen beside it.
    assert 0.5 < np.imag(np.linalg.eigvals(found)).max() < 1.1
