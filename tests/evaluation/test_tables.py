"""Summaries, intervals and verdicts of scores whose answer is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from perturbflow.evaluation import summary_table
from perturbflow.evaluation._tables import (
    BASELINE_BETTER,
    MODEL_BETTER,
    NOT_MEASURABLE,
    TIE,
    best_of,
    harm_rows,
    interval,
    resampled_means,
    verdict_rows,
)
from perturbflow.metrics._clouds import CloudScores


def rng():
    return np.random.default_rng(0)


def test_resampled_means_have_the_standard_error_of_a_mean():
    values = rng().normal(size=(60, 2))
    draws = resampled_means(values, 4000, rng())
    assert draws.shape == (4000, 2)
    np.testing.assert_allclose(draws.mean(axis=0), values.mean(axis=0), atol=0.01)
    np.testing.assert_allclose(draws.std(axis=0), values.std(axis=0) / np.sqrt(60), rtol=0.05)


def test_rows_are_resampled_together():
    values = rng().normal(size=(20, 1))
    draws = resampled_means(np.hstack([values, values + 1]), 50, rng())
    np.testing.assert_allclose(draws[:, 1] - draws[:, 0], 1.0)


def test_missing_values_are_left_out():
    values = np.array([[1.0, np.nan], [3.0, np.nan], [np.nan, np.nan]])
    draws = resampled_means(values, 200, rng())
    assert np.isnan(draws[:, 1]).all()
    known = draws[:, 0][~np.isnan(draws[:, 0])]
    assert known.min() == 1.0
    assert known.max() == 3.0
    low, high = interval(draws)
    assert low[0] == 1.0
    assert high[0] == 3.0
    assert np.isnan([low[1], high[1]]).all()


def test_the_interval_covers_the_mean_as_often_as_it_says():
    covered = []
    for seed in range(300):
        generator = np.random.default_rng(seed)
        low, high = interval(resampled_means(generator.normal(size=(40, 1)), 400, generator))
        covered.append(low[0] < 0 < high[0])
    # The percentile bootstrap of 40 values covers about 93.5 %.
    assert 0.89 < np.mean(covered) < 0.98


def test_the_best_has_the_best_mean_of_what_it_has():
    values = np.array([[1.0, 2.0, np.nan], [3.0, 2.0, 1.0]])
    models = ["a", "b", "c"]
    assert best_of(values, models, ["a", "b"], higher_is_better=False) in {"a", "b"}
    assert best_of(values, models, models, higher_is_better=False) == "c"
    assert best_of(values + [0.1, 0, 0], models, models, higher_is_better=True) == "a"
    assert best_of(values, models, [], higher_is_better=True) is None
    assert best_of(values * np.nan, models, models, higher_is_better=True) is None


def scores(**models):
    """A table of two splits; a model is a function of the number of the condition."""
    return pd.DataFrame(
        [
            {"split": split, "perturbation": f"P{i}", "model": name, "metric": metric, "value": value(i), "n_cells": 9}
            for split in ("valid", "test")
            for i in range(12)
            for name, value in models.items()
            for metric in ("energy_distance", "cosine_of_mean_effects")
        ]
    )


def test_differences_are_to_the_best_baseline_and_paired():
    table = scores(
        **{
            "mine": lambda i: i - 1.0,
            "weak": lambda i: i + 2.0,
            "strong": lambda i: float(i),
            "ceiling": lambda i: -9.0,
        }
    )
    summary = summary_table(table, baselines=["weak", "strong"], n_resamples=100, rng=rng())
    summary = summary.set_index(["split", "metric", "model"]).sort_index()
    energy = summary.loc[("test", "energy_distance")]
    assert energy.loc["mine", "best_baseline"] == "strong"
    # Conditions differ by far more than models, but not in their difference.
    assert energy.loc["mine", ["difference", "difference_lower", "difference_upper"]].tolist() == pytest.approx(
        [-1] * 3
    )
    assert energy.loc["weak", "difference"] == pytest.approx(2.0)
    assert np.isnan(energy.loc["strong", "difference"])
    assert np.isnan(energy.loc["ceiling", "difference"])
    cosine = summary.loc[("test", "cosine_of_mean_effects")]
    assert cosine.loc["mine", "best_baseline"] == "weak"  # higher is better there


def test_a_missing_condition_counts_for_nobody_in_a_difference():
    table = scores(mine=lambda i: i - 1.0, strong=lambda i: float(i))
    table.loc[(table["model"] == "mine") & (table["perturbation"] == "P11"), "value"] = np.nan
    summary = summary_table(table, baselines=["strong"], n_resamples=100, rng=rng())
    mine = summary[(summary["model"] == "mine") & (summary["metric"] == "energy_distance")]
    assert (mine["n_conditions"] == 11).all()
    np.testing.assert_allclose(mine["difference"], -1.0)


def test_fractions_are_ratios_of_means_with_intervals():
    table = scores(**{"mine": lambda i: 1.0 + i, "control cells": lambda i: 2.0 + 2 * i, "ceiling": lambda i: 0.0})
    summary = summary_table(table, baselines=["control cells"], n_resamples=100, rng=rng())
    fraction = summary[summary["metric"] == "dynamic_range_fraction"].set_index(["split", "model"])
    assert fraction.loc[("test", "mine"), ["mean", "lower", "upper"]].tolist() == pytest.approx([0.5] * 3)
    assert fraction.loc[("test", "control cells"), "mean"] == 0


def cloud(level, n=50, variance=0.0, seed=0):
    generator = np.random.default_rng(seed)
    per_cell = level / 2 + generator.normal(0, 0.01, n)
    return CloudScores(2 * per_cell.mean(), 0.0, 0.0, per_cell, variance)


@pytest.mark.parametrize(
    ("mine", "p_value", "verdict", "finding"),
    [
        (cloud(0.5, seed=1), 0.01, MODEL_BETTER, "mine is better than every baseline; the best is strong"),
        (cloud(0.5, seed=1), 0.2, NOT_MEASURABLE, NOT_MEASURABLE),
        (cloud(1.5, seed=1), 0.2, NOT_MEASURABLE, NOT_MEASURABLE),
        (cloud(1.0, seed=1), 0.01, TIE, "no difference could be shown between mine and strong"),
        (cloud(1.5, seed=1), 0.01, BASELINE_BETTER, "strong is better than mine"),
        (cloud(0.5, variance=1.0, seed=1), 0.01, TIE, "no difference could be shown between mine and strong"),
        (cloud(1.5, variance=1.0, seed=1), 0.01, TIE, "no difference could be shown between mine and strong"),
    ],
    ids=["better", "no effect", "no effect, worse", "equal", "worse", "better by luck of the draw", "worse by luck"],
)
def test_verdicts(mine, p_value, verdict, finding):
    rows = verdict_rows(
        {"perturbation": "A"},
        {"mine": mine, "weak": cloud(2.0, seed=2), "strong": cloud(1.0, seed=3)},
        baselines=["weak", "strong"],
        p_value=p_value,
        cells_needed=12.0,
        n_resamples=200,
        rng=rng(),
    )
    assert len(rows) == 1
    assert (rows[0]["verdict"], rows[0]["finding"]) == (verdict, finding)
    assert rows[0]["best_baseline"] == "strong"
    assert rows[0]["lower"] < rows[0]["difference"] < rows[0]["upper"]
    assert (rows[0]["n_cells"], rows[0]["n_cells_needed"]) == (50, 12.0)


@pytest.mark.parametrize(
    ("baselines", "best", "finding"),
    [
        ({"control cells": 1.0}, "control cells", "no effect (control cells) is better than mine"),
        ({"control cells": 1.0, "weak": 2.0}, "control cells", "no effect (control cells) is better than mine"),
        (
            {"control cells": 1.0, "strong": 0.5},
            "strong",
            "strong and no effect (control cells) are better than mine",
        ),
        ({"control cells": 3.0, "strong": 0.5}, "strong", "strong is better than mine"),
        ({"control cells": 2.0}, "control cells", "no difference could be shown between mine and no effect (control cells)"),
        ({"control cells": 3.0}, "control cells", "mine is better than every baseline; the best is no effect (control cells)"),
    ],
)  # fmt: skip
def test_no_effect_is_called_so(baselines, best, finding):
    scores = {"mine": cloud(2.0)} | {name: cloud(level, seed=1) for name, level in baselines.items()}
    options: dict[str, Any] = {"p_value": 0.01, "cells_needed": 1.0, "n_resamples": 200, "rng": rng()}
    (row,) = verdict_rows({}, scores, baselines=list(baselines), **options)
    assert (row["best_baseline"], row["finding"]) == (best, finding)
    assert (row["verdict"] == BASELINE_BETTER) == (" better than mine" in finding)


def test_what_is_said_of_no_effect_changes_no_number():
    levels = {"mine": 2.0, "yours": 1.5, "control cells": 1.0, "strong": 0.5}
    scores = {name: cloud(level, variance=0.01, seed=k) for k, (name, level) in enumerate(levels.items())}
    options: dict[str, Any] = {"p_value": 0.01, "cells_needed": 1.0, "n_resamples": 50}
    both = verdict_rows({}, scores, baselines=["control cells", "strong"], **options, rng=rng())
    del scores["control cells"]
    alone = verdict_rows({}, scores, baselines=["strong"], **options, rng=rng())
    assert "no effect" in both[0]["finding"]
    for name in ("difference", "lower", "upper"):
        assert [row[name] for row in both] == [row[name] for row in alone]


def test_whether_a_model_is_worse_than_no_effect_and_than_its_prior():
    levels = {"mine": 2.0, "yours": 1.0, "control cells": 1.0, "shifted controls": 3.0}
    scores = {name: cloud(level) for name, level in levels.items()}
    options: dict[str, Any] = {"p_value": 0.01, "cells_needed": 1.0, "n_resamples": 50, "rng": rng()}
    mine, yours = verdict_rows({}, scores, baselines=["control cells", "shifted controls"], **options)
    assert (mine["worse_than_controls"], mine["worse_than_prior"]) == (1, 0)
    assert (yours["worse_than_controls"], yours["worse_than_prior"]) == (0, 0)  # the same is not worse
    scores["mine"] = cloud(2.0, variance=1.0)
    uncertain, *_ = verdict_rows({}, scores, baselines=["control cells"], **options)
    assert uncertain["worse_than_controls"] == 0
    assert np.isnan(uncertain["worse_than_prior"])


def test_harm_is_a_share_of_conditions():
    verdicts = pd.DataFrame(
        {"split": "test", "model": "mine", "worse_than_controls": [1.0, 0.0, 0.0, 0.0], "worse_than_prior": np.nan}
    )
    (row,) = harm_rows(verdicts)
    assert (row["metric"], row["mean"], row["n_conditions"]) == ("harm_against_controls", 0.25, 4)
    assert (row["lower"], row["upper"]) == pytest.approx((0.0456, 0.6994), abs=1e-4)  # Wilson's, as in statsmodels
    (none,) = harm_rows(verdicts.iloc[1:])
    assert (none["mean"], none["lower"]) == pytest.approx((0, 0))
    assert none["upper"] > 0.5  # three conditions prove little
    (one,) = harm_rows(verdicts.iloc[:1])
    assert np.isnan([one["lower"], one["upper"]]).all()
    assert harm_rows(pd.DataFrame()) == []


def test_a_single_condition_has_no_interval():
    table = scores(
        **{"mine": lambda i: 1.0 + i, "strong": lambda i: 2.0, "control cells": lambda i: 4.0, "ceiling": lambda i: 0.0}
    )
    one = table[table["perturbation"] == "P3"]
    summary = summary_table(one, baselines=["strong", "control cells"], n_resamples=50, rng=rng())
    assert summary["mean"].notna().all()
    assert summary[["lower", "upper", "difference_lower", "difference_upper"]].isna().all(axis=None)
    assert summary.loc[summary["model"] == "mine", "difference"].notna().any()


def test_without_baselines_there_is_no_verdict():
    options: dict[str, Any] = {"baselines": [], "p_value": 0.0, "cells_needed": 1.0, "n_resamples": 10, "rng": rng()}
    assert verdict_rows({}, {"mine": cloud(1.0)}, **options) == []


def test_the_fraction_of_a_model_without_some_conditions_is_that_of_the_others():
    table = scores(**{"mine": lambda i: 1.0 + i, "control cells": lambda i: 2.0 + 2 * i, "ceiling": lambda i: 0.0})
    table = table[(table["model"] != "mine") | (table["perturbation"] != "P3")]
    summary = summary_table(table, baselines=["control cells"], n_resamples=50, rng=rng())
    fraction = summary[summary["metric"] == "dynamic_range_fraction"].set_index(["split", "model"])
    assert fraction.loc[("test", "mine"), "mean"] == pytest.approx(0.5)
    assert fraction.loc[("test", "mine"), "n_conditions"] == 11
