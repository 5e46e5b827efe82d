from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from perturbflow.baselines import AdditiveEffect, FeatureRidge, MeanEffect
from perturbflow.baselines._ridge import left_out_errors
from perturbflow.flow import CellData

RNG = np.random.default_rng(0)
N_GENES, CONTROL, N_COMPONENTS = 6, 20.0, 30
FEATURES = np.random.default_rng(1).normal(size=(N_COMPONENTS, 3))
WEIGHTS = np.random.default_rng(2).normal(size=(3, N_GENES))
MEAN = np.linspace(-1, 1, N_GENES)


def single(component, dose=1.0):
    doses = np.zeros(N_COMPONENTS)
    doses[component] = dose
    return tuple(doses)


def training(groups, *, container=np.asarray):
    """Two identical cells per group and per context; ``groups`` maps (doses, context) to an effect."""
    rows = [(single(0, 0.0), context, np.zeros(N_GENES)) for context in sorted({context for _, context in groups})]
    rows += [(doses, context, effect) for (doses, context), effect in groups.items()]
    x = np.repeat([CONTROL + context + effect for _, context, effect in rows], 2, axis=0)
    covariates = np.repeat([[context] for _, context, _ in rows], 2, axis=0)
    return CellData(container(x), np.repeat([doses for doses, *_ in rows], 2, axis=0), covariates)


def linear(components, *, noise=0.0):
    rng = np.random.default_rng(3)
    return {(single(p), 0): MEAN + FEATURES[p] @ WEIGHTS + noise * rng.normal(size=N_GENES) for p in components}


def shift_of(fitted, doses, context=0):
    controls = np.full((1, N_GENES), CONTROL, dtype=np.float32)
    return fitted.sample(controls, np.array(doses, dtype=np.float32), np.array([context]), rng=RNG)[0] - CONTROL


def brute_force(x, y, block, penalty):
    error = 0.0
    for held_out in np.unique(block):
        seen = block != held_out
        mean_x, mean_y = x[seen].mean(axis=0), y[seen].mean(axis=0)
        centred = x[seen] - mean_x
        gram = centred.T @ centred + len(x) * penalty * np.eye(x.shape[1])
        weights = np.linalg.solve(gram, centred.T @ (y[seen] - mean_y))
        error += np.square(y[~seen] - mean_y - (x[~seen] - mean_x) @ weights).sum()
    return error


@pytest.mark.parametrize("n_genes", [2, 40], ids=["few_genes", "many_genes"])
@pytest.mark.parametrize("n_features", [1, 4, 25], ids=str)
def test_errors_are_those_of_fits_without_each_block(n_genes, n_features):
    rng = np.random.default_rng(4)
    block = rng.permutation(np.repeat([7, 3, 5, 0, 1, 2], [1, 4, 1, 6, 2, 1]))
    x, y = rng.normal(size=(15, n_features)), rng.normal(size=(15, n_genes))
    penalties = np.array([1e-2, 1.0, 30.0])
    expected = [brute_force(x, y, block, penalty) for penalty in penalties]
    np.testing.assert_allclose(left_out_errors(x, y, block, penalties), expected, rtol=1e-8)


def test_an_infinite_penalty_is_the_mean_of_the_others():
    y = np.array([[1.0], [2.0], [6.0]])
    errors = left_out_errors(np.eye(3), y, np.arange(3), np.array([np.inf]))
    assert errors == pytest.approx([(1 - 4) ** 2 + (2 - 3.5) ** 2 + (6 - 1.5) ** 2])


@pytest.mark.parametrize("container", [np.asarray, sparse.csr_matrix])
def test_linear_effects_of_unseen_perturbations_are_found(container):
    fitted = FeatureRidge(FEATURES).fit(training(linear(range(20)), container=container))
    for p in range(20, N_COMPONENTS):
        np.testing.assert_allclose(shift_of(fitted, single(p)), MEAN + FEATURES[p] @ WEIGHTS, atol=2e-3)


def test_units_of_the_features_do_not_matter():
    cells = training(linear(range(20), noise=0.5))
    shifts = [shift_of(FeatureRidge(scale * FEATURES + 3).fit(cells), single(25)) for scale in (1e-3, 1.0, 1e4)]
    np.testing.assert_allclose(shifts[1:], [shifts[0]] * 2, atol=1e-4)


def test_combinations_add_what_differs_from_the_mean_and_the_dose_scales_it():
    groups = {(single(p, dose), 0): MEAN + dose / 4 * FEATURES[p] @ WEIGHTS for p in range(20) for dose in (1, 4)}
    fitted = FeatureRidge(FEATURES).fit(training(groups))
    for p, dose in ((3, 2), (25, 1), (25, 8)):  # 25 was not seen: its unit is the others'
        np.testing.assert_allclose(
            shift_of(fitted, single(p, dose)), MEAN + dose / 4 * FEATURES[p] @ WEIGHTS, atol=5e-3
        )
    pair = np.add(single(25, 4), single(26, 2))
    expected = MEAN + (FEATURES[25] + FEATURES[26] / 2) @ WEIGHTS
    np.testing.assert_allclose(shift_of(fitted, pair), expected, atol=5e-3)


def test_features_that_say_nothing_leave_the_mean_effect():
    rng = np.random.default_rng(6)
    groups = {(single(p), 0): MEAN + rng.normal(size=N_GENES) for p in range(20)}
    cells = training(groups)
    chosen = [FeatureRidge(np.random.default_rng(seed).normal(size=(N_COMPONENTS, 3))).fit(cells) for seed in range(20)]
    spread = [np.abs(shift_of(fitted, single(25)) - np.mean(list(groups.values()), axis=0)).max() for fitted in chosen]
    assert np.median(spread) < 0.15  # of effects with a standard deviation of 1
    useful = FeatureRidge(FEATURES).fit(training(linear(range(20))))
    assert np.abs(shift_of(useful, single(25)) - MEAN).max() > 1


@pytest.mark.parametrize(
    "features",
    [
        pytest.param(np.zeros((N_COMPONENTS, 0)), id="none"),
        pytest.param(np.tile([0.1, 1 / 3, 1000.1], (N_COMPONENTS, 1)), id="constant"),
        pytest.param(None, id="one_hot"),
    ],
)
def test_where_nothing_carries_over_it_is_the_mean_effect(features):
    groups = linear(range(8)) | {(doses, 1): 2 * effect for (doses, _), effect in linear(range(3)).items()}
    cells = training(groups)
    fitted = FeatureRidge(features).fit(cells)
    for doses in (single(0), single(2, 5), single(12), np.ones(N_COMPONENTS)):
        np.testing.assert_array_equal(shift_of(fitted, doses), shift_of(MeanEffect().fit(cells), doses))


def test_one_perturbation_leaves_nothing_to_choose_with():
    groups = {(single(0, dose), 0): np.full(N_GENES, float(dose)) for dose in (1, 3)}
    np.testing.assert_allclose(shift_of(FeatureRidge(FEATURES).fit(training(groups)), single(0, 3)), 2.0, atol=1e-5)


def test_one_hot_learns_components_from_combinations():
    effects = np.random.default_rng(7).normal(size=(5, N_GENES))
    doses = [np.add(single(p), single(q) if q > p else 0) for p in range(5) for q in range(p, 5)]
    groups = {(tuple(each), 0): each[:5] @ effects for each in doses}
    held_out = tuple(np.add(single(1), single(3)))
    del groups[held_out, 0]
    cells = training(groups)
    error = {
        baseline: np.abs(shift_of(baseline().fit(cells), held_out) - effects[1] - effects[3]).max()
        for baseline in (FeatureRidge, AdditiveEffect, MeanEffect)
    }
    assert error[AdditiveEffect] < error[FeatureRidge] < 0.1 * error[MeanEffect]
    unseen = single(20)
    np.testing.assert_array_equal(
        shift_of(FeatureRidge().fit(cells), unseen), shift_of(MeanEffect().fit(cells), unseen)
    )


@pytest.mark.parametrize(
    ("features", "message"),
    [
        pytest.param(np.ones(3), r"Expected `features` to be a matrix .* found shape \(3,\) and 0 values", id="vector"),
        pytest.param([[1.0], [np.nan]], r"found shape \(2, 1\) and 1 values that are not finite", id="nan"),
    ],
)
def test_features_are_a_finite_matrix(features, message):
    with pytest.raises(ValueError, match=message):
        FeatureRidge(features)


def test_features_are_of_all_components():
    with pytest.raises(ValueError, match="Expected `features` of all 30 perturbation components, found 29 rows"):
        FeatureRidge(FEATURES[1:]).fit(training(linear(range(3))))
