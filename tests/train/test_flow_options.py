from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from perturbflow.flow import FlowConfig, TrainingSettings
from perturbflow.models import FlowModelKwargs, FlowPlanKwargs
from perturbflow.train import PRESETS, FlowOptions


def test_the_paper_s_recipe_is_whole():
    options = FlowOptions.of("primeflow")
    assert options.model["network"] == "unet"
    assert options.model["parametrisation"] == "velocity"
    assert options.model["source"] == "noise"
    assert options.model["method"] == "dopri5"
    assert not options.model["stratified"]
    assert (options.training.condition_dropout, options.training.part_dropout) == (0.2, 0.0)
    assert options.training.batch_size >= 200  # of all devices and accumulated steps together


def test_the_default_is_that_of_the_configuration_and_of_training():
    options = FlowOptions.of()
    assert options.training == TrainingSettings()
    assert FlowConfig(1, 1, (), **options.model) == FlowConfig(1, 1, ())
    assert (options.guidance, options.calibrate) == ("auto", True)


@pytest.mark.parametrize("preset", sorted(set(PRESETS) - {"prior"}))  # which has none
def test_own_choices_take_the_place_of_the_preset_s(preset):
    options = FlowOptions.of(
        preset,
        model_kwargs={"parametrisation": "gaussian", "guidance": 2.0},
        plan_kwargs={"patience": 3, "calibrate": False},
        max_steps=7,
        seed=5,
    )
    assert options.model["parametrisation"] == "gaussian"
    assert (options.training.max_steps, options.training.seed, options.training.patience) == (7, 5, 3)
    assert options.model.get("width") == PRESETS[preset][0].get("width")
    assert (options.guidance, options.calibrate) == (2.0, False)


def test_sizes_of_one_network_are_not_those_of_another():
    options = FlowOptions.of("primeflow", model_kwargs={"network": "mlp"})
    assert "width" not in options.model
    assert "n_blocks" not in options.model
    options = FlowOptions.of("primeflow", model_kwargs={"network": "mlp", "width": 12})
    assert options.model["width"] == 12


def test_keys_are_those_of_the_configuration_and_of_training():
    """What can be chosen is listed once, and exists; the rest is found by the fit or an argument of its own."""
    of_config = {field.name for field in fields(FlowConfig)}
    of_training = {field.name for field in fields(TrainingSettings)}
    assert of_config - FlowModelKwargs.__annotations__.keys() == {
        *("n_genes", "n_components", "n_categories"),  # of the cells
        *("entry_time", "correction_scale", "stratified", "method", "n_steps"),  # of predictions
    }
    assert FlowModelKwargs.__annotations__.keys() <= of_config
    assert of_training - FlowPlanKwargs.__annotations__.keys() == {"max_steps", "seed", "precision"}
    assert FlowPlanKwargs.__annotations__.keys() - of_training == {"calibrate"}


def test_unknown_preset_is_an_error():
    with pytest.raises(ValueError, match=r"`preset` to be one of \['default', 'primeflow', 'prior'\], found 'paper'"):
        FlowOptions.of("paper")


def test_unknown_keys_are_named_with_their_neighbours():
    wrong: Any = {"patiens": 3, "x": 1}
    with pytest.raises(TypeError, match=r"found \['patiens', 'x'\]. Instead of 'patiens' use 'patience'.$"):
        FlowOptions.of(plan_kwargs=wrong)
