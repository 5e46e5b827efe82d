from __future__ import annotations

import numpy as np
import pytest

from perturbflow.evaluation._metrics import PERTPY, metrics_of
from perturbflow.metrics import METRICS, SUITES


def test_suites_and_names():
    assert metrics_of("vcc") == list(SUITES["vcc"])
    assert metrics_of(["mmd", "energy_distance"]) == ["mmd", "energy_distance"]


def test_names_of_pertpy_are_those_of_the_same_distances():
    assert metrics_of(["edistance", "mse"]) == ["energy_distance", "mse_of_mean_effects"]
    rng = np.random.default_rng(0)
    x, y, control = (rng.gamma(1.0, size=(n, 6)) for n in (20, 30, 40))
    error = x.mean(axis=0) - y.mean(axis=0)
    assert METRICS[PERTPY["mse"]].function(x, y, control) == pytest.approx(np.linalg.norm(error) ** 2 / 6)
    assert METRICS[PERTPY["mean_absolute_error"]].function(x, y, control) == pytest.approx(abs(error).sum() / 6)


@pytest.mark.parametrize("names", [["edistance", "energy_distance"], ["wasserstein"], []])
def test_repeated_and_unknown_names_are_refused(names):
    with pytest.raises(ValueError, match="Expected `metrics` to be different names"):
        metrics_of(names)
