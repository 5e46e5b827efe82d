from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from perturbflow import metrics
from perturbflow.metrics import METRICS, Metric, _registry, register


@pytest.mark.parametrize("name", METRICS)
def test_entries_are_public_and_documented(name):
    metric = METRICS[name]
    assert metric.name == name
    assert getattr(metrics, name) is metric.function
    for word in ("*Direction*", "*Range*", "*Weakness*"):
        assert word in metric.function.__doc__ or name == "rmse_of_mean_effects"


@pytest.mark.parametrize("name", [name for name, metric in METRICS.items() if metric.kind != "rank"])
def test_best_value_and_direction(name):
    metric = METRICS[name]
    rng = np.random.default_rng(0)
    control = rng.gamma(0.5, size=(200, 120))
    shift = rng.gamma(0.5, size=120)
    y, same_law, no_effect = (rng.gamma(0.5, size=(200, 120)) + s for s in (shift, shift, 0.0))

    def call(x):
        return metric.function(x, y, control) if metric.kind == "effect" else metric.function(x, y)

    good, bad = call(same_law), call(no_effect)
    assert (good > bad) == metric.higher_is_better
    assert abs(good - metric.best) < 0.2 * abs(bad - metric.best)


def test_best_rank():
    metric = METRICS["normalised_rank"]
    assert (metric.function(-np.eye(4), higher_is_better=False) == metric.best).all()


def test_register_adds_a_metric(monkeypatch):
    monkeypatch.setattr(_registry, "_METRICS", {})
    metric = Metric("mine", max, kind="distribution", higher_is_better=True, best=1.0, description="mine")
    assert register(metric) is metric
    assert _registry._METRICS == {"mine": metric}
    with pytest.raises(ValueError, match=r"Expected a new metric name, found 'mine', which is one of \['mine'\]"):
        register(metric)


def test_table_and_entries_are_read_only():
    with pytest.raises(TypeError, match="does not support item assignment"):
        METRICS["mine"] = METRICS["mmd"]  # type: ignore[index]
    with pytest.raises(dataclasses.FrozenInstanceError):
        METRICS["mmd"].best = 1.0  # type: ignore[misc]


def test_kind_is_checked():
    with pytest.raises(
        ValueError, match=r"Expected `kind` to be one of \['distribution', 'effect', 'rank'\], found 'x'"
    ):
        Metric("mine", max, kind="x", higher_is_better=True, best=1.0, description="mine")  # type: ignore[arg-type]
