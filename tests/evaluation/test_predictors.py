from __future__ import annotations

import numpy as np
import pytest

from perturbflow.baselines import AdditiveHurdle, ControlCells, MeanEffect
from perturbflow.evaluation import Condition
from perturbflow.evaluation._predictors import Recognition, asked
from perturbflow.flow import CellData
from perturbflow.metrics._samples import Sample, Space

CONTROLS = np.random.default_rng(0).random((5, 3)).astype(np.float32)
CONDITION = Condition(
    labels={"perturbation": "A"},
    perturbation=np.ones(1, dtype=np.float32),
    covariates=np.zeros(0, dtype=np.int64),
    rows=np.arange(2),
    control_rows=np.arange(2),
)


@pytest.fixture
def cells():
    values = np.random.default_rng(1).poisson(2.0, (40, 3)).astype(np.float32)
    return CellData(np.log1p(values), np.repeat([[0.0], [1.0]], 20, axis=0), np.zeros((40, 0), dtype=int))


def counted(sampler):
    """The sampler, with the number of its calls."""
    sample, sampler.calls = sampler.sample, 0

    def once_more(*args, **kwargs):
        sampler.calls += 1
        return sample(*args, **kwargs)

    sampler.sample = once_more
    return sampler


def predicted(sampler):
    draws = asked("model", sampler).predict(CONDITION, CONTROLS, rng=np.random.default_rng(0))
    assert draws is not None
    return draws


def test_the_floor_is_the_controls_and_no_copy(cells):
    draws = predicted(ControlCells().fit(cells))
    assert draws[0] is CONTROLS
    assert draws[1] is CONTROLS


@pytest.mark.parametrize(("kind", "calls"), [(MeanEffect, 1), (AdditiveHurdle, 2)])
def test_samplers_are_asked_as_often_as_they_have_something_to_say(kind, calls, cells):
    sampler = counted(kind().fit(cells))
    draws = predicted(sampler)
    assert sampler.calls == calls
    assert draws[1] is not None
    assert (draws[0] is draws[1]) == (calls == 1)
    assert draws[0].shape == CONTROLS.shape


def test_a_baseline_of_ones_own_may_have_chance(cells):
    class Noisy(ControlCells):
        def sample(self, controls, perturbation, covariates, *, rng):
            return controls + rng.random(controls.shape, dtype=np.float32)

    draws = predicted(Noisy().fit(cells))
    assert draws[0] is not CONTROLS
    assert not np.array_equal(*draws)


def test_what_is_no_prediction_is_refused():
    class Broken:
        def sample(self, controls, perturbation, covariates, *, rng):
            return controls[:, :2]

    with pytest.raises(ValueError, match="Expected 'model' to return at least 2 cells of 3 genes"):
        predicted(Broken())


@pytest.fixture
def controls():
    return Sample(np.random.default_rng(0).random((6, 3)), Space(np.zeros(3)))


def test_equal_predictions_are_one_sample(controls):
    cells = controls.cells + 1.0
    found = Recognition(controls).samples(
        {"floor": (controls.cells.copy(), None), "one": (cells, cells.copy()), "two": (cells.copy(), None)}
    )
    assert found["floor"][0] is controls
    assert found["one"][0] is found["one"][1] is found["two"][0]
    assert found["two"][1] is None


@pytest.mark.parametrize("change", ["value", "shape", "type"])
def test_other_predictions_are_not(controls, change):
    other = controls.cells.copy()
    if change == "value":
        other[-1, -1] += 1.0
    other = {"value": other, "shape": other[:4], "type": other.astype(np.float32)}[change]
    assert Recognition(controls).samples({"model": (other, None)})["model"][0] is not controls


def test_what_a_model_predicts_for_all_conditions_is_kept_until_it_changes(controls):
    recognition = Recognition(controls)
    constant, changing = controls.cells + 1.0, [controls.cells + k for k in (2.0, 3.0, 2.0)]
    found = [recognition.samples({"constant": (constant.copy(), None), "changing": (one, None)}) for one in changing]
    assert found[0]["constant"][0] is found[2]["constant"][0]
    assert found[0]["changing"][0] is not found[2]["changing"][0]
