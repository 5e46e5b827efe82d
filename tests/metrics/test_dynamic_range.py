from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from perturbflow.evaluation import summary_table
from perturbflow.metrics import dynamic_range_fraction


def pooled(models, controls, ceilings):
    """The fraction of all conditions that the summary of an evaluation has."""
    names = {"mine": models, "control cells": controls, "ceiling": ceilings}
    rows = [
        ("test", str(place), model, "energy_distance", value)
        for model, values in names.items()
        for place, value in enumerate(values)
    ]
    scores = pd.DataFrame(rows, columns=["split", "perturbation", "model", "metric", "value"])
    found = summary_table(scores, baselines=["control cells"], n_resamples=1, rng=np.random.default_rng(0))
    return found[found["metric"] == "dynamic_range_fraction"].set_index("model")["mean"]["mine"]


@pytest.mark.parametrize(
    ("model", "fraction"),
    [
        pytest.param(2.0, 0.0, id="controls"),
        pytest.param(0.5, 1.0, id="ceiling"),
        pytest.param(1.25, 0.5, id="middle"),
        pytest.param(3.5, -1.0, id="worse_than_controls"),
        pytest.param(0.2, 1.2, id="better_than_ceiling"),
    ],
)
def test_fraction(model, fraction):
    assert dynamic_range_fraction(model, 2.0, 0.5) == pytest.approx(fraction)


@pytest.mark.parametrize(
    ("model", "control", "ceiling"),
    [(0.1, 0.2, 0.2), (0.1, 0.1, 0.2), (math.nan, 1.0, 0.0), (0.0, math.nan, 0.0), (0.0, 1.0, math.nan)],
)
def test_unmeasurable_effect_has_no_fraction(model, control, ceiling):
    assert math.isnan(dynamic_range_fraction(model, control, ceiling))


def test_pooled_fraction_weights_conditions_by_their_effect():
    controls, ceilings = np.array([4.0, 1.0, 0.5]), np.array([0.0, 0.2, 0.1])
    models = np.array([1.0, 0.5, 0.6])
    single = np.array([dynamic_range_fraction(*scores) for scores in zip(models, controls, ceilings, strict=True)])
    weights = (controls - ceilings) / (controls - ceilings).sum()
    assert pooled(models, controls, ceilings) == pytest.approx(weights @ single)


def test_pooled_fraction_survives_an_unmeasurable_condition():
    # The mean of the single fractions would be -45 here.
    assert pooled([0.1, 0.1], [1.0, 0.001], [0.0, 0.0]) == pytest.approx(1 - 0.2 / 1.001)
    assert pooled([0.1, 0.1], [1.0, -0.01], [0.0, 0.01]) == pytest.approx(0.79 / 0.98)
    assert math.isnan(pooled([0.1], [0.0], [0.0]))
