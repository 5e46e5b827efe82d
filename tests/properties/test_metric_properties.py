from __future__ import annotations

import inspect

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perturbflow import metrics

from .strategies import attempt, fewer, matrices

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # of AnnData, and what the package says

OF_CELLS = [
    name
    for name in metrics.__all__
    if inspect.isfunction(getattr(metrics, name))
    and list(inspect.signature(getattr(metrics, name)).parameters)[:2] == ["x", "y"]
]
OF_PROFILES = [
    *("discrimination_score", "centroid_accuracy", "weighted_mse", "weighted_r2", "pearson_against_reference"),
    *("auroc", "average_precision", "early_precision", "sign_accuracy", "support_error"),
    *("network_scores", "normalised_rank", "edge_density"),
]


def arguments(data, function):
    parameters = inspect.signature(function).parameters.values()
    required = [each for each in parameters if each.default is each.empty and each.kind is not each.VAR_POSITIONAL]
    n_genes = data.draw(st.sampled_from((0, 1, 2, 5, 5)))
    n_cells = data.draw(st.sampled_from((None, 1, 4)))
    given = {}
    for each in required:
        shape = (data.draw(st.sampled_from((0, 1, 2, 9))) if n_cells is None else n_cells, n_genes)
        if each.name in {"level", "higher_is_better", "n_top", "rng", "n_permutations"}:
            given[each.name] = {"level": 0.9, "higher_is_better": True, "n_top": 1, "n_permutations": 5}.get(
                each.name, np.random.default_rng(0)
            )
        else:
            value = data.draw(matrices(shape, every_container=True))
            given[each.name] = value
    return given


@pytest.mark.parametrize("name", [*OF_CELLS, *OF_PROFILES])
@fewer
@given(data=st.data())
def test_arrays_are_judged_or_refused(name, data):
    function = getattr(metrics, name)
    given = arguments(data, function)
    found = attempt(function, **given)
    if isinstance(found, float):
        assert not np.isinf(found)
