from __future__ import annotations

import numpy as np
import pytest

from perturbflow.metrics import (
    cosine_of_log_fold_changes,
    cosine_of_mean_effects,
    rmse_of_mean_effects,
)

COSINES = [cosine_of_mean_effects, cosine_of_log_fold_changes]


@pytest.fixture
def clouds():
    rng = np.random.default_rng(0)
    return [rng.gamma(0.5, size=(n, 12)) for n in (20, 15, 30)]


def test_definitions(clouds):
    x, y, c = (cells.mean(axis=0) for cells in clouds)
    log_x, log_y = (np.log2((a + 0.1) / (c + 0.1)) for a in (x, y))

    def cosine(a, b):
        return a @ b / np.sqrt((a @ a) * (b @ b))

    assert rmse_of_mean_effects(*clouds) == pytest.approx(np.sqrt(((x - y) ** 2).sum() / 12), abs=1e-12)
    assert cosine_of_mean_effects(*clouds) == pytest.approx(cosine(x - c, y - c), abs=1e-12)
    assert cosine_of_log_fold_changes(*clouds) == pytest.approx(cosine(log_x, log_y), abs=1e-12)


def test_controls_cancel_in_the_error_of_effects(clouds):
    x, y, control = clouds
    assert rmse_of_mean_effects(x, y, control) == pytest.approx(rmse_of_mean_effects(x, y, y), abs=1e-12)


def test_perfect_prediction(clouds):
    _, y, control = clouds
    assert rmse_of_mean_effects(y, y, control) == 0
    for cosine in COSINES:
        assert cosine(y, y, control) == pytest.approx(1.0, abs=1e-12)


def test_base_of_the_logarithm_does_not_matter(clouds):
    other = [cells / np.log(2) for cells in clouds]
    assert cosine_of_log_fold_changes(*other, base=2) == pytest.approx(cosine_of_log_fold_changes(*clouds), abs=1e-12)
    with pytest.raises(ValueError, match="`base` of the logarithm to be above 1, found 1"):
        cosine_of_log_fold_changes(*clouds, base=1)


def test_cosine_sees_the_direction_only(clouds):
    x, y, control = clouds
    effect = x.mean(axis=0) - control.mean(axis=0)
    value = cosine_of_mean_effects(x, y, control)
    assert cosine_of_mean_effects(control + 5 * effect, y, control) == pytest.approx(value, abs=1e-9)
    assert cosine_of_mean_effects(control - effect, y, control) == pytest.approx(-value, abs=1e-9)


@pytest.mark.parametrize("cosine", COSINES)
def test_no_predicted_effect_is_zero(cosine, clouds):
    _, y, control = clouds
    assert cosine(control, y, control) == 0
    # Another order of summation rounds differently; that is no effect either.
    assert cosine(np.tile(control[::-1], (3, 1)), y, control) == 0


@pytest.mark.parametrize("cosine", COSINES)
def test_no_observed_effect_is_undefined(cosine, clouds):
    x, _, control = clouds
    assert np.isnan(cosine(x, control[::-1], control))
    assert np.isnan(cosine(control, control, control))


@pytest.mark.parametrize("cosine", COSINES)
def test_silent_controls(cosine):
    x, y = np.array([[1.0, 0.0]]), np.array([[2.0, 0.0]])
    assert cosine(x, y, np.zeros((2, 2))) == 1
    assert cosine(np.zeros((1, 2)), y, np.zeros((2, 2))) == 0


def test_negative_means_have_no_fold_change():
    below, real, control = np.full((2, 3), -0.5), np.ones((2, 3)), np.zeros((2, 3))
    with pytest.raises(ValueError, match="log1p-normalised expression in `x`, found a gene with mean -0.5. Clip"):
        cosine_of_log_fold_changes(below, real, control)


def test_bad_controls_are_named():
    with pytest.raises(ValueError, match="finite values in `control`"):
        cosine_of_mean_effects(np.ones((2, 3)), np.ones((2, 3)), np.full((2, 3), np.nan))
    with pytest.raises(ValueError, match="'control': 4"):
        cosine_of_mean_effects(np.ones((2, 3)), np.ones((2, 3)), np.ones((2, 4)))
