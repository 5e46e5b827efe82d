from __future__ import annotations

import numpy as np
import pytest

from perturbflow.evaluation import Condition, score_cells, score_samplers
from perturbflow.flow import CellData
from perturbflow.metrics import METRICS, WilcoxonAgainst


def cells(rate, n, seed):
    return np.log1p(np.random.default_rng(seed).poisson(rate, (n, 30))).astype(np.float32)


X, AGAIN, Y, CONTROL = cells(0.5, 27, 0), cells(0.5, 27, 1), cells(0.7, 27, 2), cells(0.3, 50, 3)
OF_CELLS = [name for name, one in METRICS.items() if one.scope == "condition" and one.kind != "components"]


@pytest.mark.filterwarnings("ignore:.*:RuntimeWarning")
def test_values_of_an_evaluation_are_those_of_the_function(subtests):
    found = score_cells({"mine": {"A": X}}, {"A": Y}, CONTROL, metrics=OF_CELLS)
    values = found[found["model"] == "mine"].set_index("metric")["value"]
    test = WilcoxonAgainst(CONTROL)
    for name in OF_CELLS:
        with subtests.test(name):
            metric = METRICS[name]
            given = {
                "distribution": (X, Y),
                "response": (X, Y, CONTROL),
                "effect": (X, Y, CONTROL),
                "differential": (test(X), test(Y)),
            }[metric.kind]
            assert values[name] == pytest.approx(metric.function(*given), rel=1e-5, abs=1e-6, nan_ok=True)


class Twice:
    """Says one thing and then another."""

    def __init__(self):
        self.draws = [X, AGAIN]

    def sample(self, controls, perturbation, covariates, *, rng):
        return self.draws.pop(0)


def test_two_predictions_count_alike():
    both = np.concatenate([CONTROL, Y])
    doses = np.repeat([[0.0], [1.0]], [len(CONTROL), len(Y)], axis=0)
    rows = np.arange(len(CONTROL)), np.arange(len(CONTROL), len(both))
    labels, nothing = {"split": "all", "perturbation": "A"}, np.zeros(0, np.int64)
    condition = Condition(labels, np.ones(1, np.float32), nothing, rows[1], rows[0])
    names = ["wasserstein_of_genes", "energy_in_programs", "error_of_zero_fractions", "rmse_of_mean_effects"]
    screen = CellData(both, doses, np.zeros((len(both), 0), dtype=np.int64))
    found = score_samplers(screen, [condition], {"mine": Twice()}, metrics=names, n_cells=None)
    values = found[found["model"] == "mine"].set_index("metric")["value"]
    for name in names[:3]:
        metric = METRICS[name]
        given = (CONTROL,) if metric.kind == "response" else ()
        expected = np.mean([metric.function(one, Y, *given) for one in (X, AGAIN)])
        assert values[name] == pytest.approx(expected, rel=1e-5)
    expected = METRICS["rmse_of_mean_effects"].function(np.concatenate([X, AGAIN]), Y, CONTROL)
    assert values["rmse_of_mean_effects"] == pytest.approx(expected, rel=1e-6)


def test_metrics_say_what_they_need():
    assert METRICS["rmse_of_mean_effects"].needs == {"moments"}
    assert METRICS["energy_distance"].needs == {"cells", "cloud"}
    assert METRICS["rank_of_energy_in_components"].needs == {"components"}
    assert METRICS["jaccard_of_significant_genes"].needs == {"tests"}
    assert {METRICS[name].scope for name in METRICS} == {"condition", "panel", "dataset"}
