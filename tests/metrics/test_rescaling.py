from __future__ import annotations

import numpy as np
import pytest

from perturbflow.metrics import challenge_score

PDS, ERROR, CHANGE = "pds_cosine", "expr_mse_unbiased_capped_norm", "de_wilcoxon_lfc_nmae"
DIRECTIONS = ["de_wilcoxon_direction_fidelity_yield_raw", "de_wilcoxon_direction_reach_raw"]
METRICS = [PDS, ERROR, *DIRECTIONS, "de_wilcoxon_sig_jaccard", CHANGE]
LOWER_IS_BETTER = {ERROR, CHANGE}


def ends():
    return {m: 1.0 if m in LOWER_IS_BETTER else 0.25 for m in METRICS}, {
        m: 0.25 if m in LOWER_IS_BETTER else 0.75 for m in METRICS
    }


def score(metric, value, *, baseline=None, replicate=None):
    """Score of one metric, where the others have the value of the baseline."""
    baselines, replicates = ends()
    baselines[metric] = baselines[metric] if baseline is None else baseline
    replicates[metric] = replicates[metric] if replicate is None else replicate
    return challenge_score(baselines | {metric: value}, baselines, replicates)[metric]


@pytest.mark.parametrize("metric", METRICS)
def test_baseline_is_zero_and_replicate_one(metric):
    baseline, replicate = (each[metric] for each in ends())
    assert score(metric, baseline) == 0
    assert score(metric, replicate) == 1
    assert score(metric, (baseline + replicate) / 2) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("metric", "value", "expected"),
    [
        pytest.param(PDS, 1.0, 1.5, id="above_a_replicate"),
        pytest.param(PDS, 0.0, -0.5, id="below_the_baseline"),
        pytest.param(PDS, np.nan, -0.5, id="no_share"),
        pytest.param(ERROR, 3.0, 0.0, id="worse_than_no_effect"),
        pytest.param(ERROR, 0.0, 1.0, id="better_than_a_replicate"),
        pytest.param(ERROR, np.nan, 0.0, id="no_error"),
        pytest.param(CHANGE, 4.0, -4.0, id="large_error"),
        pytest.param(CHANGE, 1e9, -6.0, id="huge_error"),
        pytest.param(CHANGE, 0.0, 4 / 3, id="no_error_at_all"),
        pytest.param(CHANGE, np.nan, -6.0, id="no_change"),
    ],
)
def test_bounds(metric, value, expected):
    assert score(metric, value) == pytest.approx(expected)


@pytest.mark.parametrize(("baseline", "replicate"), [(0.5, 0.5), (0.6, 0.5), (np.nan, 0.5), (0.5, np.inf)])
def test_no_scale_without_a_better_replicate(baseline, replicate):
    assert np.isnan(score(PDS, 0.7, baseline=baseline, replicate=replicate))


def test_scores_are_averaged():
    baselines, replicates = ends()
    assert challenge_score(replicates, baselines, replicates) == {**dict.fromkeys(METRICS, 1.0), "mean": 1.0}
    values = baselines | {PDS: 0.5}
    assert challenge_score(values, baselines, replicates)["mean"] == pytest.approx(0.5 / 6)
    undefined = challenge_score(values, baselines | {PDS: 1.0}, replicates)
    assert np.isnan(undefined["mean"])
    assert undefined[ERROR] == 0


def test_bad_input():
    baselines, replicates = ends()
    with pytest.raises(ValueError, match=r"in `values`, found none of \['pds_cosine'\]"):
        challenge_score({m: 0.0 for m in METRICS if m != PDS}, baselines, replicates)
