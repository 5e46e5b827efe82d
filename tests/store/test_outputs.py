"""Where nothing can be written, it is said before the work; where that happens later, the work is kept."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perturbflow.models import FittedFlow, PRiMeFlow
from perturbflow.predict import read_flow, write_flow
from perturbflow.store._file import check_folder
from perturbflow.tl import fit_dynamics, fit_flow, predict_perturbation

QUICK: dict[str, Any] = {
    "model_kwargs": {"width": 8, "n_blocks": 1},
    "max_steps": 4,
    "plan_kwargs": {"calibrate": False},
    "progress_bar": False,
}


def full_disk(*args: Any, **kwargs: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def no_work(monkeypatch):
    """A fit that fails as soon as it begins."""

    def fail(*args: Any, **kwargs: Any) -> None:
        pytest.fail("the fit has begun")

    monkeypatch.setattr("perturbflow.train._fit.train_flow", fail)
    monkeypatch.setattr("perturbflow.train._fit.AdditiveHurdlePrior.fit", fail)
    monkeypatch.setattr("perturbflow.train._fit_dynamics.DynamicsTrainer", fail)


def contents(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


def test_a_folder_that_can_be_written_to_is_left_as_it_was(tmp_path, monkeypatch):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "file").write_text("mine")
    before = contents(tmp_path)
    monkeypatch.chdir(tmp_path)
    for folder in (tmp_path / "old", tmp_path / "new", tmp_path / "new" / "er", "relative/one", "."):
        check_folder(folder, name="store")
    assert contents(tmp_path) == before


@pytest.mark.parametrize("below", ["", "x", "x/y"])
def test_a_file_in_the_way_is_named(tmp_path, below):
    (tmp_path / "f").write_text("mine")
    with pytest.raises(
        NotADirectoryError, match=r"Expected `store` to be an existing or new directory, found the file .*f'"
    ) as error:
        check_folder(tmp_path / "f" / below, name="store")
    assert str(tmp_path / "f") in str(error.value)
    assert contents(tmp_path) == [tmp_path / "f"]


@pytest.mark.parametrize("step", ["pathlib.Path.mkdir", "os.fsync"])
def test_nothing_is_left_where_nothing_can_be_written(tmp_path, monkeypatch, step):
    monkeypatch.setattr(step, full_disk)
    with pytest.raises(
        OSError, match=r"`checkpoint` to be a directory that can be written to, .*: No space left on device"
    ):
        check_folder(tmp_path / "a" / "b", name="checkpoint")
    assert contents(tmp_path) == []


@pytest.mark.parametrize("name", ["store", "checkpoint"])
def test_places_are_tried_before_a_flow_is_fitted(registered, unchanged, tmp_path, no_work, monkeypatch, name):
    (tmp_path / "f").write_text("mine")
    with (
        unchanged(registered),
        pytest.raises(NotADirectoryError, match=f"Expected `{name}` to be an existing or new directory"),
    ):
        fit_flow(registered, **QUICK, **{name: tmp_path / "f" / "x"})
    monkeypatch.setattr("os.fsync", full_disk)
    with (
        unchanged(registered),
        pytest.raises(OSError, match=f"Expected `{name}` to be a directory that can be written"),
    ):
        fit_flow(registered, **QUICK, **{name: tmp_path / "new"})
    assert contents(tmp_path) == [tmp_path / "f"]


def test_places_are_tried_before_dynamics_are_fitted(time_courses, unchanged, tmp_path, no_work):
    (tmp_path / "f").write_text("mine")
    with (
        unchanged(time_courses),
        pytest.raises(NotADirectoryError, match="Expected `checkpoint` to be an existing or new directory"),
    ):
        fit_dynamics(time_courses, checkpoint=tmp_path / "f" / "x", progress_bar=False)


def test_places_are_tried_before_a_model_is_trained(registered, tmp_path, no_work):
    (tmp_path / "f").write_text("mine")
    with pytest.raises(NotADirectoryError, match="Expected `checkpoint` to be an existing or new directory"):
        PRiMeFlow(registered, width=8).train(max_steps=1, checkpoint=tmp_path / "f" / "x", progress_bar=False)


@pytest.mark.parametrize("step", ["pathlib.Path.mkdir", "perturbflow.store._file.os.fsync", "pathlib.Path.replace"])
def test_a_flow_that_cannot_be_stored_is_kept(registered, tmp_path, monkeypatch, step):
    with monkeypatch.context() as patch:

        def fail_after_the_fit(*args: Any, **kwargs: Any) -> None:
            patch.setattr(step, full_disk)
            write_flow(*args, **kwargs)

        patch.setattr("perturbflow.tl._fit_flow.write_flow", fail_after_the_fit)
        with pytest.warns(UserWarning, match=r"could not be written to .* and was kept in `adata.uns\['flow'\]`"):
            fit_flow(registered, **QUICK, split_key="none", store=tmp_path / "store")
    predict_perturbation(registered, "A", n_steps=2)
    FittedFlow.from_dict(registered.uns["flow"]).save(tmp_path / "again")
    assert [path.name for path in contents(tmp_path / "again")] == ["flow.safetensors"]


def test_an_earlier_flow_stays_where_the_next_cannot_be_stored(fitted, tmp_path, monkeypatch):
    flow = read_flow(fitted)
    flow.save(tmp_path)
    before = {path: path.read_bytes() for path in contents(tmp_path)}
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full_disk)  # after the file was written
        with pytest.raises(OSError, match="No space left on device"):
            flow.save(tmp_path)
        with pytest.warns(UserWarning, match="and was kept in"):
            write_flow(fitted, flow, store=tmp_path)
    assert {path: path.read_bytes() for path in contents(tmp_path)} == before


def test_a_checkpoint_that_cannot_be_written_ends_no_fit(registered, time_courses, tmp_path, monkeypatch):
    plain = registered.copy()
    fit_flow(plain, **QUICK)
    monkeypatch.setattr("perturbflow.train._checkpoint.write_file", full_disk)
    with pytest.warns(UserWarning, match=r"The checkpoint in .* could not be written, .*No space left on device"):
        fit_flow(registered, **QUICK, checkpoint=tmp_path / "checkpoint")
    np.testing.assert_array_equal(registered.uns["flow"]["history"]["loss"], plain.uns["flow"]["history"]["loss"])
    assert contents(tmp_path) == []
    with pytest.warns(UserWarning, match="could not be written"):
        fit_dynamics(time_courses, effort=0.01, progress_bar=False, checkpoint=tmp_path / "checkpoint")
    assert "dynamics" in time_courses.uns


def test_no_name_is_no_directory():
    with pytest.raises(ValueError, match="Expected `store` to be a directory, found ''. Use"):
        check_folder("", name="store")
