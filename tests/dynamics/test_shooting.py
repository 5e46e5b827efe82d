from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import expm

from perturbflow.dynamics import FieldConfig, Problem, Trajectory, Units, build_field
from perturbflow.dynamics._shooting import make_segments, noise_of, solution_errors

MATRIX = np.array([[-0.5, 1.0, 0.0], [-1.0, -0.5, 0.3], [0.4, 0.0, -1.0]])
STARTS = ([1.0, 0.0, 2.0], [-1.0, 0.5, 0.3])
UNITS = Units(scale=np.array([1.0, 0.5, 2.0]), time=0.8)


def run(n, *, start=STARTS[0], clamped=(), weight=None, name="run"):
    time = np.linspace(0, 2, n)
    held = np.isin(np.arange(3), clamped)
    matrix = np.where(held[:, None], 0, MATRIX)
    values = np.stack([expm(t * matrix) @ start for t in time])
    return Trajectory(name, time, values, np.ones(n) if weight is None else np.asarray(weight, float), held)


def problem_of(*runs, order=1):
    return Problem.of(runs, order=order, units=UNITS)


def linear_field(*, zero=False):
    """The field of the linear system, scaled, or one in which nothing moves."""
    field = build_field(
        FieldConfig(3, (0, 1, 2), structure="linear", decay=False, production="free", self_regulation=True)
    )
    matrix = np.zeros((3, 3)) if zero else MATRIX * UNITS.scale / UNITS.scale[:, None] * UNITS.time
    with torch.no_grad():
        field.matrices[0].copy_(torch.tensor(matrix)[:, None])
    return field


@pytest.mark.parametrize("n_intervals", [None, 3])
def test_true_field_has_no_error(n_intervals):
    problem = problem_of(run(21), run(13, start=STARTS[1]), run(17, clamped=[1]))
    segments = make_segments(problem, order=1, n_intervals=n_intervals)
    # What is left is the smooth curve's error at the starts.
    assert solution_errors(linear_field(), segments).max() < 1e-4
    assert solution_errors(linear_field(zero=True), segments).max() > 1e-3


def test_whole_trajectories():
    problem = problem_of(run(9), run(5, start=STARTS[1]))
    segments = make_segments(problem, order=1)
    assert len(segments) == 2
    assert segments.trajectory.tolist() == [0, 1]
    assert segments.time.shape == (2, 9)
    assert (segments.time[1, 4:] == segments.time[1, 4]).all()
    assert segments.time[0, -1].item() == pytest.approx(2 / UNITS.time)
    assert (segments.weight[0] == 1).all()
    assert segments.weight[1].sum(dim=0).tolist() == [5, 5, 5]
    for k, curve in enumerate(problem.curves):
        np.testing.assert_allclose(segments.start[k].numpy() * UNITS.scale, curve(np.zeros(1))[0], rtol=1e-5)


def test_short_segments_start_at_every_observation_that_leaves_room():
    problem = problem_of(run(9), run(5, start=STARTS[1]))
    segments = make_segments(problem, order=1, n_intervals=3)
    assert segments.trajectory.tolist() == [0] * 6 + [1] * 2
    assert segments.time.shape == (8, 4)
    np.testing.assert_allclose(segments.time[2].numpy() * UNITS.time, np.linspace(0, 2, 9)[2:6], rtol=1e-6)
    # One that is longer than all trajectories is the whole; the shorter one is padded.
    long = make_segments(problem, order=1, n_intervals=100)
    assert long.time.shape == (2, 9)
    assert (long.weight[1, 5:] == 0).all()


def test_error_where_nothing_moves_is_by_hand():
    trajectory = run(9, weight=np.arange(1, 10))
    segments = make_segments(problem_of(trajectory), order=1)
    start = segments.start.numpy() * UNITS.scale
    share = trajectory.weight / trajectory.weight.sum()
    expected = (share[:, None] * (trajectory.values - start) ** 2).sum(axis=0) / UNITS.scale**2
    np.testing.assert_allclose(solution_errors(linear_field(zero=True), segments).detach(), expected, rtol=1e-4)


def test_held_genes_neither_move_nor_count():
    segments = make_segments(problem_of(run(9, clamped=[1])), order=1)
    assert segments.clamped.tolist() == [[False, True, False]]
    assert not segments.weight[..., 1].any()
    field = linear_field(zero=True)
    with torch.no_grad():
        field.biases[0].fill_(5.0)
    errors = solution_errors(field, segments)
    assert errors[1] == 0
    assert (errors[[0, 2]] > 1).all()
    # In an other trajectory it is free, and counts there only.
    both = make_segments(problem_of(run(9, clamped=[1]), run(9)), order=1)
    alone = make_segments(problem_of(run(9)), order=1)
    torch.testing.assert_close(solution_errors(field, both)[1], solution_errors(field, alone)[1])


def test_second_order_starts_have_rates():
    segments = make_segments(problem_of(run(41), order=2), order=2)
    rate = segments.start[0, 3:].numpy() * UNITS.scale / UNITS.time
    # A natural spline has no curvature at its ends; interior slopes are right.
    np.testing.assert_allclose(rate, MATRIX @ STARTS[0], atol=0.15)
    assert segments.clamped.shape == (1, 6)
    inner = make_segments(problem_of(run(41), order=2), order=2, n_intervals=4).start[20, 3:].numpy()
    np.testing.assert_allclose(inner * UNITS.scale / UNITS.time, MATRIX @ run(41).values[20], atol=0.01)


def test_other_starts_weights_and_some():
    problem = problem_of(run(9), run(9, start=STARTS[1]))
    segments = make_segments(problem, order=1)
    field = linear_field(zero=True)
    right = linear_field().weights()
    assert solution_errors(field, segments, weights=right).max() < 1e-3
    moved = solution_errors(field, segments, start=segments.start + 1)
    by_hand = ((segments.start[:, None] + 1 - segments.observed) ** 2).mean(dim=(0, 1))
    torch.testing.assert_close(moved, by_hand)
    one = segments.some(torch.tensor([1]))
    assert (len(one), one.trajectory.tolist()) == (1, [1])
    assert torch.equal(one.observed[0], segments.observed[1])


def test_gradient_by_start_is_finite_differences():
    segments = make_segments(problem_of(run(9)), order=1)
    field = linear_field()
    start = segments.start.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(solution_errors(field, segments, start=start).sum(), start)
    step = 1e-2
    for gene in range(3):
        sides = []
        for sign in (1, -1):
            moved = segments.start.clone()
            moved[0, gene] += sign * step
            sides.append(solution_errors(field, segments, start=moved).sum().item())
        assert gradient[0, gene].item() == pytest.approx((sides[0] - sides[1]) / (2 * step), abs=1e-3)


def test_noise_is_the_error_of_the_smooth_curves():
    rng = np.random.default_rng(0)
    time = np.linspace(0, 4, 60)
    clean = np.column_stack([np.sin(time), np.cos(time)])
    values = clean + np.array([0.3, 0.0]) * rng.normal(size=clean.shape)
    problem = Problem.of([Trajectory("run", time, values, np.ones(60), np.zeros(2, dtype=bool))], order=1)
    noise = noise_of(make_segments(problem, order=1)) * torch.tensor(problem.units.scale**2)
    assert 0.06 < noise[0] < 0.12  # 0.09, less what the curve follows
    assert noise[1] < 1e-4
