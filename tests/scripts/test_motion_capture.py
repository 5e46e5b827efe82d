"""The protocol of the benchmark on human motion on sequences whose answers are known; the benchmark runs in short."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def modules():
    """The modules of the protocol and of the null models."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        yield {name: import_module(f"_motion_{name}") for name in ("protocol", "nulls")}
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def protocol(modules):
    return modules["protocol"]


@pytest.fixture(scope="module")
def null_models(modules):
    return modules["nulls"]


def gait(n, *, period=34.0, phase=0.0, offset=0.0):
    """A cycle of three channels with two harmonics."""
    angle = 2 * np.pi * (np.arange(n)[:, None] / period + phase)
    return offset + np.concatenate(
        [np.sin(angle), np.cos(angle) + 0.3 * np.sin(2 * angle), 0.5 * np.cos(2 * angle)], axis=1
    )


@pytest.fixture(scope="module")
def motion(protocol):
    """Walks of one period; a test walk at another phase, one of another person, and short jogs."""
    frames = {f"train{k}": gait(100, phase=k / 5) for k in range(4)}
    frames |= {"valid": gait(100, phase=0.37), "trial": gait(150, phase=0.61), "subject": gait(90, offset=2.0)}
    frames |= {"jog": gait(41, period=20, offset=2.0), "both": gait(44, period=22, offset=-1.0)}
    splits = {name: "train" for name in frames if name.startswith("train")} | {"valid": "valid"}
    splits |= {"trial": "test_trial", "subject": "test_subject", "jog": "test_activity", "both": "test_both"}
    return protocol.Motion(frames, splits)


def score(protocol, forecast, motion, task="second half"):
    """Score of every split."""
    return protocol.by_split(protocol.scores(protocol.errors_of(forecast, motion, task))).set_index("split")["score"]


@pytest.mark.parametrize(("n", "observed", "target"), [(90, 45, 45), (41, 21, 20), (150, 75, 60), (107, 54, 53)])
def test_first_half_is_rounded_up_and_two_seconds_are_scored(protocol, n, observed, target):
    x = np.arange(float(n))[:, None]
    first, second = protocol.parts(x, "second half")
    assert (len(first), len(second)) == (observed, target)
    assert second[0] == observed
    one, following = protocol.parts(x, "first frame")
    assert (len(one), len(following), following[0]) == (1, min(n - 1, 60), 1)


def test_scale_and_error_have_closed_forms(protocol):
    motion = protocol.Motion(
        {"a": np.array([[0.0, 1.0], [2.0, 1.0]]), "b": np.array([[1.0, 5.0], [4.0, 5.0], [1.0, 5.0]])},
        {"a": "train", "b": "test_trial"},
    )
    assert motion.scale == pytest.approx(np.sqrt(0.5))  # variances 1 and 0
    errors = protocol.errors_of(lambda seen, n: np.tile(seen[-1], (n, 1)), motion, "first frame")
    assert errors["error"].tolist() == pytest.approx([9.0, 0.0])  # 3 squared over two channels and 0.5
    assert errors["frame"].tolist() == [1, 2]
    assert protocol.scores(errors)["score"].tolist() == pytest.approx([4.5])
    assert protocol.scores(errors, until=1 / 30)["score"].tolist() == pytest.approx([9.0])


def test_splits_are_means_over_sequences(protocol):
    table = pd.DataFrame({"sequence": ["a", "b", "c"], "split": ["x", "x", "y"], "score": [1.0, 3.0, 5.0]})
    assert protocol.by_split(table)["score"].tolist() == [2, 5]


def test_every_frame_has_to_be_predicted(protocol):
    with pytest.raises(ValueError, match=r"predictions of shape \(4, 2\), found \(3, 2\)"):
        protocol.frame_errors(np.zeros((3, 2)), np.zeros((4, 2)), scale=1.0)


def test_range_is_relative_to_what_is_known(protocol):
    known = np.array([[0.0, 10.0, 5.0], [4.0, 30.0, 5.0]])
    assert protocol.range_excess(known, known) == pytest.approx(1.0)
    assert protocol.range_excess(np.array([[5.0, 20.0, 5.0]]), known) == pytest.approx(1.5)
    # A channel that never changes has the median half range of the others.
    assert protocol.range_excess(np.array([[2.0, 20.0, 17.0]]), known) == pytest.approx(6.0)


def test_sequences_are_read_from_frames(protocol):
    obs = pd.DataFrame({"sequence": ["b", "b", "a"], "split": ["train", "train", "valid"]}, index=list("xyz"))
    motion = protocol.Motion.of(ad.AnnData(np.arange(6.0).reshape(3, 2), obs=obs))
    assert {name: x.tolist() for name, x in motion.frames.items()} == {"b": [[0, 1], [2, 3]], "a": [[4, 5]]}
    assert list(motion.part("valid")) == ["a"]


def test_few_sequences_of_each_level(protocol):
    frames = dict.fromkeys(["t1", "t2", "a", "b", "c"], np.zeros((2, 1)))
    splits = {"t1": "train", "t2": "train", "a": "test_trial", "b": "test_trial", "c": "test_both"}
    assert list(protocol.Motion(frames, splits).at_most(1).frames) == ["t1", "t2", "a", "c"]


def test_null_models_of_known_cycles(protocol, null_models, motion):
    found = {
        name: score(protocol, forecast, motion) for name, forecast in null_models.nulls(motion, "second half").items()
    }
    assert found["mean gait cycle, aligned"]["test_trial"] < 0.005
    assert found["mean gait cycle + own offset"]["test_subject"] < 0.01
    assert found["mean gait cycle, aligned"]["test_subject"] == pytest.approx(
        4 / motion.scale**2, rel=0.2
    )  # the offset
    assert found["mean gait cycle with own offset, any tempo"]["test_activity"] < 0.05
    assert found["own cycle repeated"]["test_trial"] < 1e-9
    assert found["own cycle repeated"]["test_activity"] == found["hold last frame"]["test_activity"]  # too short
    assert found["linear, 2nd order"]["test_trial"] < 1e-3
    assert found["linear, 2nd order, own deviations"]["test_subject"] < 0.2
    assert found["training mean"]["test_trial"] == pytest.approx(1, abs=0.1)
    assert found["analogue"]["test_trial"] < 0.1


def test_null_models_of_the_first_frame_know_no_more(protocol, null_models, motion):
    found = null_models.nulls(motion, "first frame")
    assert not any("own" in name for name in found)
    assert score(protocol, found["mean gait cycle, aligned"], motion, "first frame")["test_trial"] < 0.01


def test_cycle_has_the_period_of_training(null_models, motion):
    cycle = null_models.GaitCycle.fit(motion.train)
    assert cycle.period == pytest.approx(34)
    phase, period = cycle.place(gait(60, phase=0.3), np.array([30.0, 34.0]))
    other, _ = cycle.place(gait(60, phase=0.55), np.array([34.0]))
    assert period == 34
    assert (other - phase) % 1 == pytest.approx(0.25, abs=0.01)
    np.testing.assert_allclose(
        cycle.fitted_to(gait(50, period=24, offset=3.0)), gait(50, period=24, offset=3.0), atol=0.1
    )


def test_recursions_that_explode_are_stopped(null_models):
    growing = [np.exp(0.5 * np.arange(30.0))[:, None]]
    recursion = null_models.LinearRecursion.fit(growing, order=1, penalty=0.0, scale=1.0)
    assert np.isfinite(recursion.forecast(growing[0], 100)).all()
    np.testing.assert_allclose(recursion.forecast(np.array([[2.0]]), 3), 2 * np.exp([[0.5], [1.0], [1.5]]), rtol=1e-6)


def test_benchmark_runs_in_short(run, tmp_path, data_folder):
    output = run(
        str(BENCHMARKS / "motion_capture.py"),
        *("--quick", "--sparsities", "none", "--output", "out"),
        PERTURBFLOW_DATA=str(data_folder),
    )
    if not (data_folder / "mocap").is_dir():
        assert "mocap.cs.cmu.edu" in output
        return
    assert "| angles | mean gait cycle, aligned |" in output
    assert "| angles | 2 | none |" in output
    assert len(list((tmp_path / "out/motion_capture_quick").glob("*.json"))) == 1


def test_files_that_are_missing_are_named(run, tmp_path):
    output = run(str(BENCHMARKS / "motion_capture.py"), "--quick", PERTURBFLOW_DATA=str(tmp_path))
    assert "mocap.cs.cmu.edu" in output
