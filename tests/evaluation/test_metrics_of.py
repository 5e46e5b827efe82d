from __future__ import annotations

import numpy as np
import pytest

from perturbflow.evaluation import score_cells
from perturbflow.metrics import METRICS, SUITES

PERTPY = {"edistance": "energy_distance", "mse": "mse_of_mean_effects", "mean_absolute_error": "mae_of_mean_effects"}
CELLS = np.random.default_rng(0).random((12, 4))


def metrics_of(names):
    """Metrics that an evaluation has under these names."""
    return list(dict.fromkeys(score_cells({}, {"A": CELLS + 1, "B": CELLS + 2}, CELLS, metrics=names)["metric"]))


def test_suites_and_names():
    assert sorted(metrics_of("vcc")) == sorted(SUITES["vcc"])
    assert metrics_of(["mmd", "energy_distance"]) == ["mmd", "energy_distance"]


def test_names_of_pertpy_are_those_of_the_same_distances():
    assert metrics_of(["edistance", "mse"]) == ["energy_distance", "mse_of_mean_effects"]
    rng = np.random.default_rng(0)
    x, y, control = (rng.gamma(1.0, size=(n, 6)) for n in (20, 30, 40))
    error = x.mean(axis=0) - y.mean(axis=0)
    assert METRICS[PERTPY["mse"]].function(x, y, control) == pytest.approx(np.linalg.norm(error) ** 2 / 6)
    assert METRICS[PERTPY["mean_absolute_error"]].function(x, y, control) == pytest.approx(abs(error).sum() / 6)


def test_other_distances_of_pertpy_are_refused_with_the_nearest_metric():
    names = (  # all metrics of pertpy.tl.Distance, and two that it had before
        "edistance euclidean root_mean_squared_error mse mean_absolute_error pearson_distance spearman_distance "
        "kendalltau_distance cosine_distance r2_distance mmd wasserstein sym_kldiv t_test ks_test nb_ll classifier_proba "
        "classifier_cp mean_var_distribution mahalanobis pseudobulk mean_pairwise"
    ).split()
    understood = [name for name in names if name in {*METRICS, *PERTPY}]
    assert understood == ["edistance", "mse", "mean_absolute_error", "mmd"]
    for name in set(names) - set(understood):
        with pytest.raises(ValueError, match=rf"'(\w+)' is nearest to '{name}'") as error:
            metrics_of(["mmd", name])
        assert str(error.value).split("'")[1] in METRICS


@pytest.mark.parametrize("names", [["edistance", "energy_distance"], ["hausdorff"], []])
def test_repeated_and_unknown_names_are_refused(names):
    with pytest.raises(ValueError, match="Expected `metrics` to be different names"):
        metrics_of(names)
