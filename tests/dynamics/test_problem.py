from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import softplus

from perturbflow.dynamics import FieldConfig, Problem, Trajectory, Units, build_field, smooth
from perturbflow.dynamics._problem import start_from_data

TIME = np.linspace(0, 2, 9)


def trajectory(values, *, time=TIME, clamped=(), name="run"):
    values = np.asarray(values, dtype=float)
    held = np.isin(np.arange(values.shape[1]), clamped)
    return Trajectory(name, np.asarray(time, dtype=float), values, np.ones(len(time)), held)


def lines(*slopes, **options):
    return trajectory(1 + np.outer(TIME, slopes), **options)


def units_of(*trajectories):
    return Units.of(trajectories, [smooth(t) for t in trajectories])


def test_units_of_straight_lines():
    units = units_of(lines(1.0, -4.0))
    np.testing.assert_allclose(units.scale, [TIME.std(), 4 * TIME.std()], rtol=1e-6)
    assert units.time == pytest.approx(TIME.std(), rel=1e-6)


def test_units_are_over_all_trajectories():
    units = units_of(lines(1.0), trajectory(5 + TIME[:, None]))
    np.testing.assert_allclose(units.scale, np.std([1 + TIME, 5 + TIME]), rtol=1e-6)


def test_held_genes_do_not_count_in_the_units():
    free, held = lines(1.0, 2.0), trajectory(np.column_stack([1 + TIME, np.full(9, 100.0)]), clamped=[1])
    np.testing.assert_allclose(units_of(free, held).scale[1], units_of(free).scale[1], rtol=1e-6)
    assert units_of(trajectory(held.values)).scale[1] != pytest.approx(2 * TIME.std())


def test_gene_that_never_moves_has_the_smallest_unit():
    units = units_of(lines(1.0, 0.0, 3.0))
    assert units.scale[1] == units.scale.min() == pytest.approx(TIME.std(), rel=1e-6)
    assert units.time == pytest.approx(TIME.std(), rel=1e-6)
    # And one that is held wherever it is seen.
    units = units_of(lines(1.0, 2.0, clamped=[1]))
    assert units.scale[1] == pytest.approx(units.scale[0], rel=1e-6)


def test_gene_that_differs_only_between_trajectories_has_the_spread_of_its_means():
    one, other = (trajectory(np.column_stack([1 + TIME, np.full(9, level)])) for level in (0.0, 6.0))
    assert units_of(one, other).scale[1] == pytest.approx(3)
    assert units_of(one, trajectory(other.values, clamped=[1])).scale[1] == pytest.approx(3)
    assert units_of(one, one).scale[1] == pytest.approx(TIME.std())


def test_without_any_change_units_are_one_and_the_duration():
    units = units_of(lines(0.0, 0.0))
    assert units.scale.tolist() == [1, 1]
    assert units.time == 2


def test_time_scale_is_within_the_observed_time():
    assert units_of(trajectory(1000 + 1e-4 * np.sin(2000 * TIME)[:, None])).time >= 2e-3
    assert units_of(lines(1e-3), trajectory([[0.0], [50.0]], time=[0, 1])).time <= 2


def test_states_are_in_units():
    one, two = lines(1.0, -2.0, name="a"), lines(3.0, 1.0, name="b")
    problem = Problem.of([one, two], order=2)
    assert [t.name for t in problem.trajectories] == ["a", "b"]
    state = problem.chunks.state[0].numpy()
    np.testing.assert_allclose(state[0, :2] * problem.units.scale, [1, 1], rtol=1e-5)
    np.testing.assert_allclose(state[-1, :2] * problem.units.scale, [3, -3], rtol=1e-5)
    rates = state[:, 2:] * problem.units.scale / problem.units.time
    np.testing.assert_allclose(rates, np.tile([1.0, -2.0], (len(state), 1)), rtol=1e-4)
    given = Units(scale=np.array([2.0, 5.0]), time=0.5)
    problem = Problem.of([one], order=1, units=given)
    assert problem.units is given
    np.testing.assert_allclose(problem.chunks.state[0, 0].numpy(), [0.5, 0.2], rtol=1e-5)
    assert problem.chunks.step.sum().item() == pytest.approx(4, rel=1e-5)


def test_some_trajectories_in_any_order_and_repeated():
    problem = Problem.of([lines(slope, name=f"run {slope}") for slope in (1.0, 2.0, 3.0)], order=1)
    some = problem.some([2, 0, 2])
    assert [t.name for t in some.trajectories] == ["run 3.0", "run 1.0", "run 3.0"]
    assert some.units is problem.units
    assert some.chunks.trajectory.tolist() == [0, 1, 2]
    for k, original in enumerate([2, 0, 2]):
        assert some.curves[k] is problem.curves[original]
        assert torch.equal(some.chunks.state[k], problem.chunks.state[original])
    # Some of some are those of the smaller problem.
    again = some.some([1])
    assert again.trajectories[0].name == "run 1.0"
    assert torch.equal(again.chunks.state[0], problem.chunks.state[0])


def test_start_knows_rate_of_decay_centre_and_production():
    time = np.linspace(0, 3, 40)
    rates, plateau = np.array([0.8, 2.0]), np.array([1.0, 0.5])
    runs = [trajectory(plateau + start * np.exp(-np.outer(time, rates)), time=time) for start in (0.5, 1.0)]
    problem = Problem.of(runs, order=1)
    field = build_field(FieldConfig(2, (0, 1)))
    start_from_data(field, problem.chunks)
    states = problem.chunks.state.reshape(-1, 2)
    torch.testing.assert_close(field.centre, states.mean(dim=0))
    np.testing.assert_allclose(field.decay_rates().detach() / problem.units.time, rates, rtol=0.05)
    # Production is rate * plateau at all times; its maximum starts at three times that.
    needed = 3 * (rates * plateau / problem.units.scale) * problem.units.time
    np.testing.assert_allclose(softplus(field.raw_range).detach(), needed, rtol=0.05)


def test_start_of_second_order_is_only_the_centre():
    problem = Problem.of([lines(1.0, -2.0), lines(2.0, 1.0)], order=2)
    field = build_field(FieldConfig(2, (1,), order=2, decay=False, production="free"))
    before = field.raw_decay.detach().clone()
    start_from_data(field, problem.chunks)
    assert torch.equal(field.raw_decay, before)
    torch.testing.assert_close(field.centre, problem.chunks.state[..., [1, 3]].reshape(-1, 2).mean(dim=0))
    assert math.isfinite(field.centre.sum().item())
