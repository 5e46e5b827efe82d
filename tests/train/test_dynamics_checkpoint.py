from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from perturbflow.dynamics import DynamicsSettings, DynamicsTrainer, FieldConfig, Trajectory
from perturbflow.train import Checkpoint, identity

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


def cut_short(folder, n_parts: int, **options) -> DynamicsTrainer:
    """A trainer of which a checkpoint is left after some parts."""
    one = trainer(**options)
    checkpoint = saved(folder, one)
    done = []

    def after_part() -> None:
        checkpoint.save()
        done.append(1)
        if len(done) == n_parts:
            raise KeyboardInterrupt

    one.fit(after_part=after_part)
    assert one.interrupted
    return one


@pytest.fixture(scope="module")
def expected():
    """The fit without a break."""
    return trainer(sparsity="l0").fit()


# Two strengths, the one candidate and none of it, the stage; matching; as many removals, the stage; short solutions.
N_DONE = (0, 0, 0, 0, 1, 2, 2, 2, 3, 4)


@pytest.mark.parametrize(("n_parts", "n_done"), [*enumerate(N_DONE, start=1)])
def test_continued_fit_is_that_without_a_break(tmp_path, expected, n_parts, n_done):
    first = cut_short(tmp_path, n_parts, sparsity="l0")
    second = trainer(sparsity="l0")
    checkpoint = saved(tmp_path, second)
    assert second.n_done == n_done
    assert second.history == first.history
    found = second.fit(after_part=checkpoint.save)
    for name, value in expected.field.state_dict().items():
        assert torch.equal(value, found.field.state_dict()[name]), name
    np.testing.assert_array_equal(found.start, expected.start)
    np.testing.assert_array_equal(found.states, expected.states)
    np.testing.assert_array_equal(found.evidence, expected.evidence)
    assert (found.history, found.threshold, found.strength) == (expected.history, expected.threshold, expected.strength)


def test_continued_fit_does_not_repeat_what_was_done(tmp_path):
    cut_short(tmp_path, 3)
    one = trainer()
    saved(tmp_path, one)
    seen = []
    one.on_step = lambda stage, step, loss: seen.append(stage)
    one.fit()
    assert "path" not in seen
    assert one.history["stage"].count("path") == 9


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
    with pytest.raises(ValueError, match=rf"to belong to this fit, found another one: different \['{different}'\]"):
        saved(tmp_path, one)
    assert one.n_done == 0


def test_the_same_factors_in_another_place_are_another_prior(tmp_path):
    cut_short(tmp_path, 1, factors=torch.tensor([[1.0, 0.5], [1.0, 1.0]]))
    with pytest.raises(ValueError, match=r"different \['factors'\]"):
        saved(tmp_path, trainer(factors=torch.tensor([[1.0, 1.0], [0.5, 1.0]])))


def test_other_files_are_refused(tmp_path):
    path = saved(tmp_path, trainer()).path
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(
        ValueError, match=r"Expected a checkpoint in .* found a damaged file .* Delete it to start anew"
    ):
        saved(tmp_path, trainer())
    save_file({"x": torch.ones(2)}, path)
    with pytest.raises(ValueError, match="Expected a checkpoint in .* found a file with other content"):
        saved(tmp_path, trainer())


def put(name, change):
    return lambda tensors, values: tensors.update({name: change(tensors[name])})


# What has been written by another program, with a checksum that is right.
FORGED = {
    "not a number": (put("field.raw_decay", lambda a: a * np.nan), "NaN or infinite values in 'field.raw_decay'"),
    "not a number before": (put("tried.1.field.centre", lambda a: a + np.inf), "infinite values in 'tried.1.field.centre'"),
    "shape": (put("field.raw_decay", lambda a: a[1:]), "inconsistent content .*raw_decay"),
    "shape before": (put("tried.0.field.raw_decay", lambda a: a[1:]), "inconsistent content .*raw_decay"),
    "starts": (put("start", lambda a: a[1:]), r"starts of shape \(3, 2\) instead of \(4, 2\)"),
    "generator": (put("generator", lambda a: a[:9]), "inconsistent content"),
    "type of the generator": (put("generator", lambda a: a.astype(float)), "inconsistent content"),
    "removals": (put("removals.0.candidates", lambda a: a + 7), "inconsistent content"),
    "no tensor": (lambda tensors, values: tensors.pop("evidence"), "no entry 'evidence'"),
    "no strength": (lambda tensors, values: tensors.pop("tried.0.field.centre"), "inconsistent content"),
    "stages": (lambda tensors, values: values["state"].update(n_done=77), "77 stages"),
    "choice": (lambda tensors, values: values["state"].update(chosen=2), "choice 2 of 2"),
    "no history": (lambda tensors, values: values["state"].pop("history"), "no entry 'history'"),
    "text": (lambda tensors, values: values["state"].update(n_done="1"), "inconsistent content"),
    "no state": (lambda tensors, values: values.pop("state"), "no entry 'state'"),
    "no fit": (lambda tensors, values: values.update(fit=3), "inconsistent content"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "match"), FORGED.values(), ids=FORGED)
def test_what_no_fit_can_have_saved_is_refused(tmp_path, rewrite, change, match):
    cut_short(tmp_path, 4)
    path = saved(tmp_path, trainer()).path
    rewrite(path, change, kind="a checkpoint")
    with pytest.raises(ValueError, match=match) as error:
        saved(tmp_path, trainer())
    assert str(path) in str(error.value)
    assert "Delete it to start anew." in str(error.value)


@pytest.mark.parametrize("n_parts", [2, 4, 9])
def test_mutated_bytes_are_refused(tmp_path, n_parts):
    cut_short(tmp_path, n_parts)
    path = saved(tmp_path, trainer()).path
    whole, rng = path.read_bytes(), np.random.default_rng(n_parts)
    for _ in range(60):
        changed = bytearray(whole)
        start = int(rng.integers(len(whole)))
        changed[start : start + int(rng.integers(1, 99))] = bytes(int(rng.integers(0, 99)))
        if bytes(changed) == whole:
            continue
        path.write_bytes(changed)
        with pytest.raises(ValueError, match="Expected a checkpoint in .*Delete it to start anew"):
            saved(tmp_path, trainer())


def test_interrupted_writing_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    cut_short(tmp_path, 6)
    one = trainer()
    checkpoint = saved(tmp_path, one)
    before = checkpoint.path.read_bytes()

    def stop(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", stop)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save()
    assert checkpoint.path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [checkpoint.path]
    other = trainer()
    saved(tmp_path, other)
    assert other.n_done == 2
