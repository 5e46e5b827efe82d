from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from perturbflow.flow import _shrinkage as shrinkage_module
from perturbflow.flow import context_covariances
from perturbflow.flow._context_covariance import FactorCovariance, FullCovariance
from perturbflow.flow._shrinkage import likely_covariances, posterior_effects, shrink_apart

SCALES = (0.25, 0.5, 1.0, 2.0)
# Contexts 0 and 1 resemble each other, 2 is far from both.
DISTANCES = np.array([[0, 0.05, 1.5], [0.05, 0, 1.4], [1.5, 1.4, 0]])
ALONE = np.ones((1, 1, 1))


def shrunken(effects, variances, observed, covariances=None):
    """Posterior means (G, O)."""
    forms = [FullCovariance(each) for each in (context_covariances(DISTANCES) if covariances is None else covariances)]
    return posterior_effects(effects, variances, observed=observed, covariances=forms, scales=SCALES)[0]


def shrink_alone(effects, variances):
    return shrunken(effects[:, None], variances[:, None], [0], ALONE)[:, 0]


def brute_force(effects, variances, observed, covariances, n_steps=60, null_genes=10.0):
    """The same model gene by gene through densities of scipy and explicit inverses."""
    components = [np.zeros_like(covariances[0])] + [s**2 * k for k in covariances for s in SCALES]
    likelihood = np.array(
        [
            [
                stats.multivariate_normal.pdf(e, np.zeros(len(e)), k[np.ix_(observed, observed)] + np.diag(v))
                for k in components
            ]
            for e, v in zip(effects, variances, strict=True)
        ]
    )
    weights = np.full(len(components), 1 / len(components))

    def responsibilities():
        joint = likelihood * weights
        return joint / joint.sum(1, keepdims=True)

    for _ in range(n_steps):
        weights = responsibilities().sum(0)
        weights[0] += null_genes
        weights /= weights.sum()
    means = np.array(
        [
            [k[:, observed] @ np.linalg.inv(k[np.ix_(observed, observed)] + np.diag(v)) @ e for k in components]
            for e, v in zip(effects, variances, strict=True)
        ]
    )
    return (responsibilities()[..., None] * means).sum(1)


@pytest.mark.parametrize("observed", [[0, 1, 2], [2, 0], [1]])
def test_posterior_equals_an_independent_computation(observed):
    rng = np.random.default_rng(0)
    variances = rng.uniform(0.01, 0.5, (12, len(observed)))
    effects = rng.normal(0, 1, (12, len(observed))) * rng.integers(0, 2, (12, 1))
    covariances = context_covariances(DISTANCES)
    found, expected = shrunken(effects, variances, observed), brute_force(effects, variances, observed, covariances)
    np.testing.assert_allclose(found, expected[:, observed], rtol=1e-6, atol=1e-9)


def test_covariances_are_valid_and_fall_with_distance():
    covariances = context_covariances(DISTANCES)
    for covariance in covariances:
        assert (np.linalg.eigvalsh(covariance) > 0).all()
        np.testing.assert_allclose(np.diag(covariance), 1, atol=1e-5)
        np.testing.assert_allclose(covariance, covariance.T)
        assert covariance[0, 1] > covariance[0, 2]
    assert (context_covariances(np.zeros((1, 1))) == ALONE).all()


def test_without_noise_the_measured_effect_is_kept():
    effects = np.random.default_rng(0).normal(0, 1, 50)
    np.testing.assert_allclose(shrink_alone(effects, np.full(50, 1e-8)), effects, atol=1e-3)


def test_pure_noise_is_taken_away():
    effects = np.random.default_rng(0).normal(0, 1, 50)
    assert np.abs(shrink_alone(effects, np.full(50, 1e6))).max() < 1e-4


def test_null_data_is_shrunken_to_nothing():
    rng = np.random.default_rng(0)
    variances = rng.uniform(0.01, 0.3, 500)
    noise = rng.normal(0, np.sqrt(variances))
    kept = shrink_alone(noise, variances)
    assert np.sqrt(np.mean(kept**2)) < 0.05 * np.sqrt(np.mean(noise**2))


def test_shrinkage_lowers_the_error():
    rng = np.random.default_rng(0)
    truth = np.where(rng.random(500) < 0.2, rng.normal(0, 1.0, 500), 0)
    variances = rng.uniform(0.05, 0.5, 500)
    measured = truth + rng.normal(0, np.sqrt(variances))
    assert np.mean((shrink_alone(measured, variances) - truth) ** 2) < 0.4 * np.mean((measured - truth) ** 2)


def test_stronger_effects_stay_stronger_and_keep_their_sign():
    rng = np.random.default_rng(0)
    effects = np.sort(np.concatenate([rng.normal(0, 1, 99), np.zeros(1)]))
    kept = shrink_alone(effects, np.full(100, 0.2))
    assert (np.diff(kept) > 0).all()
    assert (np.sign(kept) == np.sign(effects)).all()
    assert (np.abs(kept) <= np.abs(effects)).all()


def test_signs_and_gene_order_carry_over():
    rng = np.random.default_rng(0)
    effects, variances = rng.normal(0, 1, (30, 2)), rng.uniform(0.1, 0.5, (30, 2))

    def shrink(e, v):
        return shrunken(e, v, [0, 2])

    kept, order = shrink(effects, variances), rng.permutation(30)
    np.testing.assert_allclose(shrink(-effects, variances), -kept)
    np.testing.assert_allclose(shrink(effects[order], variances[order]), kept[order])


def test_a_second_measurement_counts():
    """Two noisy contexts that agree are believed more than one."""
    rng = np.random.default_rng(0)
    common, variances = rng.normal(0, 1, (300, 1)), np.full((300, 2), 0.5)
    measured = common + rng.normal(0, np.sqrt(0.5), (300, 2))
    covariances = context_covariances(DISTANCES)[:, :2, :2]
    both = shrunken(measured, variances, [0, 1], covariances)[:, 0]
    one = shrunken(measured[:, :1], variances[:, :1], [0], covariances)[:, 0]
    assert np.mean((both - common[:, 0]) ** 2) < 0.8 * np.mean((one - common[:, 0]) ** 2)


def test_genes_go_through_in_pieces(monkeypatch):
    rng = np.random.default_rng(0)
    effects, variances = rng.normal(0, 1, (30, 2)), rng.uniform(0.1, 0.5, (30, 2))

    def shrink():
        return shrunken(effects, variances, [0, 2])

    whole = shrink()
    for n_values in (1, 600):
        monkeypatch.setattr(shrinkage_module, "_VALUES_AT_ONCE", n_values)
        np.testing.assert_allclose(shrink(), whole, rtol=1e-12)


@pytest.mark.parametrize("observed", [[0, 1, 2], [2, 0], [1]])
def test_posterior_variance_of_one_gaussian(observed):
    """With a single scale and covariance and plain effects the mixture is nearly one Gaussian, whose variance is known."""
    rng = np.random.default_rng(0)
    covariances = context_covariances(DISTANCES)[:1]
    noise = rng.uniform(0.05, 0.5, (2000, len(observed)))
    truth = rng.multivariate_normal(np.zeros(3), 400 * covariances[0], 2000)[:, observed]
    effects = truth + rng.normal(0, np.sqrt(noise))
    _, found = posterior_effects(
        effects, noise, observed=observed, covariances=[FullCovariance(covariances[0])], scales=[20.0]
    )
    among = 400 * covariances[0][np.ix_(observed, observed)]
    expected = [np.diag(among - among @ np.linalg.inv(among + np.diag(v)) @ among) for v in noise]
    clear = np.abs(effects).min(axis=1) > 6  # far from the point mass at zero
    assert clear.mean() > 0.4
    np.testing.assert_allclose(found[clear], np.array(expected)[clear], rtol=1e-3)


def test_posterior_variance_is_the_mean_squared_error():
    rng = np.random.default_rng(0)
    truth = np.where(rng.random((3000, 1)) < 0.4, rng.normal(0, 1.0, (3000, 1)), 0)
    noise = rng.uniform(0.05, 0.5, (3000, 1))
    measured = truth + rng.normal(0, np.sqrt(noise))
    mean, variance = posterior_effects(
        measured, noise, observed=[0], covariances=[FullCovariance(ALONE[0])], scales=SCALES
    )
    assert np.mean((mean - truth) ** 2) == pytest.approx(variance.mean(), rel=0.1)
    certain = variance < np.median(variance)
    assert np.mean((mean - truth)[certain] ** 2) < 0.5 * np.mean((mean - truth)[~certain] ** 2)


def effects_in_factors(seed=0, n_genes=300):
    """Effects of a few large and many small genes in contexts that two factors tie, and covariances in both forms."""
    rng = np.random.default_rng(seed)
    forms = []
    for spread in (0.6, 0.2):
        factors, rest = rng.normal(0, spread, (12, 2)), rng.uniform(0.1, 0.5, 12)
        forms.append((FactorCovariance(factors, rest), FullCovariance(factors @ factors.T + np.diag(rest))))
    few, full = zip(*forms, strict=True)
    truth = rng.multivariate_normal(np.zeros(12), full[0].matrix, n_genes) * rng.choice([0, 1, 20], (n_genes, 1))
    noise = rng.uniform(0.001, 0.5, truth.shape)
    return truth + rng.normal(0, np.sqrt(noise)), noise, few, full


@pytest.mark.parametrize("observed", [list(range(12)), [1, 4, 5, 11]])
def test_single_precision_is_enough_for_factors(observed):
    effects, noise, few, full = effects_in_factors()
    options = {"observed": observed, "scales": SCALES, "strata": np.arange(300) % 2}
    found = posterior_effects(effects[:, observed], noise[:, observed], covariances=few, **options)
    expected = posterior_effects(effects[:, observed], noise[:, observed], covariances=full, **options)
    deviation = np.sqrt(noise[:, observed])
    assert (np.abs(found[0] - expected[0]) / deviation).max() < 0.01
    np.testing.assert_allclose(np.sqrt(found[1]) / deviation, np.sqrt(expected[1]) / deviation, atol=0.01)


def test_effects_of_single_precision_are_shrunken_as_those_of_double():
    rng = np.random.default_rng(0)
    variances = rng.uniform(1e-4, 0.5, (5, 400))
    effects = rng.normal(0, 1, (5, 400)) * rng.choice([0, 1, 10], (5, 400)) + rng.normal(0, np.sqrt(variances))
    double = shrink_apart(effects, variances, SCALES)
    single = shrink_apart(effects.astype(np.float32), variances.astype(np.float32), SCALES)
    for one, two in zip(double, single, strict=True):
        assert (one.dtype.name, two.dtype.name) == ("float64", "float32")
        np.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-4)


def test_covariances_that_effects_do_not_have_are_unlikely():
    near, far = (FullCovariance(each) for each in (np.full((3, 3), 0.9) + 0.1 * np.eye(3), np.eye(3)))
    rng = np.random.default_rng(0)
    noise = np.full((2, 200), 0.01)

    def kept(correlation):
        among = np.full((2, 2), correlation) + (1 - correlation) * np.eye(2)
        sets = [
            (
                np.array([0, 2]),
                rng.multivariate_normal(np.zeros(2), among, 200).T + 0.1 * rng.normal(size=(2, 200)),
                noise,
            )
            for _ in range(4)
        ]
        strata = np.zeros(200, dtype=int)
        return likely_covariances(sets, covariances=[near, far], scales=SCALES, strata=strata)

    assert kept(0.9) == [near]
    assert kept(0.0) == [far]
    assert len(likely_covariances([], covariances=[near, far], scales=SCALES, strata=np.zeros(200, dtype=int))) == 2
