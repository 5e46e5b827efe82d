"""Standard deviations of distributions, and effects of perturbations without cells, in the fitted prior."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from perturbflow.flow import AdditiveHurdlePrior, CellData

N_GENES = 60
N_SEEN, N_UNSEEN = 24, 6


def angle(share):
    return 2 * np.arcsin(np.sqrt(share))


def sd_of(prior, doses, codes=(), controls=None):
    return prior.distribution_sd(
        np.array(doses, dtype=np.float32), prior.context(np.array(codes, dtype=np.int64), controls)
    )


def change(prior, doses, codes=()):
    context = prior.context(np.array(codes, dtype=np.int64))
    distribution = prior.distribution(np.array(doses, dtype=np.float32), context)
    return angle(distribution.expressed) - context.base_angle, distribution.mean - context.base_mean


def rms(values):
    return float(np.sqrt(np.mean(np.square(values))))


def larger(found, other, factor=1.0):
    return all(rms(getattr(found, name)) > factor * rms(getattr(other, name)) for name in ("angle", "mean"))


@pytest.fixture
def screen(hurdle_screen):
    screen = hurdle_screen(N_GENES)
    n = N_SEEN + N_UNSEEN
    features = screen.rng.normal(size=(n, 3))
    angles = 0.1 + features @ screen.rng.normal(0, 0.12, (3, N_GENES)) + screen.rng.normal(0, 0.05, (n, N_GENES))
    mean = features @ screen.rng.normal(0, 0.1, (3, N_GENES)) + screen.rng.normal(0, 0.03, (n, N_GENES))
    screen.add(3000, np.zeros(n))
    for j in range(N_SEEN):
        screen.add(300, np.eye(n)[j], angle=angles[j], mean=mean[j])
    return screen, features, angles, mean


def test_features_predict_what_has_no_cells(screen):
    screen, features, angles, mean = screen
    cells = screen.data()
    without = AdditiveHurdlePrior.fit(cells)
    informed = AdditiveHurdlePrior.fit(cells, features=features)
    for j in range(N_SEEN, N_SEEN + N_UNSEEN):
        doses = np.eye(len(features))[j]
        for kind, truth in enumerate((angles, mean)):
            errors = [rms(change(prior, doses)[kind] - truth[j]) for prior in (informed, without)]
            assert errors[0] < 0.75 * errors[1]
        assert larger(sd_of(without, doses), sd_of(informed, doses))
    assert (informed.fraction > 0.4).all()


def test_shuffled_features_leave_the_mean_effect(screen):
    screen, features, *_ = screen
    cells = screen.data()
    without = AdditiveHurdlePrior.fit(cells)
    informed = AdditiveHurdlePrior.fit(cells, features=features)
    shuffled = AdditiveHurdlePrior.fit(cells, features=np.random.default_rng(0).permutation(features))
    for j in range(N_SEEN, N_SEEN + N_UNSEEN):
        doses = np.eye(len(features))[j]
        for kind in range(2):
            assert rms(change(shuffled, doses)[kind] - change(without, doses)[kind]) < 0.25 * rms(
                change(without, doses)[kind] - change(informed, doses)[kind]
            )
        assert larger(sd_of(shuffled, doses), sd_of(informed, doses), 1.1)


def test_features_help_components_with_few_cells(screen):
    screen, features, angles, _ = screen
    n = len(features)
    for j in range(N_SEEN, n):
        screen.add(8, np.eye(n)[j], angle=angles[j])
    cells = screen.data()
    errors = [
        np.mean([rms(change(prior, np.eye(n)[j])[0] - angles[j]) for j in range(N_SEEN, n)])
        for prior in (AdditiveHurdlePrior.fit(cells, features=features), AdditiveHurdlePrior.fit(cells))
    ]
    assert errors[0] < 0.8 * errors[1]


def test_predicted_effects_add_and_scale(screen):
    screen, features, *_ = screen
    prior = AdditiveHurdlePrior.fit(screen.data(), features=features)
    identity = np.eye(len(features))
    a, b = identity[0], identity[-1]
    first = int(np.flatnonzero(prior.groups.doses[:, [0]].toarray())[0])
    for kind in range(2):
        alone = change(prior, a)[kind] + change(prior, b)[kind]
        expected = alone - prior.interactions[kind, first]  # which is of the condition a alone
        np.testing.assert_allclose(change(prior, a + b)[kind], expected, atol=1e-4)
        np.testing.assert_allclose(change(prior, 0.5 * b)[kind], 0.5 * change(prior, b)[kind], atol=1e-4)
    context = prior.context(np.zeros(0, dtype=int))
    np.testing.assert_array_equal(
        prior.distribution(0 * b, context).expressed, prior.distribution(0 * a, context).expressed
    )


def test_order_of_components_does_not_matter(screen):
    screen, features, *_ = screen
    cells, order = screen.data(), np.random.default_rng(0).permutation(len(features))
    prior = AdditiveHurdlePrior.fit(cells, features=features)
    swapped = AdditiveHurdlePrior.fit(
        replace(cells, perturbations=cells.perturbations[:, order]), features=features[order]
    )
    doses = np.eye(len(features))[-1]
    for kind in range(2):  # up to the permutations by which features are judged, and components shrunken in turn
        assert rms(change(prior, doses)[kind] - change(swapped, doses[order])[kind]) < 0.05 * rms(
            change(prior, doses)[kind]
        )


def test_the_prior_goes_through_arrays_with_its_features(screen):
    screen, features, *_ = screen
    prior = AdditiveHurdlePrior.fit(screen.data(), features=features)
    again = AdditiveHurdlePrior.from_arrays(prior.to_arrays())
    doses = np.eye(len(features))[-1] + np.eye(len(features))[0]
    np.testing.assert_array_equal(sd_of(again, doses).angle, sd_of(prior, doses).angle)
    np.testing.assert_allclose(again.features, features, rtol=1e-6)
    assert again.feature_distance(N_SEEN) == prior.feature_distance(N_SEEN)


def test_distance_to_the_nearest_component_with_cells(screen):
    screen, features, *_ = screen
    far = features.copy()
    far[-1] += 30
    prior = AdditiveHurdlePrior.fit(screen.data(), features=far)
    seen = [prior.feature_distance(j) for j in range(N_SEEN)]
    assert np.median(seen) == pytest.approx(1)
    assert prior.feature_distance(N_SEEN) < 4
    assert prior.feature_distance(len(far) - 1) > 15
    assert np.isnan(AdditiveHurdlePrior.fit(screen.data()).feature_distance(0))


@pytest.mark.parametrize(
    ("features", "match"),
    [
        pytest.param(
            np.zeros((3, 2)), r"one row for each of 30 perturbation components, found shape \(3, 2\)", id="rows"
        ),
        pytest.param(np.zeros(30), r"one row for each of 30 .* found shape \(30,\)", id="vector"),
        pytest.param(np.full((30, 1), np.nan), "`features` to be finite, found NaN", id="nan"),
    ],
)
def test_wrong_features(screen, features, match):
    with pytest.raises(ValueError, match=match):
        AdditiveHurdlePrior.fit(screen[0].data(), features=features)


def calibration(hurdle_screen, doses, *, n_seeds=6):
    """Errors of the angles of one condition over the stated standard deviations, for a screen of random effects."""
    z = []
    for seed in range(n_seeds):
        screen = hurdle_screen(N_GENES, seed=seed)
        effects = screen.rng.normal(0, 0.18, (9, N_GENES))
        screen.add(500, np.zeros(9))
        for j in range(8):
            screen.add(150, np.eye(9)[j], angle=effects[j])
        prior = AdditiveHurdlePrior.fit(screen.data())
        context = prior.context(np.zeros(0, dtype=int))
        distribution = prior.distribution(np.array(doses, dtype=np.float32), context)
        truth = screen.angle + doses @ effects
        z.append((angle(distribution.expressed) - truth) / prior.distribution_sd(np.array(doses), context).angle)
    return rms(z)


@pytest.mark.parametrize(
    "active", [pytest.param([], id="control"), pytest.param([0], id="seen"), pytest.param([8], id="unseen")]
)
def test_errors_are_as_large_as_stated(hurdle_screen, active):
    doses = np.zeros(9)
    doses[active] = 1
    # With so few genes the share of genes without an effect is not well known, and some are shrunken too far.
    assert 0.75 < calibration(hurdle_screen, doses) < 1.3


def test_what_is_less_known_has_a_larger_sd(hurdle_screen):
    screen = hurdle_screen(N_GENES)
    effects = screen.rng.normal(0, 0.18, (6, N_GENES))
    screen.add(4000, np.zeros(7))
    for j, n in enumerate((2000, 2000, 2000, 60, 2000, 2000)):
        screen.add(n, np.eye(7)[j], angle=effects[j], mean=effects[j] / 3)
    prior = AdditiveHurdlePrior.fit(screen.data())
    identity = np.eye(7)
    control, many, few, pair, unseen = (
        sd_of(prior, doses)
        for doses in (0 * identity[0], identity[0], identity[3], identity[0] + identity[1], identity[6])
    )
    assert larger(many, control)
    assert larger(few, many, 1.5)
    assert larger(unseen, few, 1.2)
    assert larger(pair, many, 1.2)
    assert larger(sd_of(prior, identity[0] + identity[6]), unseen)
    half = sd_of(prior, 0.5 * identity[6])
    assert larger(unseen, half, 1.3)
    assert larger(sd_of(prior, 100 * identity[0]), many, 1.1)  # whether the response has levelled off is not known


def test_between_doses_less_is_known_than_at_them(hurdle_screen):
    screen = hurdle_screen(N_GENES)
    effect = screen.rng.normal(0, 0.3, N_GENES)
    screen.add(2000, [0])
    for dose, size in ((1, 0.3), (10, 0.6), (100, 1.0)):
        screen.add(500, [dose], angle=size * effect)
    prior = AdditiveHurdlePrior.fit(screen.data())
    at = {dose: rms(sd_of(prior, [dose]).angle) for dose in (1, 3, 10, 12, 31, 100, 200)}
    assert at[3] > max(at[1], at[10])
    assert at[31] > at[12] > at[10]
    assert at[200] > at[100]
    assert rms(sd_of(prior, [1e-6]).angle) < 1.05 * rms(sd_of(prior, [0]).angle)  # next to no dose, as the controls


def pairs(hurdle_screen, sd_interaction):
    """Four components, all single and five of their six pairs measured well."""
    screen = hurdle_screen(N_GENES)
    effects = screen.rng.normal(0, 0.18, (4, N_GENES))
    screen.add(8000, np.zeros(4))
    for single in np.eye(4):
        screen.add(4000, single, angle=single @ effects)
    for pair in ([1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 0, 1], [0, 1, 1, 0], [0, 1, 0, 1]):
        odd = screen.rng.normal(0, sd_interaction, N_GENES)
        screen.add(4000, pair, angle=pair @ effects + odd)
    return AdditiveHurdlePrior.fit(screen.data())


def test_interactions_of_training_combinations_widen_those_unseen(hurdle_screen):
    additive, odd = pairs(hurdle_screen, 0.0), pairs(hurdle_screen, 0.25)
    unseen, seen = [0, 0, 1, 1], [1, 1, 0, 0]
    assert rms(np.sqrt(odd.interaction_variances[0])) == pytest.approx(0.25, rel=0.3)
    assert rms(np.sqrt(additive.interaction_variances[0])) < 0.05
    assert rms(sd_of(odd, unseen).angle) > 3 * rms(sd_of(additive, unseen).angle)
    assert rms(sd_of(odd, seen).angle) < 0.4 * rms(sd_of(odd, unseen).angle)  # it has cells of its own


def test_without_combinations_interactions_are_a_tenth_of_the_mean_square_effect(hurdle_screen):
    screen = hurdle_screen(N_GENES)
    effects = screen.rng.normal(0, 0.3, (5, N_GENES))
    screen.add(4000, np.zeros(5))
    for j in range(5):
        screen.add(4000, np.eye(5)[j], angle=effects[j])
    prior = AdditiveHurdlePrior.fit(screen.data())
    assert prior.interaction_variances[0].mean() == pytest.approx(0.1 * np.mean(effects**2), rel=0.1)


def test_contexts_where_a_perturbation_was_not_seen_are_less_known(hurdle_screen):
    screen = hurdle_screen(N_GENES)
    base = [np.zeros(N_GENES), screen.rng.normal(0, 0.03, N_GENES), screen.rng.normal(0, 0.4, N_GENES)]
    effects = screen.rng.normal(0, 0.2, (3, N_GENES)) + screen.rng.normal(
        0, 0.12, (3, 3, N_GENES)
    )  # context, component
    for code in range(3):
        screen.add(2000, [0, 0, 0], [code], angle=base[code])
        for j in range(3):
            if (code, j) not in {(1, 2), (2, 2)}:
                screen.add(2000, np.eye(3)[j], [code], angle=base[code] + effects[code, j])
    prior = AdditiveHurdlePrior.fit(screen.data())
    last = np.eye(3)[2]
    seen, near, far = (sd_of(prior, last, [code]) for code in range(3))
    assert larger(far, near)
    assert rms(near.angle) > rms(seen.angle)
    controls = screen.cells(1000, screen.angle + base[2], screen.mean)
    new = sd_of(prior, np.eye(3)[0], [7], controls)
    assert larger(new, sd_of(prior, np.eye(3)[0], [0]))


def test_before_any_perturbation_the_scale_is_that_of_the_grid(hurdle_screen):
    screen = hurdle_screen(N_GENES)
    screen.add(500, [0, 0])
    sd = sd_of(AdditiveHurdlePrior.fit(screen.data()), [1, 0])
    assert (sd.angle > 0.25).all()
    assert (sd.mean > 0.4).all()


def test_genes_that_nobody_expresses_have_finite_sd(hurdle_screen):
    screen = hurdle_screen(N_GENES)
    screen.angle[:5] = -9.0
    for doses in ([0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]):
        screen.add(100, doses)
    prior = AdditiveHurdlePrior.fit(screen.data(), features=np.arange(3.0)[:, None])
    for doses in ([0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 0, 1], [1, 1, 1]):
        sd = sd_of(prior, doses)
        assert all(np.isfinite(values).all() and (values > 0).all() for values in (sd.angle, sd.mean))


def test_errors_of_shares_and_means_agree_as_effects_do():
    """Where effects are carried; those of what was sampled are independent, and all are where effects do not agree."""
    rng = np.random.default_rng(0)
    base = rng.normal(0, 0.5, (1, N_GENES))
    change = np.where(rng.random(N_GENES) < 0.5, rng.normal(0, 0.8, N_GENES), 0)
    x, doses, codes = [], [], []
    for context in range(2):
        for dose in range(2 - context):  # the perturbation is in the first context only
            x.append(np.log1p(rng.poisson(np.exp(base + dose * change), (400, N_GENES))))
            doses.append(np.full((400, 1), dose))
            codes.append(np.full((400, 1), context))
    cells = CellData(np.concatenate(x), np.concatenate(doses).astype(float), np.concatenate(codes))
    prior = AdditiveHurdlePrior.fit(cells)
    assert 0.3 < prior.agreement <= 1
    measured, carried = (sd_of(prior, [1.0], [context]).correlation for context in range(2))
    assert (measured >= 0).all()
    assert measured.mean() < 0.3 * carried.mean()
    assert (carried <= prior.agreement + 1e-6).all()
    np.testing.assert_array_equal(sd_of(prior, [0.0], [0]).correlation, 0)  # of controls all is sampled
    apart = replace(prior, effects=prior.effects * np.array([1, 0])[:, None, None, None])
    assert apart.agreement == 0
    assert not sd_of(apart, [1.0], [1]).correlation.any()
