from __future__ import annotations

import math
from importlib import import_module

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import norm

from perturbflow.metrics import energy_distance, mmd
from perturbflow.metrics._energy import energy_distance_to


def naive(x, y, *, unbiased):
    def mean(a, b, n_pairs):
        return sum(math.dist(p, q) for p in a for q in b) / n_pairs

    n, m = len(x), len(y)
    return (
        2 * mean(x, y, n * m)
        - mean(x, x, n * (n - 1) if unbiased else n * n)
        - mean(y, y, m * (m - 1) if unbiased else m * m)
    )


@pytest.mark.parametrize("unbiased", [True, False])
def test_agrees_with_a_double_loop(unbiased):
    rng = np.random.default_rng(0)
    x, y = rng.gamma(0.3, size=(31, 9)), rng.gamma(0.5, size=(18, 9))
    assert energy_distance(x, y, unbiased=unbiased) == pytest.approx(naive(x, y, unbiased=unbiased), abs=1e-10)


@pytest.mark.parametrize("unbiased", [True, False])
def test_point_masses(unbiased):
    x, y = np.tile([1.0, 2.0, 2.0], (4, 1)), np.zeros((7, 3))
    assert energy_distance(x, y, unbiased=unbiased) == pytest.approx(2 * 3.0, abs=1e-12)
    assert energy_distance(x, x[:3], unbiased=unbiased) == 0


def test_mean_collapse_loses_the_spread():
    # All predicted cells at the mean m of a distribution: E = 2 E|m - Y| - E|Y - Y'|, here 2 * 1 - 1 for Y = +1 or -1.
    y = np.array([[1.0], [-1.0]] * 50)
    assert energy_distance(np.zeros((10, 1)), y, unbiased=False) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("shift", [0.0, 0.5, 1.0, 3.0])
def test_normal_laws(shift):
    # X - Y ~ N(shift, 2): E|X - Y| = 2 / sqrt(pi) exp(-shift^2 / 4) + shift erf(shift / 2), and E|X - X'| = 2 / sqrt(pi).
    between = 2 / math.sqrt(math.pi) * math.exp(-(shift**2) / 4) + shift * math.erf(shift / 2)
    expected = 2 * between - 4 / math.sqrt(math.pi)
    rng = np.random.default_rng(0)
    values = [energy_distance(rng.normal(size=(300, 1)), rng.normal(shift, size=(200, 1))) for _ in range(40)]
    standard_error = np.std(values, ddof=1) / math.sqrt(len(values))
    assert abs(np.mean(values) - expected) < 4 * standard_error
    assert standard_error < 0.05


@pytest.mark.parametrize(("n", "m"), [(2, 2), (3, 12), (20, 5)])
def test_unbiased_estimate_has_mean_zero_for_equal_laws(n, m):
    rng = np.random.default_rng(1)
    pairs = [(rng.gamma(0.5, size=(n, 4)), rng.gamma(0.5, size=(m, 4))) for _ in range(800)]
    unbiased = np.array([energy_distance(x, y) for x, y in pairs])
    standard_error = unbiased.std(ddof=1) / math.sqrt(len(unbiased))
    assert abs(unbiased.mean()) < 4 * standard_error
    biased = np.array([energy_distance(x, y, unbiased=False) for x, y in pairs])
    assert biased.min() > 0
    assert biased.mean() > 20 * standard_error


def test_bias_is_the_mean_distance_over_the_sizes():
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(6, 3)), rng.normal(size=(9, 3))
    mean_x, mean_y = (np.mean([math.dist(a, b) for a in c for b in c if a is not b]) for c in (list(x), list(y)))
    bias = energy_distance(x, y, unbiased=False) - energy_distance(x, y)
    assert bias == pytest.approx(mean_x / 6 + mean_y / 9, abs=1e-12)


@pytest.mark.parametrize("unbiased", [True, False])
def test_invariances(unbiased):
    rng = np.random.default_rng(3)
    x, y = rng.gamma(1.0, size=(20, 5)), rng.gamma(1.5, size=(15, 5))
    value = energy_distance(x, y, unbiased=unbiased)
    shift = rng.normal(0, 10, size=5)
    rotation = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    assert energy_distance(x + shift, y + shift, unbiased=unbiased) == pytest.approx(value, abs=1e-10)
    # The offset rounds the values themselves to 1e-11.
    assert energy_distance(x + 1e5, y + 1e5, unbiased=unbiased) == pytest.approx(value, abs=1e-9)
    assert energy_distance(x @ rotation, y @ rotation, unbiased=unbiased) == pytest.approx(value, abs=1e-10)
    assert energy_distance(-3 * x, -3 * y, unbiased=unbiased) == pytest.approx(3 * value, abs=1e-10)
    assert energy_distance(y, x, unbiased=unbiased) == pytest.approx(value, abs=1e-10)


def test_float32_is_not_rounded_further():
    rng = np.random.default_rng(4)
    x, y = rng.gamma(1.0, size=(20, 50)).astype(np.float32), rng.gamma(1.0, size=(15, 50)).astype(np.float32)
    assert energy_distance(x, y) == pytest.approx(
        energy_distance(x.astype(np.float64), y.astype(np.float64)), abs=1e-12
    )


CELLS = st.integers(2, 6).flatmap(
    lambda n: arrays(np.float64, (n, 3), elements=st.floats(-100, 100, allow_subnormal=False))
)


@settings(deadline=None, derandomize=True)
@given(x=CELLS, y=CELLS)
def test_biased_estimate_is_symmetric_and_not_negative(x, y):
    value = energy_distance(x, y, unbiased=False)
    # Cells closer than about 1e-6 of their distance from the centre count as equal.
    assert value >= -1e-4
    assert energy_distance(y, x, unbiased=False) == pytest.approx(value, abs=1e-4)
    assert energy_distance(x, x, unbiased=False) == pytest.approx(0, abs=1e-10)


def test_reference_term_is_computed_once(monkeypatch):
    rng = np.random.default_rng(5)
    predictions, y = [rng.gamma(1.0, size=(n, 4)) for n in (6, 7, 8)], rng.gamma(1.0, size=(9, 4))
    expected = [energy_distance(x, y) for x in predictions]
    sizes, original = [], import_module("perturbflow.metrics._distances").mean_within

    def counted(kernel, x, **options):
        sizes.append(len(x))
        return original(kernel, x, **options)

    monkeypatch.setattr("perturbflow.metrics._distances.mean_within", counted)
    distance = energy_distance_to(y)
    assert [distance(x) for x in predictions] == expected
    assert sizes == [9, 6, 7, 8]


@pytest.mark.parametrize(("n", "m", "name"), [(1, 5, "x"), (5, 1, "y")])
def test_unbiased_estimate_needs_two_cells(n, m, name):
    with pytest.raises(ValueError, match=rf"Expected at least 2 cells and 1 gene in `{name}`, found shape \(1, 3\)"):
        energy_distance(np.zeros((n, 3)), np.ones((m, 3)))
    assert energy_distance(np.zeros((n, 3)), np.ones((m, 3)), unbiased=False) == pytest.approx(2 * math.sqrt(3))


@pytest.mark.parametrize("metric", [energy_distance, mmd])
def test_a_prediction_that_repeats_itself_is_judged_as_one(metric):
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(12, 4)), rng.normal(1.0, size=(9, 4))
    np.testing.assert_allclose(metric(x, y, again=x), metric(x, y), rtol=1e-12)
    again = rng.normal(size=(12, 4))
    np.testing.assert_allclose(metric(x, y, again=again), metric(again, y, again=x), rtol=1e-12)


@pytest.mark.parametrize("metric", [energy_distance, mmd])
def test_two_predictions_are_of_the_same_cells(metric):
    x, y = np.ones((4, 2)), np.eye(2)
    with pytest.raises(ValueError, match="two predictions from the same cells, found 4 and 3 cells"):
        metric(x, y, again=x[:3])
    with pytest.raises(ValueError, match="Expected the same genes"):
        metric(x, y, again=np.ones((4, 3)))
    for unbiased in (True, False):  # a cell of each, from the same source, is no pair of independent ones
        with pytest.raises(ValueError, match="at least 2 cells"):
            metric(x[:1], y, again=x[:1], bandwidths=[1.0], unbiased=unbiased) if metric is mmd else metric(
                x[:1], y, again=x[:1], unbiased=unbiased
            )


def test_stratified_cells_gain_nothing():
    rng = np.random.default_rng(6)
    n = 10

    def stratified():
        u = (rng.permuted(np.tile(np.arange(n), (8, 1)), axis=1).T + rng.random((n, 8))) / n
        return norm.ppf(u)

    alone, twice = [], []
    for _ in range(300):
        y, x = rng.normal(size=(40, 8)), stratified()
        alone.append(energy_distance(x, y))
        twice.append(energy_distance(x, y, again=stratified()))
    error = np.std(twice) / np.sqrt(len(twice))
    assert abs(np.mean(twice)) < 4 * error
    assert np.mean(alone) < -8 * error  # what judging one prediction alone would give away
