from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import sparse

from perturbflow.metrics import dynamic_range_fraction, energy_distance, pooled_dynamic_range_fraction, split_half


def test_halves_are_a_random_partition():
    cells = np.arange(9.0)[:, None]
    halves = []

    def metric(x, y):
        halves.append((x.ravel(), y.ravel()))
        return 0.0

    split_half(cells, metric, n_splits=4, rng=np.random.default_rng(0))
    assert [(len(x), len(y)) for x, y in halves] == [(4, 5)] * 4
    assert all(sorted([*x, *y]) == list(range(9)) for x, y in halves)
    assert len({tuple(sorted(x)) for x, _ in halves}) > 1


def test_halves_are_averaged_and_repeatable():
    cells = np.random.default_rng(0).normal(size=(20, 2))
    values = []

    def metric(x, y):
        values.append(energy_distance(x, y))
        return values[-1]

    result = split_half(cells, metric, n_splits=3, rng=np.random.default_rng(1))
    assert result == pytest.approx(np.mean(values))
    assert len(values) == 3
    assert split_half(sparse.csr_matrix(cells), energy_distance, n_splits=3, rng=np.random.default_rng(1)) == (
        pytest.approx(result, abs=1e-12)
    )


def test_unbiased_ceiling_is_zero_on_average():
    rng = np.random.default_rng(2)
    values = np.array([split_half(rng.gamma(0.5, size=(7, 3)), energy_distance, rng=rng) for _ in range(300)])
    assert abs(values.mean()) < 4 * values.std(ddof=1) / math.sqrt(len(values))


def test_split_half_needs_cells_and_splits():
    with pytest.raises(ValueError, match=r"Expected at least 4 cells and 1 gene in `cells`, found shape \(3, 2\)"):
        split_half(np.ones((3, 2)), energy_distance, rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match="Expected `n_splits` to be at least 1, found 0"):
        split_half(np.ones((4, 2)), energy_distance, n_splits=0, rng=np.random.default_rng(0))


@pytest.mark.parametrize(
    ("model", "fraction"),
    [
        pytest.param(2.0, 0.0, id="controls"),
        pytest.param(0.5, 1.0, id="ceiling"),
        pytest.param(1.25, 0.5, id="middle"),
        pytest.param(3.5, -1.0, id="worse_than_controls"),
        pytest.param(0.2, 1.2, id="better_than_ceiling"),
    ],
)
def test_fraction(model, fraction):
    assert dynamic_range_fraction(model, 2.0, 0.5) == pytest.approx(fraction)


@pytest.mark.parametrize(
    ("model", "control", "ceiling"),
    [(0.1, 0.2, 0.2), (0.1, 0.1, 0.2), (math.nan, 1.0, 0.0), (0.0, math.nan, 0.0), (0.0, 1.0, math.nan)],
)
def test_unmeasurable_effect_has_no_fraction(model, control, ceiling):
    assert math.isnan(dynamic_range_fraction(model, control, ceiling))


def test_pooled_fraction_weights_conditions_by_their_effect():
    controls, ceilings = np.array([4.0, 1.0, 0.5]), np.array([0.0, 0.2, 0.1])
    models = np.array([1.0, 0.5, 0.6])
    single = np.array([dynamic_range_fraction(*scores) for scores in zip(models, controls, ceilings, strict=True)])
    weights = (controls - ceilings) / (controls - ceilings).sum()
    assert pooled_dynamic_range_fraction(models, controls, ceilings) == pytest.approx(weights @ single)


def test_pooled_fraction_survives_an_unmeasurable_condition():
    # The mean of the single fractions would be -45 here.
    assert pooled_dynamic_range_fraction([0.1, 0.1], [1.0, 0.001], [0.0, 0.0]) == pytest.approx(1 - 0.2 / 1.001)
    assert pooled_dynamic_range_fraction([0.1, 0.1], [1.0, -0.01], [0.0, 0.01]) == pytest.approx(0.79 / 0.98)
    assert math.isnan(pooled_dynamic_range_fraction([0.1], [0.0], [0.0]))


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        pytest.param(([1.0], [1.0, 2.0], [0.0]), r"one score per condition .*'controls': \(2,\)", id="lengths"),
        pytest.param(([], [], []), "one score per condition", id="empty"),
        pytest.param((1.0, 2.0, 0.0), "one score per condition", id="scalars"),
        pytest.param(([1.0], [2.0], [math.nan]), "finite scores in `ceilings`.*Leave out", id="nan"),
    ],
)
def test_pooled_fraction_refuses(scores, message):
    with pytest.raises(ValueError, match=message):
        pooled_dynamic_range_fraction(*scores)
