from __future__ import annotations

import pytest

from perturbflow.train._presets import PRESETS, resolve


def test_the_paper_s_recipe_is_whole():
    options, settings = resolve("primeflow", {})
    assert options["network"] == "unet"
    assert options["parametrisation"] == "velocity"
    assert options["source"] == "noise"
    assert options["method"] == "dopri5"
    assert not options["stratified"]
    assert (settings.condition_dropout, settings.part_dropout) == (0.2, 0.0)
    assert settings.batch_size >= 200  # of all devices and accumulated steps together


@pytest.mark.parametrize("preset", sorted(set(PRESETS) - {"prior"}))  # which has none
def test_own_choices_take_the_place_of_the_preset_s(preset):
    options, settings = resolve(preset, {"parametrisation": "gaussian", "max_steps": 7, "seed": 5, "width": None})
    assert options["parametrisation"] == "gaussian"
    assert (settings.max_steps, settings.seed) == (7, 5)
    assert options.get("width") == PRESETS[preset].options.get("width")


def test_sizes_of_one_network_are_not_those_of_another():
    options, _ = resolve("primeflow", {"network": "mlp"})
    assert "width" not in options
    assert "n_blocks" not in options
    options, _ = resolve("primeflow", {"network": "mlp", "width": 12})
    assert options["width"] == 12


def test_unknown_preset_is_an_error():
    with pytest.raises(ValueError, match=r"`preset` to be one of \['default', 'primeflow', 'prior'\], found 'paper'"):
        resolve("paper", {})
