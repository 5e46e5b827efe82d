from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse, stats

from perturbflow.metrics import (
    Moments,
    cosine_of_mean_effects,
    mae_of_mean_effects,
    mse_of_mean_effects,
    pearson_of_mean_effects,
)

EFFECTS = [mse_of_mean_effects, mae_of_mean_effects, pearson_of_mean_effects]
ERRORS = [mse_of_mean_effects, mae_of_mean_effects]


def draw(seed=0):
    rng = np.random.default_rng(seed)
    return [rng.gamma(0.5, size=(n, 12)) for n in (20, 15, 30, 25)]


@pytest.fixture
def clouds():
    return draw()


def test_definitions(clouds):
    x, y, control, own = (cells.mean(axis=0) for cells in clouds)
    cells_x, cells_y, cells_control, cells_own = clouds

    for reference, keywords in ((control, {}), (own, {"predicted_control": cells_own})):
        difference = (x - reference) - (y - control)
        arguments = (cells_x, cells_y, cells_control)
        assert mse_of_mean_effects(*arguments, **keywords) == pytest.approx((difference**2).sum() / 12, abs=1e-12)
        assert mae_of_mean_effects(*arguments, **keywords) == pytest.approx(abs(difference).sum() / 12, abs=1e-12)
        expected = stats.pearsonr(x - reference, y - control).statistic
        assert pearson_of_mean_effects(*arguments, **keywords) == pytest.approx(expected, abs=1e-12)


def test_controls_cancel_in_the_error_of_effects(clouds):
    x, y, control, _ = clouds
    error = x.mean(axis=0) - y.mean(axis=0)
    assert mse_of_mean_effects(x, y, control) == pytest.approx(np.mean(error**2), abs=1e-12)
    assert mae_of_mean_effects(x, y, control) == pytest.approx(np.mean(abs(error)), abs=1e-12)


def test_predicted_controls_hide_an_error_that_they_share(clouds):
    x, y, control, _ = clouds
    bias = np.arange(12.0)
    for function in EFFECTS:
        honest = function(x + bias, y, control)
        hidden = function(x + bias, y, control, predicted_control=control + bias)
        assert hidden == pytest.approx(function(x, y, control), abs=1e-12)
        assert abs(honest - hidden) > 0.1


def test_perfect_prediction(clouds):
    _, y, control, _ = clouds
    assert mse_of_mean_effects(y, y, control) == mae_of_mean_effects(y, y, control) == 0
    assert pearson_of_mean_effects(y, y, control) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("function", EFFECTS)
def test_moments_stand_for_cells(function, clouds):
    x, y, control, own = clouds
    expected = function(x, y, control, predicted_control=own)
    moments = [Moments.of(cells) for cells in clouds]
    assert function(*moments[:3], predicted_control=moments[3]) == expected
    assert function(sparse.csr_matrix(x), moments[1], control, predicted_control=own) == pytest.approx(expected)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**16), size=st.floats(0.01, 100), shift=st.floats(-10, 10))
def test_correlation_sees_neither_size_nor_shift(seed, size, shift):
    x, y, control, _ = draw(seed)
    value = pearson_of_mean_effects(x, y, control)
    effect = x.mean(axis=0) - control.mean(axis=0)
    assert pearson_of_mean_effects(control + size * effect + shift, y, control) == pytest.approx(value, abs=1e-9)
    assert pearson_of_mean_effects(control - size * effect, y, control) == pytest.approx(-value, abs=1e-9)


def test_correlation_is_the_cosine_of_effects_that_sum_to_zero():
    control = np.ones((2, 4))
    x, y = control + [1.0, -1.0, 2.0, -2.0], control + [3.0, 1.0, -1.0, -3.0]
    assert pearson_of_mean_effects(x, y, control) == pytest.approx(cosine_of_mean_effects(x, y, control), abs=1e-12)


def test_correlation_of_a_prediction_without_order_is_zero(clouds):
    _, y, control, _ = clouds
    assert pearson_of_mean_effects(control, y, control) == 0
    # Another order of summation rounds differently; that is no effect either.
    assert pearson_of_mean_effects(np.tile(control[::-1], (3, 1)), y, control) == 0
    assert pearson_of_mean_effects(control + 0.3, y, control) == 0
    assert pearson_of_mean_effects(np.full((3, 12), 0.3), y, np.zeros((2, 12))) == 0


def test_correlation_with_an_effect_without_order_is_undefined(clouds):
    x, _, control, _ = clouds
    assert np.isnan(pearson_of_mean_effects(x, control[::-1], control))
    assert np.isnan(pearson_of_mean_effects(x, control + 0.3, control))
    assert np.isnan(pearson_of_mean_effects(x, np.full((3, 12), 0.3), np.zeros((2, 12))))
    assert np.isnan(pearson_of_mean_effects(control, control, control))


@pytest.mark.parametrize("function", EFFECTS)
def test_bad_input_is_named(function, clouds):
    x, y, control, own = clouds
    with pytest.raises(ValueError, match="Expected the same genes in x, y, control; found .*'control': 11"):
        function(x, y, control[:, :11])
    with pytest.raises(ValueError, match="'predicted_control': 11"):
        function(x, y, control, predicted_control=own[:, :11])
    with pytest.raises(ValueError, match="finite values in `predicted_control`"):
        function(x, y, control, predicted_control=np.full((2, 12), np.nan))
    with pytest.raises(ValueError, match=r"at least 1 cells and 1 gene in `x`, found shape \(0, 12\)"):
        function(x[:0], y, control)


@pytest.mark.parametrize("function", ERRORS)
def test_errors_are_those_of_one_gene_shared_by_all(function):
    control = np.zeros((1, 4))
    x = control + [2.0, 0.0, 0.0, 0.0]
    assert function(x, control, control) == (1.0 if function is mse_of_mean_effects else 0.5)
