from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from perturbflow.dynamics import Elimination, FieldConfig, Problem, Sparsity, TargetField, Trajectory, _elimination
from perturbflow.dynamics._matching import match
from perturbflow.dynamics._problem import start_from_data

LINEAR = np.array([[-1.0, 2.0, 0.0, 0.0], [-2.0, -1.0, 0.0, 0.0], [0.0, 1.5, -1.0, 0.0], [0.0, 0.0, 2.0, -1.0]])
INF = math.inf


def simulated(rate, n, *, low=-1.0, high=1.0, n_genes=4) -> Problem:
    rng = np.random.default_rng(0)
    time = np.linspace(0, 3, 25)
    runs = []
    for k in range(n):
        found = solve_ivp(
            lambda _, x: rate(x), (0, 3), rng.uniform(low, high, n_genes), t_eval=time, rtol=1e-8, atol=1e-8
        )
        runs.append(Trajectory(f"run {k}", time, found.y.T, np.ones(25), np.zeros(n_genes, bool)))
    return Problem.of(runs, order=1)


@pytest.fixture(scope="module")
def linear() -> Problem:
    return simulated(lambda x: LINEAR @ x, 6)


def linear_field(problem: Problem, *, regulators=(0, 1, 2, 3)) -> TargetField:
    config = FieldConfig(
        4, regulators, structure="linear", hidden=(), decay=False, production="free", self_regulation=True
    )
    field = TargetField(config, range(4))
    start_from_data(field, problem.chunks)
    return field


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def run(field, problem, *, importance=None, valid=None, n_candidates=8, n_steps=60) -> Elimination:
    importance = torch.ones(4, field.config.n_inputs) if importance is None else importance
    backward = _elimination.Backward(problem.chunks, valid, n_steps=n_steps, learning_rate=0.05, generator=generator())
    found = backward.begin(field, importance, n_candidates=n_candidates)
    while backward.remove(found):
        pass
    return found


def test_true_inputs_of_a_linear_system(linear):
    found = run(linear_field(linear), linear)
    truth = torch.tensor(LINEAR != 0)
    assert found.evidence[truth].min() > 10 * found.evidence[~truth].max()
    middle = (found.evidence[truth].min() * found.evidence[~truth].max()).sqrt().item()
    assert found.sizes(middle).tolist() == [2, 2, 2, 2]
    field = found.field(middle)
    assert torch.equal(field.allowed > 0, truth)
    matrix = (
        field.weights()[0][:, 0].detach().numpy() * linear.units.scale[:, None] / linear.units.scale / linear.units.time
    )
    np.testing.assert_allclose(matrix, LINEAR, atol=0.15)
    assert (matrix[~truth.numpy()] == 0).all()


def test_true_inputs_of_a_hill_system():
    def rate(x):
        up, down = x**3 / (x**3 + 0.125), 0.125 / (x**3 + 0.125)
        return 1.5 * np.array([down[2], up[0], up[1], up[0] * down[1]]) - x

    problem = simulated(rate, 8, low=0.0, high=1.2)
    config = FieldConfig(4, (0, 1, 2, 3), hidden=(6,))
    field = TargetField(config, range(4))
    start_from_data(field, problem.chunks)
    match(field, Sparsity(field), problem.chunks, strength=0.0, n_steps=200, learning_rate=0.03, generator=generator())
    found = run(field, problem, importance=field.allowed.clone(), n_steps=80)
    truth = torch.tensor([[0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0], [1, 1, 0, 0]], dtype=torch.bool)
    assert found.evidence[truth].min() > found.evidence[~truth].max()
    assert not found.evidence.diagonal().any()  # a gene's own level is its decay


def test_evidence_is_the_log_ratio_of_mean_squares(linear):
    found = run(linear_field(linear), linear, n_steps=5)
    assert found.errors.shape == found.held_out.shape == (4, 5)
    assert torch.equal(found.errors, found.held_out)
    costs = 2 * (found.errors[:, :-1] / found.errors[:, 1:]).log()
    # From the first removal on; one that was removed later has no less than one before it.
    largest = costs.flip(1).clamp(min=0).cummax(dim=1).values
    torch.testing.assert_close(found.evidence.sort(dim=1).values, largest)


def test_other_curves_judge(linear):
    valid = linear.some([4, 5]).chunks
    train = linear.some([0, 1, 2, 3])
    found = run(linear_field(linear), train, valid=valid, n_steps=5)
    assert not torch.equal(found.errors, found.held_out)
    assert found.held_out.isfinite().all()


def test_only_important_inputs_are_candidates(linear):
    importance = torch.tensor([[3.0, 2.0, 1.0, 0.5], [0.0, 0.0, 0.0, 0.0], [1.0, 0.0, 2.0, 0.0], [4.0, 3.0, 2.0, 1.0]])
    found = run(linear_field(linear), linear, importance=importance, n_candidates=2, n_steps=3)
    assert found.errors.shape == (4, 3)
    field = found.field(-100.0)
    assert field.allowed.tolist() == [[1, 1, 0, 0], [0, 0, 0, 0], [1, 0, 1, 0], [1, 1, 0, 0]]
    assert found.errors.isfinite().sum(dim=1).tolist() == [3, 1, 3, 3]
    assert not found.evidence[:, 3].any()


def test_without_any_candidate_nothing_is_left(linear):
    found = run(linear_field(linear), linear, importance=torch.zeros(4, 4), n_steps=2)
    assert not found.field(0.0).allowed.any()
    assert not found.evidence.any()
    assert math.isfinite(found.choose_threshold())


def test_regulators_are_the_only_inputs(linear):
    found = run(linear_field(linear, regulators=(1, 2)), linear, n_steps=3)
    assert found.evidence.shape == (4, 2)
    assert found.field(-100.0).allowed.shape == (4, 2)


def test_parts_of_the_removals_give_the_same(linear, monkeypatch):
    expected = run(linear_field(linear), linear, n_steps=3)
    monkeypatch.setattr(_elimination, "HEADS_AT_ONCE", 3)
    found = run(linear_field(linear), linear, n_steps=3)
    torch.testing.assert_close(found.errors, expected.errors)
    torch.testing.assert_close(found.evidence, expected.evidence)


def test_given_field_stays_as_it_is(linear):
    field = linear_field(linear)
    before = {name: value.clone() for name, value in field.state_dict().items()}
    run(field, linear, n_steps=2)
    assert all(torch.equal(value, before[name]) for name, value in field.state_dict().items())


def table(errors, held_out=None) -> Elimination:
    values = torch.tensor(errors)
    none = torch.zeros(0)
    return Elimination([], none, none, none, values, values if held_out is None else torch.tensor(held_out))


def test_size_is_the_last_whose_input_has_enough_evidence():
    found = table([[1.0, math.exp(-1), math.exp(-1.1)], [1.0, 0.9, 0.09], [0.5, INF, INF]])
    # Evidence of the first and second input of each target: 2 and 0.2; 0.21 and 4.6; none.
    assert found.sizes(0.1).tolist() == [2, 2, 0]
    assert found.sizes(1.0).tolist() == [1, 2, 0]
    assert found.sizes(3.0).tolist() == [0, 2, 0]
    assert found.sizes(5.0).tolist() == [0, 0, 0]


def test_held_out_error_chooses_the_threshold():
    errors = [[1.0, 0.5, 0.45]]  # evidence 1.39 and 0.21
    helps = table(errors, [[1.0, 0.5, 0.3]]).choose_threshold()
    assert table(errors).sizes(helps).tolist() == [2]
    hurts = table(errors, [[1.0, 0.5, 0.7]]).choose_threshold()
    assert table(errors).sizes(hurts).tolist() == [1]
    assert hurts > helps
    assert table(errors).sizes(table(errors, [[0.1, 0.5, 0.7]]).choose_threshold()).tolist() == [0]
