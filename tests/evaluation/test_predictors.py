from __future__ import annotations

import numpy as np
import pytest

from perturbflow.baselines import AdditiveHurdle, ControlCells, MeanEffect
from perturbflow.evaluation import Condition
from perturbflow.evaluation._predictors import asked
from perturbflow.flow import CellData

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
