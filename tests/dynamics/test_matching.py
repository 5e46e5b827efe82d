from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.interpolate import CubicSpline
from scipy.linalg import expm

from perturbflow.dynamics import FieldConfig, Smoothed, Trajectory, _matching, build_field
from perturbflow.dynamics._matching import (
    SMALLEST_ERROR,
    MatchedWindows,
    make_chunks,
    piece_errors,
    root_error,
    window_errors,
)

MATRIX = np.array([[-0.5, 2.0, 0.0], [-2.0, -0.5, 0.3], [0.4, 0.0, -1.0]])
START = np.array([1.0, 0.0, 2.0])
SCALE, TIME_SCALE = np.array([0.5, 2.0, 1.0]), 0.7


def curve_of(time, values) -> Smoothed:
    d = values.shape[1]
    return Smoothed(CubicSpline(time, values), np.zeros(d), np.full(d, float(len(time))))


def run(time, *, start=START, clamped=(), values=None):
    """Trajectory of the linear system, with its curve."""
    time = np.asarray(time, dtype=float)
    held = np.isin(np.arange(3), clamped)
    matrix = np.where(held[:, None], 0, MATRIX)
    values = np.stack([expm(t * matrix) @ start for t in time]) if values is None else values
    return Trajectory("run", time, values, np.ones(len(time)), held), curve_of(time, values)


def chunks_of(*runs, order=1, window=1 / 6, scale=SCALE, time_scale=TIME_SCALE):
    trajectories, curves = zip(*runs, strict=True)
    return make_chunks(trajectories, curves, scale=scale, time_scale=time_scale, order=order, window=window)


def linear_field(matrix=None, *, order=1):
    """Field of a linear system in scaled units; no change at all without a matrix."""
    n_genes = 3 if matrix is None else len(matrix)
    field = build_field(
        FieldConfig(
            n_genes,
            tuple(range(n_genes)),
            structure="linear",
            order=order,
            decay=False,
            production="free",
            self_regulation=True,
        )
    )
    with torch.no_grad():
        field.matrices[0].zero_()
        if matrix is not None:
            field.matrices[0].copy_(torch.tensor(matrix)[:, None])
    return field


def exact_field():
    return linear_field(TIME_SCALE * MATRIX * SCALE / SCALE[:, None])


def random_field(*, order=1):
    return build_field(FieldConfig(3, (0, 1, 2), hidden=(4,), order=order), seed=3)


def by_hand(field, chunks):
    """Sums of squared misses and changes of every piece, window after window."""
    misses = np.zeros((len(chunks), len(field.targets)))
    sizes = np.zeros_like(misses)
    for c, (state, step) in enumerate(zip(chunks.state, chunks.step.double().numpy(), strict=True)):
        rates = field.highest_rates(state).detach().double().numpy()
        time = np.concatenate([[0], np.cumsum(step)])
        for w, (a, b) in enumerate(zip(chunks.start.tolist(), chunks.end.tolist(), strict=True)):
            if not chunks.valid[c, w]:
                continue
            for k, target in enumerate(field.targets.tolist()):
                level = state[:, target + (field.config.order - 1) * 3].double().numpy()
                duration = time[b] - time[a]
                integral = np.trapezoid(rates[a : b + 1, k], time[a : b + 1])
                weight = chunks.weight[c, target].item()
                misses[c, k] += weight * ((level[b] - level[a] - integral) / duration) ** 2
                sizes[c, k] += weight * ((level[b] - level[a]) / duration) ** 2
    return misses, sizes


def errors_of(field, chunks, weights=None):
    """Sums of squared misses and of squared changes, of every target."""
    return window_errors(field, MatchedWindows.of(field, chunks), weights=weights)


def errors_of_pieces(field, chunks):
    """The same of every piece."""
    return [each.T for each in piece_errors(field, MatchedWindows.of(field, chunks))]


def relative(field, chunks):
    miss, size = errors_of(field, chunks)
    return (miss / size).detach().numpy()


def test_the_field_that_made_the_data_misses_nothing():
    time = np.sort(np.random.default_rng(0).uniform(0, 4, 60))
    chunks = chunks_of(run(time), run(time, start=-START[::-1]))
    assert (relative(exact_field(), chunks) < 1e-4).all()
    assert (relative(random_field(), chunks) > 0.1).all()


def test_finer_grids_miss_less():
    errors = [relative(exact_field(), chunks_of(run(np.linspace(0, 4, n)))) for n in (61, 121)]
    # The trapezoidal rule is of second order: squares fall sixteenfold.
    np.testing.assert_allclose(errors[0] / errors[1], 16, rtol=0.2)


def test_a_field_without_change_misses_all():
    np.testing.assert_allclose(relative(linear_field(), chunks_of(run(np.linspace(0, 4, 30)))), 1, rtol=1e-6)


def test_units_do_not_matter_to_the_exact_field():
    chunks = chunks_of(run(np.linspace(0, 4, 61)), scale=np.ones(3), time_scale=1.0)
    np.testing.assert_allclose(
        relative(linear_field(MATRIX), chunks),
        relative(exact_field(), chunks_of(run(np.linspace(0, 4, 61)))),
        rtol=0.01,
    )


def test_in_second_order_accelerations_are_matched():
    time = np.linspace(0, 6, 121)
    oscillator = np.array([[0.0, 1.0], [-1.5, -0.5]])
    level = np.stack([expm(t * oscillator) @ [0.4, 0.3] for t in time])[:, :1]
    trajectory = Trajectory("run", time, level, np.ones(121), np.zeros(1, dtype=bool))
    chunks = make_chunks([trajectory], [curve_of(time, level)], scale=np.array([2.0]), time_scale=0.5, order=2)
    # In scaled units x'' = -1.5 t^2 x - 0.5 t x'.
    field = linear_field([[-1.5 * 0.5**2, -0.5 * 0.5]], order=2)
    assert relative(field, chunks) < 1e-4
    torch.testing.assert_close(chunks.state[0, :, 0], torch.tensor(level[:, 0] / 2, dtype=torch.float32))
    rates = np.stack([expm(t * oscillator) @ [0.4, 0.3] for t in time])[:, 1]
    np.testing.assert_allclose(chunks.state[0, :, 1], rates * 0.5 / 2, atol=1e-4)


@pytest.mark.parametrize("order", [1, 2])
def test_errors_are_sums_over_windows(order):
    # Of very different lengths: 4 times are less than a window, and all but the longest are padded.
    runs = [run(np.linspace(0, 4, 40)), run(np.linspace(0, 3, 25)), run([0.0, 0.1, 0.4, 0.5], clamped=[1])]
    chunks = chunks_of(*runs, order=order, window=0.4)
    assert chunks.trajectory.tolist() == [0, 1, 2]
    assert chunks.valid.sum(dim=1).tolist()[-1] == 1
    assert chunks.valid.sum(dim=1).tolist()[0] > chunks.valid.sum(dim=1).tolist()[1] > 1
    field = random_field(order=order)
    misses, sizes = by_hand(field, chunks)
    found = errors_of_pieces(field, chunks)
    np.testing.assert_allclose(found[0].detach(), misses, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(found[1].detach(), sizes, rtol=1e-3, atol=1e-6)
    total = errors_of(field, chunks)
    for whole, pieces in zip(total, found, strict=True):
        torch.testing.assert_close(whole, pieces.sum(dim=0))


def test_the_window_of_a_short_trajectory_is_all_of_it():
    chunks = chunks_of(run(np.linspace(0, 4, 40)), run([0.0, 0.1, 0.4], start=2 * START), window=0.4)
    _, size = errors_of_pieces(exact_field(), chunks)
    change = (expm(0.4 * MATRIX) @ (2 * START) - 2 * START) / SCALE / (0.4 / TIME_SCALE)
    np.testing.assert_allclose(size[1].detach(), change**2, rtol=1e-4)


def test_genes_under_intervention_carry_no_weight_but_act_on_others():
    time = np.linspace(0, 4, 80)
    free, held = run(time), run(time, clamped=[0])
    chunks = chunks_of(free, held)
    assert chunks.weight.tolist() == [[1, 1, 1], [0, 1, 1]]
    miss, size = errors_of_pieces(random_field(), chunks)
    assert miss[1, 0] == size[1, 0] == 0
    assert (miss[0] > 0).all()
    assert (relative(exact_field(), chunks) < 1e-4).all()
    alone = chunks_of(held)
    miss, size = errors_of(exact_field(), alone)
    assert miss[0] == size[0] == 0
    assert root_error(miss, size)[0].item() == pytest.approx(SMALLEST_ERROR)
    # A field that knows nothing of gene 0 misses what its held level does to gene 1.
    without = exact_field()
    with torch.no_grad():
        without.matrices[0][1, 0, 0] = 0
    assert errors_of(without, alone)[0][1] > 1000 * miss[1]


def test_long_trajectories_are_cut_without_loss(monkeypatch):
    time = np.linspace(0, 40, 1000)
    values = np.stack([time, np.sin(time), np.cos(1.7 * time)], axis=1)
    long = run(time, values=values)
    pieces = chunks_of(long, scale=np.ones(3), time_scale=1.0)
    span = (pieces.end - pieces.start).unique()
    assert len(pieces) > 5
    assert pieces.state.shape[1] <= 120 + span
    monkeypatch.setattr(_matching, "CHUNK_POINTS", 10_000)
    whole = chunks_of(long, scale=np.ones(3), time_scale=1.0, window=span.item() / 1000)
    assert len(whole) == 1
    assert (whole.end - whole.start).unique() == span

    def windows(chunks):  # by their times, which the first gene tells
        clock = chunks.state[..., 0]
        return {
            (a.item(), b.item()) for piece in clock for a, b in zip(piece[chunks.start], piece[chunks.end], strict=True)
        }

    assert windows(pieces) == windows(whole)
    assert pieces.valid.all()
    np.testing.assert_allclose(relative(random_field(), pieces), relative(random_field(), whole), rtol=0.05)


def test_steps_are_times_in_units_and_padding_has_none():
    short, long = [0.0, 0.1, 0.4, 1.0], np.linspace(0, 4, 40)
    chunks = chunks_of(run(long), run(short))
    np.testing.assert_allclose(chunks.step.sum(dim=1), np.array([4.0, 1.0]) / TIME_SCALE, rtol=1e-6)
    n = int((chunks.step[1] > 0).sum())
    assert n % 3 == 0  # as many points between all observations
    assert (chunks.step[1, n:] == 0).all()
    torch.testing.assert_close(chunks.state[1, n:], chunks.state[1, n].expand_as(chunks.state[1, n:]))
    torch.testing.assert_close(
        chunks.state[1, : n + 1 : n // 3], torch.tensor(run(short)[0].values / SCALE, dtype=torch.float32)
    )


def test_pieces_can_be_chosen():
    chunks = chunks_of(run(np.linspace(0, 4, 40)), run(np.linspace(0, 3, 30)), run(np.linspace(0, 2, 20)))
    some = chunks.pieces(torch.tensor([2, 0]))
    assert len(chunks) == 3
    assert len(some) == 2
    assert some.trajectory.tolist() == [2, 0]
    every = errors_of_pieces(random_field(), chunks)
    for found, expected in zip(errors_of_pieces(random_field(), some), every, strict=True):
        torch.testing.assert_close(found, expected[[2, 0]])
    assert chunks.to("cpu").state.device.type == "cpu"


def test_gradients_agree_with_finite_differences():
    chunks = chunks_of(run(np.linspace(0, 4, 20)))
    field = random_field().double()
    chunks = replace(chunks, state=chunks.state.double(), step=chunks.step.double())
    weights = [w.detach().requires_grad_() for w in field.weights()]
    assert torch.autograd.gradcheck(lambda *w: root_error(*errors_of(field, chunks, w)), tuple(weights))


def test_the_root_error():
    miss, size = torch.tensor([0.0, 4.0, 1.0]), torch.tensor([1.0, 16.0, 0.0])
    found = root_error(miss, size)
    assert found[0].item() == pytest.approx(SMALLEST_ERROR)
    assert found[1].item() == pytest.approx(0.5)
    assert found.isfinite().all()
