from __future__ import annotations

import numpy as np
import pytest

from perturbflow.evaluation._pairs import OF_PAIRS, Pair
from perturbflow.metrics import METRICS, PrincipalComponents
from perturbflow.metrics._samples import Sample, Space


@pytest.mark.parametrize("name", OF_PAIRS)
def test_values_are_those_of_the_metric(name):
    rng = np.random.default_rng(0)
    x, y = (np.log1p(rng.poisson(rate, (n, 30))).astype(np.float32) for rate, n in ((0.5, 40), (0.7, 27)))
    components = PrincipalComponents.of(y, n_components=5)
    space = Space(y.mean(axis=0, dtype=np.float64), components)
    pair = Pair(Sample(x, space), Sample(y, space))
    metric = METRICS[name]
    sides = [components.project(one) if metric.kind == "components" else one for one in (x, y)]
    assert OF_PAIRS[name](pair) == pytest.approx(metric.function(*sides), rel=1e-6)
