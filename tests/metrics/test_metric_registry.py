from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from perturbflow import metrics
from perturbflow.metrics import (
    METRICS,
    SUITES,
    Metric,
    Moments,
    Panel,
    Strengths,
    WilcoxonAgainst,
    _registry,
    energy_distance,
    register,
)


def test_entries_say_what_they_are(subtests):
    for name in METRICS:
        with subtests.test(name):
            metric = METRICS[name]
            assert metric.name == name
            assert metric.description
            function = metric.function.func if isinstance(metric.function, partial) else metric.function
            # What calls functions with parts of a panel has no name of its own.
            if not function.__name__.startswith(("_", "<")):
                assert getattr(metrics, function.__name__) is function
                text = " ".join(function.__doc__.split()).lower()
                for word in ("direction", "range", "weakness"):
                    assert f"*{word}*" in text or "with its direction, range and weakness" in text


def test_the_documentation_has_them_all():
    page = (Path(__file__).parents[2] / "docs/evaluation.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    for name, metric in METRICS.items():
        direction = "higher" if metric.higher_is_better else "lower"
        expected = (
            f"| `{name}` | {metric.description} | {metric.best:g}, {direction} is better | {metric.source or '–'} |"
        )
        assert expected in rows
    for suite in SUITES:
        assert f"`{suite}`" in page


def test_suites_name_metrics(subtests):
    for suite in SUITES:
        with subtests.test(suite):
            assert set(SUITES[suite]) <= set(METRICS)
            assert len(set(SUITES[suite])) == len(SUITES[suite])


N_CONDITIONS, N_GENES = 5, 60


def simulated(seed, *, effect=1.0, n=150):
    """Cells of conditions of which each changes some genes up or down, more than the one before, and their controls."""
    rng = np.random.default_rng(seed)
    level = np.linspace(0.5, 2.5, N_GENES)
    conditions = []
    for k in range(N_CONDITIONS):
        signs = np.random.default_rng([7, k]).choice(
            [-0.6, 0.0, 1.0], N_GENES, p=[0.1 + 0.05 * k, 0.7 - 0.1 * k, 0.2 + 0.05 * k]
        )
        rate = level * np.exp(effect * signs)
        conditions.append(np.log1p(rng.poisson(rate, (n, N_GENES)) * rng.choice([0.7, 1.3], (n, 1))))
    return conditions, np.log1p(rng.poisson(level, (n, N_GENES)) * rng.choice([0.7, 1.3], (n, 1)))


def mean_score(metric, predicted, observed, control):
    """The mean of a metric over conditions, called as its kind says."""
    if metric.kind in {"distribution", "components"}:
        return np.mean([metric.function(x, y) for x, y in zip(predicted, observed, strict=True)])
    if metric.kind == "response":
        return np.mean([metric.function(x, y, control) for x, y in zip(predicted, observed, strict=True)])
    moments = [[Moments.of(cells) for cells in side] for side in (predicted, observed)]
    if metric.kind == "effect":
        return np.mean([metric.function(x, y, Moments.of(control)) for x, y in zip(*moments, strict=True)])
    if metric.kind == "panel":
        panel = Panel(moments[0], moments[1], Moments.of(control), components=(predicted, observed))
        return metric.function(panel).mean()
    tests = [[WilcoxonAgainst(control)(cells) for cells in side] for side in (predicted, observed)]
    if metric.kind == "differential":
        return np.mean([metric.function(x, y) for x, y in zip(*tests, strict=True)])
    counts = [np.array([one.significant().sum() for one in side], dtype=float) for side in tests]
    distances = [np.array([energy_distance(cells, control) for cells in side]) for side in (predicted, observed)]
    return metric.function(*(Strengths(n, energy) for n, energy in zip(counts, distances, strict=True)))


def test_best_value_and_direction(subtests):
    (observed, control), (predicted, _) = simulated(0), simulated(1)
    for name, metric in METRICS.items():
        with subtests.test(name):
            good = mean_score(metric, predicted, observed, control)
            # The effects of other conditions, in the reverse order, so that strengths are wrong as well.
            bad = mean_score(metric, predicted[::-1], observed, control)
            assert (good > bad) == metric.higher_is_better
            assert abs(good - metric.best) < abs(bad - metric.best)


@pytest.mark.parametrize("name", ["weighted_mse", "weighted_r2"])
@pytest.mark.parametrize("n", [1, 2])
def test_two_observed_cells_are_enough_for_weights_and_one_is_not(name, n):
    rng = np.random.default_rng(0)
    control, *predicted = (Moments.of(rng.normal(size=(9, 6))) for _ in range(4))
    observed = [Moments.of(rng.normal(size=(n, 6))) for _ in range(3)]
    found = METRICS[name].function(Panel(predicted, observed, control))
    assert (np.isnan(found) == (n == 1)).all()


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
    with pytest.raises(ValueError, match=r"Expected `kind` to be one of \[.*'panel', 'response'\], found 'x'"):
        Metric("mine", max, kind="x", higher_is_better=True, best=1.0, description="mine")  # type: ignore[arg-type]
