from __future__ import annotations

import numpy as np
import pytest
import torch

from perturbflow.dynamics import FieldConfig, Problem, TargetField, Trajectory, _network_errors
from perturbflow.dynamics._elimination import CompactField
from perturbflow.dynamics._matching import MatchedWindows, piece_errors, window_errors

N_GENES = 4


@pytest.fixture(scope="module")
def problem() -> Problem:
    rng = np.random.default_rng(0)
    runs = []
    for k, n in enumerate((25, 18)):  # of different lengths, and one with a gene that is held
        time = np.linspace(0, n / 5, n)
        phase = 1.5 * time + rng.uniform(0, 6)
        driver, driven = np.sin(phase), (np.sin(phase) - 1.5 * np.cos(phase)) / (1 + 1.5**2)  # dx/dt = driver - x
        levels = np.column_stack([driven, driven, driver, driver])
        runs.append(Trajectory(f"run {k}", time, levels, np.ones(n), np.arange(N_GENES) == (0 if k else -1)))
    return Problem.of(runs, order=1)


def field_of(**options) -> TargetField:
    config = FieldConfig(N_GENES, (0, 1, 2, 3), hidden=(5,), **options)
    return TargetField(config, range(N_GENES), seed=1)


def compact(field: TargetField) -> CompactField:
    candidates = torch.tensor([[1, 2, 3], [0, 2, 3], [0, 1, 3], [2, 1, 0]])
    return CompactField(field, torch.arange(N_GENES), candidates, torch.ones(N_GENES, 3))


@pytest.mark.parametrize("options", [{}, {"production": "free"}, {"decay": False}])
@pytest.mark.parametrize("of", [lambda field: field, compact], ids=["all inputs", "candidates"])
def test_gradients_by_hand_are_those_of_autograd(problem, options, of, monkeypatch):
    monkeypatch.setattr(_network_errors, "BLOCK", 1)  # one network at a time
    field = of(field_of(**options))
    windows = MatchedWindows.of(field, problem.chunks)
    names, parameters = zip(*field.named_parameters(), strict=True)
    scale = torch.arange(1.0, N_GENES + 1)
    expected, size = piece_errors(field, windows)
    found, total = window_errors(field, windows)
    torch.testing.assert_close(found, expected.sum(dim=1))
    torch.testing.assert_close(total, size.sum(dim=1))
    wanted = torch.autograd.grad((scale * expected.sum(dim=1)).sum(), parameters, allow_unused=True)
    gradients = torch.autograd.grad((scale * found).sum(), parameters, allow_unused=True)
    for name, one, other in zip(names, gradients, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4, msg=name)
