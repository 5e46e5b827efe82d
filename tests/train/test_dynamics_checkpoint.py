from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from perturbflow.dynamics import DynamicsSettings, DynamicsTrainer, FieldConfig, Trajectory
from perturbflow.train._checkpoint import Checkpoint
from perturbflow.train._fit_dynamics import identity

TIME = np.linspace(0, 2, 10)
STEPS: dict[str, Any] = {
    "strengths": (0.01, 0.1),
    "n_candidates": 1,
    "matching_steps": 6,
    "path_steps": 3,
    "elimination_steps": 2,
    "shooting_steps": 3,
    "solving_steps": 2,
}


def runs(*, faster=1.0, reverse=False):
    found = []
    for k in range(4):
        values = np.column_stack([(k + 1) * np.exp(-TIME), 1 - np.exp(-(k + 1) * TIME)])
        values = values[:, ::-1].copy() if reverse else values
        found.append(Trajectory(f"run {k}", TIME * faster, values, np.ones(10), np.zeros(2, dtype=bool)))
    return found


def trainer(*, trajectories=None, hidden=(3,), factors=None, **settings) -> DynamicsTrainer:
    return DynamicsTrainer(
        runs() if trajectories is None else trajectories,
        FieldConfig(2, (0, 1), hidden=hidden),
        DynamicsSettings(**(STEPS | settings)),
        factors=factors,
    )


def saved(folder, one: DynamicsTrainer) -> Checkpoint:
    return Checkpoint(folder, one, fit=identity(one))


def cut_short(folder, n_stages: int, **options) -> DynamicsTrainer:
    """A trainer of which a checkpoint is left after some stages."""
    one = trainer(**options)
    checkpoint = saved(folder, one)
    done = []

    def after_stage() -> None:
        checkpoint.save()
        done.append(1)
        if len(done) == n_stages:
            raise KeyboardInterrupt

    one.fit(after_part=after_stage)
    assert one.interrupted
    return one


@pytest.mark.parametrize("n_stages", [1, 2, 3, 4])
def test_continued_fit_is_that_without_a_break(tmp_path, n_stages):
    expected = trainer(sparsity="l0").fit()
    first = cut_short(tmp_path, n_stages, sparsity="l0")
    second = trainer(sparsity="l0")
    checkpoint = saved(tmp_path, second)
    assert second.n_done == n_stages
    assert second.history == first.history
    found = second.fit(after_part=checkpoint.save)
    for name, value in expected.field.state_dict().items():
        assert torch.equal(value, found.field.state_dict()[name]), name
    np.testing.assert_array_equal(found.start, expected.start)
    np.testing.assert_array_equal(found.states, expected.states)
    assert (found.history, found.threshold, found.strength) == (expected.history, expected.threshold, expected.strength)


def test_nothing_is_written_before_the_first_stage_and_all_is_removed(tmp_path):
    folder = tmp_path / "new" / "folder"
    checkpoint = saved(folder, trainer())
    assert not folder.exists()
    checkpoint.save()
    assert [path.name for path in folder.iterdir()] == [checkpoint.path.name]
    checkpoint.remove()
    assert not folder.exists()
    checkpoint.remove()  # a second time is no error
    folder.mkdir()
    (folder / "other").write_text("mine")
    checkpoint.save()
    checkpoint.remove()
    assert [path.name for path in folder.iterdir()] == ["other"]


@pytest.mark.parametrize(
    ("options", "different"),
    [
        ({"seed": 1}, "settings"),
        ({"hidden": (4,)}, "config"),
        ({"trajectories": runs(faster=2.0)}, "trajectories"),
        ({"trajectories": runs(reverse=True)}, "trajectories"),
        ({"trajectories": runs()[:3]}, "trajectories"),
        ({"factors": torch.tensor([[1.0, 0.5], [1.0, 1.0]])}, "factors"),
    ],
    ids=["seed", "hidden", "times", "genes", "fewer", "prior"],
)
def test_another_fit_is_refused(tmp_path, options, different):
    cut_short(tmp_path, 1)
    one = trainer(**options)
    with pytest.raises(ValueError, match=rf"to be of this fit, found another: different \['{different}'\]"):
        saved(tmp_path, one)
    assert one.n_done == 0


def test_the_same_factors_in_another_place_are_another_prior(tmp_path):
    cut_short(tmp_path, 1, factors=torch.tensor([[1.0, 0.5], [1.0, 1.0]]))
    with pytest.raises(ValueError, match=r"different \['factors'\]"):
        saved(tmp_path, trainer(factors=torch.tensor([[1.0, 1.0], [0.5, 1.0]])))


def test_other_files_are_refused(tmp_path):
    path = saved(tmp_path, trainer()).path
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match="Expected a checkpoint in .* found another file"):
        saved(tmp_path, trainer())
    save_file({"x": torch.ones(2)}, path)
    with pytest.raises(ValueError, match="Expected a checkpoint in .* found tensors of something else"):
        saved(tmp_path, trainer())


def test_interrupted_writing_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    cut_short(tmp_path, 2)
    one = trainer()
    checkpoint = saved(tmp_path, one)
    before = checkpoint.path.read_bytes()

    def stop(tensors, path, metadata) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr("perturbflow.train._checkpoint.save_file", stop)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save()
    assert checkpoint.path.read_bytes() == before
    other = trainer()
    saved(tmp_path, other)
    assert other.n_done == 2
