from __future__ import annotations

import numpy as np
import pytest

from perturbflow.metrics import METRICS, Moments, WilcoxonAgainst
from perturbflow.metrics._clouds import Cloud
from perturbflow.metrics._comparison import Comparison, Pair
from perturbflow.metrics._principal_components import PrincipalComponents
from perturbflow.metrics._samples import Sample, Space


def cells(rate, n, seed):
    return np.log1p(np.random.default_rng(seed).poisson(rate, (n, 30))).astype(np.float32)


X, AGAIN, Y, CONTROL = cells(0.5, 40, 0), cells(0.5, 40, 1), cells(0.7, 27, 2), cells(0.3, 50, 3)


@pytest.fixture(scope="module")
def comparisons():
    """One prediction compared with real cells, and two of the same controls."""
    space = Space(Y.mean(axis=0, dtype=np.float64), PrincipalComponents.of(Y, n_components=5))
    x, again, y = (Sample(one, space) for one in (X, AGAIN, Y))
    test, found = WilcoxonAgainst(CONTROL), []
    for draws in ([x], [x, again]):
        predicted = Moments.pooled(*(one.moments for one in draws))
        found.append(
            Comparison(
                (predicted, y.moments, Moments.of(CONTROL)),
                control=CONTROL,
                pairs=[Pair(one, y) for one in draws],
                tests=(test(X), test(Y)),
                cloud=Cloud(y).scores(*draws),
            )
        )
    return found


OF_A_CONDITION = [name for name, metric in METRICS.items() if metric.scope == "condition"]


@pytest.mark.filterwarnings("ignore:.*:RuntimeWarning")
def test_values_are_those_of_the_function(comparisons, subtests):
    components = comparisons[0].pairs[0].real.space.components
    for name in OF_A_CONDITION:
        with subtests.test(name):
            metric = METRICS[name]
            given = {
                "distribution": (X, Y),
                "components": (components.project(X), components.project(Y)),
                "response": (X, Y, CONTROL),
                "effect": (X, Y, CONTROL),
                "differential": comparisons[0].tests,
            }[metric.kind]
            expected = pytest.approx(metric.function(*given), rel=1e-5, abs=1e-6, nan_ok=True)
            assert metric.value(comparisons[0]) == expected


def test_two_predictions_count_alike(comparisons):
    for name in ("wasserstein_of_genes", "energy_in_programs", "error_of_zero_fractions"):
        metric = METRICS[name]
        given = (CONTROL,) if metric.kind == "response" else ()
        expected = np.mean([metric.function(one, Y, *given) for one in (X, AGAIN)])
        assert metric.value(comparisons[1]) == pytest.approx(expected, rel=1e-6)
    both = np.concatenate([X, AGAIN])
    expected = METRICS["rmse_of_mean_effects"].function(both, Y, CONTROL)
    assert METRICS["rmse_of_mean_effects"].value(comparisons[1]) == pytest.approx(expected)


def test_metrics_say_what_they_need():
    assert METRICS["rmse_of_mean_effects"].needs == {"moments"}
    assert METRICS["energy_distance"].needs == {"cells", "cloud"}
    assert METRICS["rank_of_energy_in_components"].needs == {"components"}
    assert METRICS["jaccard_of_significant_genes"].needs == {"tests"}
    assert {METRICS[name].scope for name in METRICS} == {"condition", "panel", "dataset"}
