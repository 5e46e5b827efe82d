from __future__ import annotations

import numpy as np
import pytest

from perturbflow.flow import _feature_effects as module
from perturbflow.flow._feature_effects import effect_spread, nearest_distances, regress_effects

SCALES = (0.25, 0.5, 1.0, 2.0)
N_GENES = 60


def gaussian_effects(features, *, n_genes=N_GENES, fraction=0.9, noise=0.05, seed=0):
    """Effects whose covariance between components is mostly that of the features; returns truth and measurement."""
    rng = np.random.default_rng(seed)
    kernel = features @ features.T / np.mean(np.square(features).sum(axis=1))
    covariance = fraction * kernel + (1 - fraction) * np.eye(len(features))
    truth = np.linalg.cholesky(covariance + 1e-9 * np.eye(len(features))) @ rng.normal(size=(len(features), n_genes))
    return truth, truth + np.sqrt(noise) * rng.normal(size=truth.shape), np.full(truth.shape, noise)


@pytest.fixture(scope="module")
def screen():
    """40 components with 3 features, the last 10 without cells."""
    features = np.random.default_rng(1).normal(size=(40, 3))
    return features, *gaussian_effects(features), np.arange(40) < 30


def regress(features, measured, noise, trained):
    return regress_effects(measured, noise, features=features, trained=trained, scales=SCALES)


def rmse(x, y):
    return float(np.sqrt(np.mean(np.square(x - y))))


def test_posterior_equals_the_joint_gaussian():
    """Conditioning the dense Gaussian of all components and measurements, by the formula of block matrices."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(9, 2))
    trained = np.array([True] * 6 + [False] * 3)
    kernel = module._kernel(0.7, features, trained)
    noise, fraction = rng.uniform(0.1, 2.0, 6), 0.6
    level = module._NoiseLevel(np.arange(4), rng.normal(size=(6, 4)), noise)
    means, variances = module._predict(kernel, trained, fraction, level)
    truth = fraction * kernel + (1 - fraction) * np.eye(9)  # of the effects
    joint = truth[:, :6] @ np.eye(6), truth[:6, :6] + np.diag(noise)
    for j in range(9):
        others = [i for i in range(6) if i != j]
        weights = joint[0][j, others] @ np.linalg.inv(joint[1][np.ix_(others, others)])
        np.testing.assert_allclose(means[j], weights @ level.effects[others], atol=1e-10)
        assert variances[j] == pytest.approx(truth[j, j] - weights @ joint[0][j, others])


def test_the_evidence_is_that_of_the_gaussian():
    from scipy.stats import multivariate_normal

    rng = np.random.default_rng(0)
    features, everything = rng.normal(size=(8, 2)), np.ones(8, dtype=bool)
    kernel = module._kernel(None, features, everything)
    level = module._NoiseLevel(np.arange(5), rng.normal(size=(8, 5)), np.full(8, 0.3))
    order = rng.permutation(8)
    signal = 0.4 * kernel + 0.6 * np.eye(8)
    gains = module._gains(signal[None], level, [np.arange(8), order])
    for gain, rows in zip(gains[0], (np.arange(8), order), strict=True):
        with_features = multivariate_normal(np.zeros(8), 0.4 * kernel + 0.9 * np.eye(8)).logpdf(level.effects[rows].T)
        without = multivariate_normal(np.zeros(8), 1.3 * np.eye(8)).logpdf(level.effects.T)
        assert gain == pytest.approx(with_features.sum() - without.sum())


@pytest.mark.parametrize("length", module._LENGTH_SCALES)
def test_kernels_are_centred_covariances_of_unit_size(length):
    features, trained = np.random.default_rng(0).normal(size=(12, 4)), np.arange(12) < 8
    kernel = module._kernel(length, features, trained)
    np.testing.assert_allclose(kernel[np.ix_(trained, trained)].mean(axis=0), 0, atol=1e-12)
    assert np.diag(kernel)[trained].mean() == pytest.approx(1)
    assert np.linalg.eigvalsh(kernel).min() > -1e-9


def test_informative_features_predict_components_without_cells(screen):
    features, truth, measured, noise, trained = screen
    found = regress(features, measured, noise, trained)
    assert found.fraction > 0.6
    assert rmse(found.means[~trained], truth[~trained]) < 0.55 * rmse(0, truth[~trained])
    # And they say how well.
    z = (truth - found.means)[~trained] / np.sqrt(found.variances[~trained])
    assert np.sqrt(np.mean(z**2)) == pytest.approx(1, abs=0.3)


def test_shuffled_features_say_nothing(screen):
    features, truth, measured, noise, trained = screen
    informed = regress(features, measured, noise, trained)
    mean_effect = rmse(0, truth[~trained])
    fractions = []
    for seed in range(15):
        found = regress(np.random.default_rng(seed).permutation(features), measured, noise, trained)
        fractions.append(found.fraction)
        assert rmse(found.means[~trained], truth[~trained]) == pytest.approx(mean_effect, rel=0.05)
        assert found.variances[~trained].mean() > 1.5 * informed.variances[~trained].mean()
    # Some orders fit by chance; of those, few may be believed.
    assert np.mean(fractions) < 0.05
    assert np.median(fractions) < 0.02


def test_genes_that_move_together_are_one_piece_of_evidence():
    """A thousand copies of one gene with random features: without tempering and calibration some would be believed."""
    rng = np.random.default_rng(0)
    trained = np.ones(20, dtype=bool)
    fractions = []
    for _ in range(5):
        gene = rng.normal(size=(20, 1))
        measured = gene * rng.uniform(0.8, 1.2, 1000) + 0.1 * rng.normal(size=(20, 1000))
        found = regress(rng.normal(size=(20, 3)), measured, np.full(measured.shape, 0.01), trained)
        fractions.append(found.fraction)
    assert np.mean(fractions) < 0.35
    assert max(fractions) < 0.6


def test_independent_genes_all_count():
    rng = np.random.default_rng(0)
    effects = rng.normal(size=(30, 200))
    alone = module._NoiseLevel(np.arange(200), effects, np.full(30, 0.1))
    copied = module._NoiseLevel(np.arange(200), np.repeat(effects[:, :10], 20, axis=1), np.full(30, 0.1))
    assert module._share_of_independent_genes([alone]) == pytest.approx(1, abs=0.2)
    assert module._share_of_independent_genes([copied]) == pytest.approx(10 / 200, rel=0.3)


def test_a_component_does_not_count_for_itself(screen):
    features, _, measured, noise, trained = screen
    moved = measured.copy()
    moved[0] += 1.0
    before, after = regress(features, measured, noise, trained), regress(features, moved, noise, trained)
    # Only through the centre of all effects, and how much features are believed.
    assert rmse(after.means[0], before.means[0]) < 0.15
    assert rmse(after.means[1:], before.means[1:]) > 0


def test_rotated_and_moved_features_are_the_same(screen):
    features, _, measured, noise, trained = screen
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    found, other = (
        regress(features, measured, noise, trained),
        regress(5 * features @ rotation + 2, measured, noise, trained),
    )
    np.testing.assert_allclose(other.means, found.means, atol=1e-8)
    np.testing.assert_allclose(other.variances, found.variances, atol=1e-8)


def test_order_of_components_and_genes_does_not_matter(screen, monkeypatch):
    """Up to the permutations that are drawn: with those left out, to the last digit."""
    monkeypatch.setattr(module, "_PERMUTATIONS", 0)
    features, _, measured, noise, trained = screen
    rows, columns = np.random.default_rng(0).permutation(40), np.random.default_rng(1).permutation(N_GENES)
    found = regress(features, measured, noise, trained)
    other = regress(features[rows], measured[np.ix_(rows, columns)], noise, trained[rows])
    np.testing.assert_allclose(other.means, found.means[np.ix_(rows, columns)], atol=1e-8)


def test_variance_grows_with_the_distance():
    """Along a line away from the components with cells, up to what is known without any features."""
    features = np.vstack([np.random.default_rng(0).normal(size=(40, 2)), np.array([[0.2, 0], [2, 0], [8, 0]])])
    trained = np.arange(43) < 40
    kernel = module._kernel(0.7, features, trained)
    level = module._NoiseLevel(np.arange(3), np.random.default_rng(1).normal(size=(40, 3)), np.full(40, 0.1))
    variances = module._predict(kernel, trained, 0.95, level)[1]
    assert variances[40] < variances[41] < variances[42]


def test_noise_of_few_cells_counts_less(screen):
    features, truth, _, _, trained = screen
    noise = np.where(np.arange(40)[:, None] < 15, 4.0, 0.01) * np.ones(truth.shape)
    measured = truth + np.sqrt(noise) * np.random.default_rng(0).normal(size=truth.shape)
    weighted = regress(features, measured, noise, trained)
    alike = regress(features, measured, np.full(noise.shape, noise[trained].mean()), trained)
    assert rmse(weighted.means[~trained], truth[~trained]) < 0.95 * rmse(alike.means[~trained], truth[~trained])


def test_without_features_nothing_is_expected(screen):
    _, truth, measured, noise, trained = screen
    found = regress(np.zeros((40, 0)), measured, noise, trained)
    assert (found.means == 0).all()
    assert found.fraction == 0
    np.testing.assert_allclose(
        found.variances, effect_spread(measured[trained], noise[trained], scales=SCALES)[None] + 0 * truth
    )


@pytest.mark.parametrize("n_trained", [1, 3])
def test_too_few_components_to_learn_from(screen, n_trained):
    features, _, measured, noise, _ = screen
    assert (regress(features, measured, noise, np.arange(40) < n_trained).means == 0).all()


def test_equal_features_say_nothing(screen):
    _, _, measured, noise, trained = screen
    found = regress(np.ones((40, 2)), measured, noise, trained)
    np.testing.assert_allclose(found.means, 0, atol=1e-12)
    assert np.isfinite(found.variances).all()


def test_more_components_than_are_judged(screen, monkeypatch):
    features, truth, measured, noise, trained = screen
    monkeypatch.setattr(module, "_COMPONENTS_TO_CHOOSE", 20)
    found = regress(features, measured, noise, trained)
    assert rmse(found.means[~trained], truth[~trained]) < 0.6 * rmse(0, truth[~trained])


def test_spread_of_known_effects():
    rng = np.random.default_rng(0)
    sd = np.array([0.0, 0.5, 2.0]).repeat(20)
    effects, noise = sd * rng.normal(size=(200, 60)), np.full((200, 60), 0.1)
    spread = effect_spread(effects + np.sqrt(0.1) * rng.normal(size=(200, 60)), noise, scales=SCALES)
    np.testing.assert_allclose(spread[20:], sd[20:] ** 2, rtol=0.4)
    assert spread[:20].max() < 0.03


def test_distances_are_in_units_of_the_typical_one():
    features = np.array([[0.0], [1.0], [3.0], [4.0], [4.5], [14.0]])
    trained = np.array([True] * 4 + [False] * 2)
    np.testing.assert_allclose(nearest_distances(features, trained), [1, 1, 1, 1, 0.5, 10])
    np.testing.assert_allclose(nearest_distances(7 * features, trained), [1, 1, 1, 1, 0.5, 10])


def test_twins_do_not_set_the_unit():
    features = np.array([[0.0], [0.0], [2.0], [2.0], [6.0]])
    distances = nearest_distances(features, np.array([True] * 4 + [False]))
    np.testing.assert_allclose(distances, [0, 0, 0, 0, 2])
    assert nearest_distances(np.ones((3, 1)), np.ones(3, dtype=bool)).tolist() == [0, 0, 0]


def test_no_distance_without_features_or_cells():
    assert np.isnan(nearest_distances(np.zeros((3, 0)), np.ones(3, dtype=bool))).all()
    assert np.isnan(nearest_distances(np.ones((3, 2)), np.array([True, False, False]))).all()
