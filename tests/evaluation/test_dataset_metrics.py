from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from perturbflow.evaluation._tables import dataset_rows
from perturbflow.metrics import METRICS, Strengths

NAMES = ["spearman_of_numbers_of_significant_genes", "pearson_of_energy_distances"]
WANTED = [METRICS[name] for name in [*NAMES, "energy_distance"]]


def strengths(predicted, observed):
    """Numbers of genes and distances of every condition (P, 2, 2); the distances are those numbers, cubed."""
    numbers = np.stack([predicted, observed], axis=-1)
    return np.stack([numbers, numbers**3], axis=1)


@pytest.fixture
def cells():
    rng = np.random.default_rng(0)
    observed = rng.gamma(2.0, size=30)
    return {
        "mine": strengths(observed + 0.2 * rng.normal(size=30), observed),
        "control cells": strengths(np.zeros(30), observed),
        "noise": strengths(rng.gamma(2.0, size=30), observed),
        "ceiling": strengths(observed, observed),
        "interpolated duplicate": np.full((30, 2, 2), np.nan),
    }


def summary(by_model, **changes):
    options: dict[str, Any] = {
        "baselines": ["control cells", "noise"],
        "n_resamples": 400,
        "rng": np.random.default_rng(1),
    } | changes
    return pd.DataFrame(dataset_rows({"test": by_model}, WANTED, **options)).set_index(["metric", "model"])


def test_values_are_those_of_scipy(cells):
    found = summary(cells)
    assert set(found.index.get_level_values("metric")) == set(NAMES)
    for name, reference, column in zip(NAMES, (stats.spearmanr, stats.pearsonr), (0, 1), strict=True):
        for model in ("mine", "noise"):
            predicted, observed = cells[model][:, column].T
            assert found.loc[(name, model), "mean"] == pytest.approx(reference(predicted, observed)[0])
        assert found.loc[(name, "ceiling"), "mean"] == pytest.approx(1)
        assert found.loc[(name, "control cells"), "mean"] == 0  # no order
    assert "interpolated duplicate" not in found.index.get_level_values("model")
    assert (found["n_conditions"] == 30).all()


def test_intervals_cover_the_correlation_as_often_as_they_say():
    covered = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        predicted, observed = rng.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], size=60).T
        one = np.stack([np.zeros((60, 2)), np.stack([predicted, observed], axis=-1)], axis=1)
        row = summary({"mine": one}, n_resamples=200, rng=rng).loc[("pearson_of_energy_distances", "mine")]
        covered.append(row["lower"] < 0.6 < row["upper"])
    assert 0.88 < np.mean(covered) < 0.99


def test_differences_are_paired_with_the_best_baseline(cells):
    found = summary(cells)
    for name in NAMES:
        mine, noise, floor, ceiling = (
            found.loc[(name, model)] for model in ("mine", "noise", "control cells", "ceiling")
        )
        best = noise if noise["mean"] > 0 else floor
        assert mine["best_baseline"] == best.name[1]
        assert mine["difference"] == pytest.approx(mine["mean"] - best["mean"])
        assert mine["difference_lower"] < mine["difference"] < mine["difference_upper"]
        assert ceiling["best_baseline"] == best["best_baseline"] == ""
    same = summary({"mine": cells["noise"], "noise": cells["noise"]})
    rows = same.xs("mine", level="model")
    assert (rows[["difference", "difference_lower", "difference_upper"]] == 0).all(axis=None)


def test_a_condition_that_a_model_lacks_counts_for_nobody_in_a_difference(cells):
    lacking = {name: values.copy() for name, values in cells.items() if name in {"mine", "noise"}}
    lacking["mine"][:4] = np.nan
    found, fewer = summary(lacking), summary({name: values[4:] for name, values in lacking.items()})
    for name in NAMES:
        assert found.loc[(name, "mine"), "n_conditions"] == 26
        assert found.loc[(name, "noise"), "n_conditions"] == 30
        assert found.loc[(name, "mine"), "mean"] == pytest.approx(fewer.loc[(name, "mine"), "mean"])
        assert found.loc[(name, "mine"), "difference"] == pytest.approx(fewer.loc[(name, "mine"), "difference"])
        assert found.loc[(name, "mine"), "lower"] < found.loc[(name, "mine"), "mean"]


def test_nothing_is_made_where_no_such_metric_is_wanted(cells):
    rows = dataset_rows({"test": cells}, [METRICS["mmd"]], baselines=[], n_resamples=10, rng=np.random.default_rng(0))
    assert rows == []


def test_one_condition_has_no_correlation(cells):
    found = summary({name: values[:1] for name, values in cells.items()})
    assert found["mean"].isna().all()


@pytest.mark.parametrize("name", NAMES)
def test_metrics_take_several_choices_of_conditions(name, cells):
    rng = np.random.default_rng(2)
    drawn = rng.integers(30, size=(3, 2, 30))
    both = cells["mine"][drawn]
    predicted, observed = (Strengths(both[..., 0, side], both[..., 1, side]) for side in range(2))
    found = METRICS[name].function(predicted, observed)
    assert found.shape == (3, 2)
    one = [Strengths(*cells["mine"][drawn[2, 1], :, side].T) for side in range(2)]
    assert found[2, 1] == pytest.approx(METRICS[name].function(*one))
