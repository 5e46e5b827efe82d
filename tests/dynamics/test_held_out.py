from __future__ import annotations

import numpy as np
import pytest
import torch

from perturbflow.dynamics import FieldConfig, Trajectory, build_field
from perturbflow.dynamics._matching import MatchedWindows, mean_square_change, window_errors
from perturbflow.dynamics._problem import hold_out


def runs(n, n_times):
    time = np.linspace(0, 1, n_times)
    return [
        Trajectory(
            f"run {k}", time, np.column_stack([np.sin((k + 1) * time), time**2]), np.ones(n_times), np.zeros(2, bool)
        )
        for k in range(n)
    ]


def split(n, n_times, *, seed=0, order=1):
    return hold_out(runs(n, n_times), order=order, seed=seed, window=1 / 6)


@pytest.mark.parametrize(("n", "n_held_out"), [(4, 1), (6, 2), (8, 2), (10, 2), (12, 3)])
def test_a_quarter_of_the_trajectories(n, n_held_out):
    train, valid, what = split(n, 5)
    assert what == "trajectories"
    assert valid is not None
    names = [t.name for t in train.trajectories], [t.name for t in valid.trajectories]
    assert len(names[1]) == n_held_out
    assert sorted(names[0] + names[1]) == sorted(t.name for t in runs(n, 5))
    assert train.units is valid.units


def test_seed_decides_which():
    def held_out(seed):
        valid = split(12, 5, seed=seed)[1]
        assert valid is not None
        return [t.name for t in valid.trajectories]

    assert held_out(3) == held_out(3)
    assert len({tuple(held_out(seed)) for seed in range(5)}) > 1


@pytest.mark.parametrize(("n_times", "n_late"), [(8, 3), (20, 5)])
def test_late_times_where_there_are_few_trajectories(n_times, n_late):
    train, valid, what = split(3, n_times)
    assert what == "time"
    assert valid is not None
    for k, (early, late) in enumerate(zip(train.trajectories, valid.trajectories, strict=True)):
        assert early.name == late.name == f"run {k}"
        assert len(late.time) == n_late
        assert early.time[-1] < late.time[0]
        np.testing.assert_array_equal(np.concatenate([early.time, late.time]), np.linspace(0, 1, n_times))
    assert train.units is valid.units


def test_late_times_do_not_shape_the_early_curves():
    trajectories = runs(2, 20)
    train, _, _ = hold_out(trajectories, order=1, seed=0, window=1 / 6)
    for t in trajectories:
        t.values[-5:] += 3 * np.arange(1, 6)[:, None]
    again, _, _ = hold_out(trajectories, order=1, seed=0, window=1 / 6)
    scale = torch.tensor(again.units.scale / train.units.scale, dtype=torch.float32)
    torch.testing.assert_close(again.chunks.state * scale, train.chunks.state)
    assert not torch.allclose(scale, torch.ones(2))


def test_nothing_where_there_is_too_little():
    train, valid, what = split(3, 7)
    assert (valid, what) == (None, "nothing")
    assert len(train.trajectories) == 3


def test_order_of_the_states():
    train, valid, _ = split(4, 9, order=2)
    assert valid is not None
    assert train.chunks.state.shape[-1] == valid.chunks.state.shape[-1] == 4


def test_late_errors_of_a_gene_at_rest_are_relative_to_how_it_moved():
    time = np.linspace(0, 2, 24)
    values = np.column_stack([np.exp(-8 * time), time**2])  # the first has come to rest when the others are late
    train, valid, what = hold_out(
        [Trajectory("run", time, values, np.ones(24), np.zeros(2, bool))], order=1, seed=0, window=1 / 6
    )
    assert what == "time"
    assert valid is not None
    before = mean_square_change(train.chunks)
    torch.testing.assert_close(valid.chunks.least_change, before)
    assert not train.chunks.least_change.any()
    field = build_field(FieldConfig(2, (0, 1), decay=False, production="free"))
    with torch.no_grad():
        for parameter in field.parameters():
            parameter.zero_()  # nothing changes
    miss, size = window_errors(field, MatchedWindows.of(field, valid.chunks))
    assert miss[0] / size[0] < 1e-4
    n_windows = float(valid.chunks.valid.sum())
    torch.testing.assert_close(size[0], n_windows * before[0])
    torch.testing.assert_close(miss[1], size[1])


def test_errors_of_a_gene_that_moves_only_in_what_is_fitted_are_not_relative_to_nothing():
    trajectories = runs(8, 10)
    _, valid, _ = hold_out(trajectories, order=1, seed=0, window=1 / 6)
    assert valid is not None
    held_out = {t.name for t in valid.trajectories}
    for t in trajectories:
        t.values[:, 1] = 1.0 if t.name in held_out else 1.0 + t.time
    train, valid, _ = hold_out(trajectories, order=1, seed=0, window=1 / 6)
    assert valid is not None
    field = build_field(FieldConfig(2, (0, 1), decay=False, production="free"))
    with torch.no_grad():
        for parameter in field.parameters():
            parameter.zero_()
        field.biases[-1][1] = 0.01 * train.units.time / train.units.scale[1]  # a hundredth of the rate in the others
    miss, size = window_errors(field, MatchedWindows.of(field, valid.chunks))
    # Three of four runs move at the same rate: the mean square is 3/4 of its square, of which a hundredth counts.
    assert (miss[1] / size[1]).item() == pytest.approx(0.01**2 / (0.01 * 3 / 4), rel=1e-3)
