from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from perturbflow.evaluation._tables import NAMES, with_challenge_scores
from perturbflow.metrics import METRICS, SUITES, challenge_score


def summary(**means):
    """Means of every model under the six metrics."""
    rows = [
        {"split": "test", "model": model, "metric": metric, "mean": mean, "n_conditions": 7, "lower": 0.0}
        for model, by_metric in means.items()
        for metric, mean in by_metric.items()
    ]
    return pd.DataFrame(rows)


def ends():
    worse = {name: 0.2 if METRICS[name].higher_is_better else 1.0 for name in NAMES}
    return worse, {name: 0.8 if METRICS[name].higher_is_better else 0.1 for name in NAMES}


def test_the_suite_has_the_metrics_of_the_challenge():
    assert set(NAMES) == set(SUITES["vcc2026"])


def test_scores_are_those_of_the_challenge():
    baseline, ceiling = ends()
    half = {name: (baseline[name] + ceiling[name]) / 2 for name in NAMES}
    table = summary(mine=half, **{"mean effect": baseline, "ceiling": ceiling})
    found = with_challenge_scores(table)
    scores = found[found["metric"] == "challenge_score"].set_index("model")
    assert scores["mean"].to_dict() == pytest.approx({"mine": 0.5, "mean effect": 0.0})
    assert (scores["n_conditions"] == 7).all()
    pd.testing.assert_frame_equal(found.iloc[: len(table)], table)
    named = [{NAMES[name]: value for name, value in each.items()} for each in (half, baseline, ceiling)]
    assert scores.loc["mine", "mean"] == pytest.approx(challenge_score(*named)["mean"])


def test_errors_need_no_size_of_effects():
    baseline, ceiling = ends()
    mine = dict(baseline)
    for factor in (1.0, 30.0):
        for each in (mine, baseline, ceiling):
            each["unbiased_mse_capped"] *= factor
        found = with_challenge_scores(summary(mine=mine, **{"mean effect": baseline, "ceiling": ceiling}))
        assert found.iloc[-2]["mean"] == pytest.approx(0.0)


@pytest.mark.parametrize("missing", ["mean effect", "ceiling", "direction_reach"])
def test_no_score_without_all_that_it_takes(missing):
    baseline, ceiling = ends()
    table = summary(mine=baseline, **{"mean effect": baseline, "ceiling": ceiling})
    table = table[(table["model"] != missing) & (table["metric"] != missing)]
    assert "challenge_score" not in with_challenge_scores(table)["metric"].to_numpy()


def test_an_undefined_end_leaves_the_score_undefined():
    baseline, ceiling = ends()
    ceiling["direction_reach"] = np.nan
    found = with_challenge_scores(summary(mine=baseline, **{"mean effect": baseline, "ceiling": ceiling}))
    assert found[found["metric"] == "challenge_score"]["mean"].isna().all()
