from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from scipy import sparse

from perturbflow.datasets import simulated_contexts
from perturbflow.flow import AdditiveHurdlePrior, CellData, HurdleDistribution, mean_expression
from perturbflow.flow._hurdle_distribution import evidence_variance

N_GENES = 60
CONTAINERS = [np.asarray, sparse.csr_matrix, sparse.csr_array]


def angle(share):
    return 2 * np.arcsin(np.sqrt(share))


def distribution_of(prior, doses, codes=(), controls=None):
    return prior.distribution(
        np.array(doses, dtype=np.float32), prior.context(np.array(codes, dtype=np.int64), controls)
    )


def change(prior, doses, codes=(), controls=None):
    """Change of angles and means against the context's base."""
    context = prior.context(np.array(codes, dtype=np.int64), controls)
    distribution = prior.distribution(np.array(doses, dtype=np.float32), context)
    return angle(distribution.expressed) - context.base_angle, distribution.mean - context.base_mean


def rmse(x, y):
    return float(np.sqrt(np.mean(np.square(np.asarray(x) - np.asarray(y)))))


def same_law(found, expected, **tolerance):
    for name in ("expressed", "mean", "variance"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), **tolerance)


@pytest.fixture
def additive(hurdle_screen):
    """Three perturbations with additive effects, all single and one of the pairs measured in many cells."""
    screen = hurdle_screen(N_GENES)
    angles, mean = screen.rng.normal(0, 0.25, (3, N_GENES)), screen.rng.normal(0, 0.2, (3, N_GENES))
    screen.add(4000, [0, 0, 0])
    for doses in ([1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]):
        screen.add(4000, doses, angle=doses @ angles, mean=doses @ mean)
    return screen, angles, mean


def test_additive_effects_are_recovered_in_a_combination_never_seen(additive):
    screen, angles, mean = additive
    prior = AdditiveHurdlePrior.fit(screen.data())
    found_angles, found_mean = change(prior, [0, 1, 1])
    # The sampling error of an angle in 4000 cells is 0.016; three groups enter.
    assert rmse(found_angles, angles[1] + angles[2]) < 0.04
    assert rmse(found_mean, mean[1] + mean[2]) < 0.03
    # Of cells of one condition, whatever the differences between conditions are.
    np.testing.assert_allclose(prior.variance, 0.3**2, rtol=0.06)


def test_training_conditions_are_fitted_with_their_interactions(additive, hurdle_screen):
    screen, angles, mean = additive
    odd = np.where(np.arange(N_GENES) < 10, 0.5, 0.0)
    screen.groups.pop()
    screen.add(4000, [1, 1, 0], angle=angles[0] + angles[1] + odd, mean=mean[0] + mean[1])
    prior = AdditiveHurdlePrior.fit(screen.data())
    without = replace(prior, interactions=np.zeros_like(prior.interactions))
    truth = angles[0] + angles[1] + odd
    assert rmse(change(prior, [1, 1, 0])[0], truth) < 0.04
    assert rmse(change(without, [1, 1, 0])[0][:10], truth[:10]) > 0.1
    # Only there: a step away from the training condition nothing of it is left.
    near = np.array([0.999, 1, 0])
    same_law(distribution_of(prior, near), distribution_of(without, near), rtol=0)
    same_law(distribution_of(prior, near), distribution_of(without, [1, 1, 0]), rtol=0.01)


def test_order_of_components_does_not_matter(additive):
    screen, _, _ = additive
    cells, order = screen.data(), [2, 0, 1]
    prior = AdditiveHurdlePrior.fit(cells)
    swapped = AdditiveHurdlePrior.fit(CellData(cells.x, cells.perturbations[:, order], cells.covariates))
    for doses in np.array([[1, 0, 0], [1, 1, 0], [0, 1, 1], [1, 1, 1]]):
        # Components are shrunken in turn, so not to the last digit.
        assert rmse(change(prior, doses)[0], change(swapped, doses[order])[0]) < 0.02


def same_fields(prior, other, *, atol=1e-4):
    """Effects are rounded to 3e-5 of the largest of a gene; the rounding may differ."""
    for field in fields(prior):
        one, two = getattr(prior, field.name), getattr(other, field.name)
        np.testing.assert_allclose(one, two, rtol=2e-3 if field.name == "effect_variances" else 1e-5, atol=atol)


def test_order_of_cells_does_not_matter(additive):
    cells = additive[0].data()
    shuffled = cells.subset(np.random.default_rng(0).permutation(len(cells)))
    prior, other = AdditiveHurdlePrior.fit(cells), AdditiveHurdlePrior.fit(shuffled)
    same_fields(prior, other)


@pytest.mark.parametrize("container", CONTAINERS)
def test_sparse_cells_give_the_same_prior(additive, container):
    screen, _, _ = additive
    prior, other = AdditiveHurdlePrior.fit(screen.data()), AdditiveHurdlePrior.fit(screen.data(container))
    same_fields(prior, other)


def three_contexts(hurdle_screen, effects, *, n_cells=2000):
    """Controls of two contexts that resemble each other and of one that does not; one perturbation in 0 and 2."""
    screen = hurdle_screen(N_GENES)
    far = screen.rng.normal(0, 0.4, N_GENES)
    near = screen.rng.normal(0, 0.03, N_GENES)
    base = [0.0, near, far]
    for code in range(3):
        screen.add(n_cells, [0], [code], angle=base[code])
    for code, effect in effects.items():
        screen.add(n_cells, [1], [code], angle=base[code] + effect)
    return screen, base


def test_a_left_out_context_gets_the_effect_of_the_similar_one(hurdle_screen):
    rng = np.random.default_rng(5)
    effects = {0: rng.normal(0, 0.3, N_GENES), 2: rng.normal(0, 0.3, N_GENES)}
    prior = AdditiveHurdlePrior.fit(three_contexts(hurdle_screen, effects)[0].data())
    found = change(prior, [1], [1])[0]
    assert rmse(found, effects[0]) < 0.4 * rmse(found, effects[2])
    for code in (0, 2):  # and the others keep their own
        assert rmse(change(prior, [1], [code])[0], effects[code]) < 0.07


def test_a_left_out_context_gets_what_the_others_have_in_common(hurdle_screen):
    effect = np.random.default_rng(5).normal(0, 0.3, N_GENES)
    prior = AdditiveHurdlePrior.fit(three_contexts(hurdle_screen, {0: effect, 2: effect})[0].data())
    assert rmse(change(prior, [1], [1])[0], effect) < 0.08


def test_a_new_context_is_placed_by_its_controls(hurdle_screen):
    rng = np.random.default_rng(5)
    effects = {0: rng.normal(0, 0.3, N_GENES), 2: rng.normal(0, 0.3, N_GENES)}
    screen, base = three_contexts(hurdle_screen, effects)
    prior = AdditiveHurdlePrior.fit(screen.data())
    controls = screen.cells(500, screen.angle + base[2] + 0.03, screen.mean)
    context = prior.context(np.array([9]), controls)
    assert context.index is None
    assert context.distances.argmin() == 2
    np.testing.assert_allclose(context.expressed, (controls > 0).mean(0), rtol=1e-6)
    found = change(prior, [1], [9], controls)[0]
    assert rmse(found, effects[2]) < 0.4 * rmse(found, effects[0])
    for container in (sparse.csr_matrix, sparse.csr_array):
        same_law(
            distribution_of(prior, [1], [9], container(controls)), distribution_of(prior, [1], [9], controls), rtol=1e-5
        )


@pytest.mark.parametrize("perturbations", [([1],), ([1, 0], [0, 1], [1, 1])])
def test_a_new_context_is_as_one_registered_without_perturbed_cells(hurdle_screen, perturbations):
    """Whether its controls are among the training cells or come later makes no difference."""
    rng = np.random.default_rng(3)
    screens = hurdle_screen(N_GENES), hurdle_screen(N_GENES)
    bases = [rng.normal(0, size, N_GENES) for size in (0.0, 0.1, 0.3, 0.2)]
    for screen in screens:
        for code, base in enumerate(bases[:3]):
            screen.add(300, [0] * len(perturbations[0]), [code], angle=base)
            for i, doses in enumerate(perturbations):
                screen.add(200, doses, [code], angle=base + 0.2 * i + bases[code - 1])
    controls = screens[1].add(150, [0] * len(perturbations[0]), [3], angle=bases[3])
    later, registered = (AdditiveHurdlePrior.fit(screen.data()) for screen in screens)
    assert later.context(np.array([3]), controls).index is None
    assert registered.context(np.array([3])).index == 3
    for doses in (*perturbations, [0.5] * len(perturbations[0])):
        same_law(distribution_of(later, doses, [3], controls), distribution_of(registered, doses, [3]), rtol=1e-3)
        sds = [
            prior.distribution_sd(np.array(doses), prior.context(np.array([3]), controls)).angle
            for prior in (later, registered)
        ]
        np.testing.assert_allclose(sds[0], sds[1], rtol=1e-3)


def test_what_perturbations_do_in_a_new_context_is_read_from_its_controls():
    """As in one that is registered, and better than what the others have in common."""
    adata = simulated_contexts(8, 20, n_genes=60, interaction=0.6, readable=1.0, n_controls=100, n_cells=40, seed=1)
    contexts = adata.obs["context"].cat.codes.to_numpy().astype(int)
    names = adata.uns["perturbation_factors"].index
    number = names.get_indexer(adata.obs["perturbation"])
    doses = (number[:, None] == np.arange(len(names))).astype(np.float32)
    is_new, is_control = contexts == 7, number < 0
    later, registered = (
        AdditiveHurdlePrior.fit(CellData(adata.X[rows], doses[rows], contexts[rows, None]))
        for rows in (~is_new, ~is_new | is_control)
    )
    assert (later.slope > 0).all()
    np.testing.assert_allclose(later.slope, registered.slope, rtol=1e-3)
    new = later.context(np.array([7]), adata.X[is_new & is_control])
    known = registered.context(np.array([7]))
    nothing_read = replace(later, level_factors=np.zeros_like(later.level_factors))
    errors = []
    for place, dose in enumerate(np.eye(len(names), dtype=np.float32)[:8]):
        distribution = later.distribution(dose, new)
        same_law(distribution, registered.distribution(dose, known), rtol=2e-3)
        sds = later.distribution_sd(dose, new).angle, registered.distribution_sd(dose, known).angle
        np.testing.assert_allclose(*sds, rtol=2e-3)
        true = adata.uns["expected"]["all"].loc[f"context_7|{names[place]}"].to_numpy()
        carried_law = nothing_read.distribution(dose, new)
        errors.append([np.square(each.expressed * each.mean - true).mean() for each in (distribution, carried_law)])
    read, carried = np.mean(errors, axis=0)
    assert read < 0.6 * carried


def test_the_further_a_new_context_the_less_is_known(hurdle_screen):
    rng = np.random.default_rng(3)
    screen = hurdle_screen(N_GENES)
    directions = rng.normal(0, 0.2, (2, N_GENES))
    for code in range(3):
        base = directions[code - 1] if code else 0.0
        screen.add(500, [0], [code], angle=base)
        screen.add(500, [1], [code], angle=base + 0.3)
    prior = AdditiveHurdlePrior.fit(screen.data())
    far = rng.normal(0, 0.6, N_GENES)
    contexts = [
        prior.context(np.array([9]), screen.cells(500, screen.angle + part * far, screen.mean)) for part in (0, 0.5, 1)
    ]
    assert (np.diff([context.distances.min() for context in contexts]) > 0).all()
    assert (np.diff([np.median(prior.distribution_sd(np.ones(1), context).angle) for context in contexts]) > 0).all()


def test_a_new_context_without_controls_is_an_error(additive):
    prior = AdditiveHurdlePrior.fit(additive[0].data())
    known = replace(prior, contexts=np.array([[0]]))
    for controls in (None, np.zeros((0, N_GENES), dtype=np.float32)):
        with pytest.raises(
            ValueError, match=r"control cells for the new context with covariate codes \[3\], found none"
        ):
            known.context(np.array([3]), controls)


def test_interactions_stay_in_the_training_context(hurdle_screen):
    """Also where there is a single training context for a new one to be compared with."""
    screen = hurdle_screen(N_GENES)
    odd = np.where(np.arange(N_GENES) < 10, 0.7, 0.0)
    for doses in ([0, 0], [1, 0], [0, 1]):
        screen.add(2000, doses, [0])
    screen.add(2000, [1, 1], [0], angle=odd)
    prior = AdditiveHurdlePrior.fit(screen.data())
    controls = screen.cells(2000, screen.angle, screen.mean)
    known, new = change(prior, [1, 1], [0])[0], change(prior, [1, 1], [1], controls)[0]
    without = replace(prior, interactions=np.zeros_like(prior.interactions))
    assert rmse(known[:10], odd[:10]) < 0.07
    np.testing.assert_allclose(new, change(without, [1, 1], [1], controls)[0])


def test_a_perturbation_that_does_nothing_predicts_controls(hurdle_screen):
    n = 300
    screen = hurdle_screen(N_GENES)
    screen.add(2000, [0, 0, 0])
    for single in np.eye(3):
        screen.add(n, single)
    prior = AdditiveHurdlePrior.fit(screen.data())
    control = distribution_of(prior, [0, 0, 0])
    p = control.expressed
    for doses in ([1, 0, 0], [1, 1, 0]):
        distribution, bound = (
            distribution_of(prior, doses),
            0.5 * sum(doses),
        )  # standard errors of a group; unshrunken it would be 1
        assert rmse((distribution.expressed - p) / np.sqrt(p * (1 - p) / n), 0) < bound
        assert rmse(distribution.mean, control.mean) < bound * 0.3 / np.sqrt(n * p.mean())


def test_dose_zero_is_control(additive):
    screen, _, _ = additive
    prior = AdditiveHurdlePrior.fit(screen.data())
    controls = screen.groups[0][0]
    distribution = distribution_of(prior, [0, 0, 0])
    np.testing.assert_allclose(distribution.expressed, (controls > 0).mean(0), atol=1 / len(controls))
    np.testing.assert_allclose(distribution.mean, controls.sum(0) / (controls > 0).sum(0), atol=0.02)
    for j in range(3):
        # The smallest dose is next to it, up to the few pseudo-cells by which the base is shrunken.
        tiny = distribution_of(prior, 1e-6 * np.eye(3)[j])
        np.testing.assert_allclose(tiny.expressed, distribution.expressed, atol=2 / len(controls))


def test_doses_lie_between_measured_ones_and_do_not_extrapolate(hurdle_screen):
    screen = hurdle_screen(N_GENES)
    effect = screen.rng.normal(0, 0.3, N_GENES)
    response = {1: 0.5, 2: 0.9, 4: 1.0}  # which no straight line describes
    screen.add(3000, [0, 0])
    for dose, size in response.items():
        screen.add(3000, [dose, 0], angle=size * effect)
    screen.add(3000, [0, 1])
    prior = AdditiveHurdlePrior.fit(screen.data())
    assert prior.dose_unit.tolist() == [4, 1]
    for dose, size in response.items():
        assert rmse(change(prior, [dose, 0])[0], size * effect) < 0.04
    without = replace(prior, interactions=np.zeros_like(prior.interactions))
    for kind in range(2):
        at = {dose: change(without, [dose, 0])[kind] for dose in (0.5, 1, 2, 3, 4)}
        np.testing.assert_allclose(at[3], (at[2] + at[4]) / 2, atol=1e-4)
        np.testing.assert_allclose(at[0.5], at[1] / 2, atol=1e-4)
    for fitted in (prior, without):
        same_law(distribution_of(fitted, [400, 0]), distribution_of(fitted, [4, 0]), rtol=0)


def test_doses_over_decades_are_compared_by_their_logarithms(hurdle_screen):
    screen = hurdle_screen(N_GENES)
    screen.add(1000, [0])
    for dose in (10, 1000):
        screen.add(1000, [dose], angle=screen.rng.normal(0, 0.3, N_GENES))
    prior = AdditiveHurdlePrior.fit(screen.data())
    prior = replace(prior, interactions=np.zeros_like(prior.interactions))
    low, middle, high = (change(prior, [dose])[0] for dose in (10, 100, 1000))
    np.testing.assert_allclose(middle, (low + high) / 2, atol=1e-4)


def test_a_dose_with_few_cells_takes_after_the_next_higher_one(hurdle_screen):
    """Also where its response is smaller, which all genes together tell."""
    screen = hurdle_screen(N_GENES)
    effect = screen.rng.normal(0, 0.3, N_GENES)
    screen.add(3000, [0])
    screen.add(3000, [10], angle=effect)
    for dose in (1, 3):
        screen.add(15, [dose], angle=0.5 * effect)
    prior = AdditiveHurdlePrior.fit(screen.data())
    for dose in (1, 3):  # the sampling error of 15 cells is 0.26
        assert rmse(change(prior, [dose])[0], 0.5 * effect) < 0.12


@pytest.mark.parametrize("n", [1, 3, 20, 100])
def test_genes_that_all_or_none_of_the_controls_express(n):
    """A gene that a perturbation switches on, or off, in 90 % of n cells is predicted in as many."""
    rng, n_on = np.random.default_rng(0), max(1, round(0.9 * n))
    x = np.where(rng.random((400 + 2 * n, 30)) < 0.6, rng.normal(2, 0.3, (400 + 2 * n, 30)), 0).astype(np.float32)
    x[:, :2], x[400 : 400 + n_on, 0] = 0, 2.0
    x[:, 2:4] = 2.0
    x[400 + n : 400 + n + n_on, 2] = 0
    doses = np.repeat([[0, 0], [1, 0], [0, 1]], [400, n, n], axis=0)
    prior = AdditiveHurdlePrior.fit(CellData(x, doses, np.zeros((len(x), 0), dtype=int)))
    on, off, share = distribution_of(prior, [1, 0]).expressed, distribution_of(prior, [0, 1]).expressed, n_on / n
    if n >= 20:
        assert abs(on[0] - share) < 0.05
        assert abs(off[2] - (1 - share)) < 0.05
    assert off[0] < 0.01
    assert max(on[1], off[1]) < 0.01
    assert min(on[2:4]) > 0.99
    assert off[3] > 0.99
    context = prior.context(np.zeros(0, dtype=int))
    if n >= 20:
        sd = mean_expression(prior, np.array([1.0, 0.0]), context)[1][0]
        assert sd == pytest.approx(2 * np.sqrt(share * (1 - share) / n), rel=0.5)


def test_a_complete_knock_out_is_stronger_evidence_than_a_partial_one():
    before, n = np.full(3, 0.9), 100
    after = np.array([0.5, 0.2, 0.0])
    strength = (angle(after) - angle(before)) ** 2 / evidence_variance(before, 400.0, after, n)
    assert (np.diff(strength) > 0).all()
    assert strength[2] > 200
    # And none of 20 cells where 5 % are expected is none: two binomial standard errors of the angle would be.
    few = evidence_variance(np.array([0.05]), 400.0, np.array([0.0]), 20)
    assert angle(np.array([0.05]))[0] / np.sqrt(few[0]) < 1.7


def test_parts_of_a_combination_beyond_the_end_of_the_range(hurdle_screen):
    """Two perturbations that each silence a gene silence it together; neither is taken for half of the effect."""
    screen = hurdle_screen(N_GENES)
    silencing = np.where(np.arange(N_GENES) < 20, -4.0, 0.0)
    screen.add(1000, [0, 0, 0, 0])
    for doses in ([1, 0, 0, 0], [0, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [1, 0, 1, 0], [0, 1, 0, 1]):
        screen.add(300, doses, angle=silencing)
    prior = AdditiveHurdlePrior.fit(screen.data())
    for doses in np.eye(4)[:2]:
        assert distribution_of(prior, doses).expressed[:20].max() < 0.03
    without = replace(prior, interactions=np.zeros_like(prior.interactions))
    assert distribution_of(without, [1, 0, 0, 0]).expressed[:20].max() < 0.05
    assert distribution_of(prior, [1, 0, 0, 1]).expressed[:20].max() < 0.03


def test_an_unseen_component_has_the_mean_effect(hurdle_screen):
    screen = hurdle_screen(N_GENES)
    effects = screen.rng.normal(0, 0.2, N_GENES) + screen.rng.normal(0, 0.1, (6, N_GENES))
    screen.add(3000, np.zeros(7))
    for j in range(6):
        screen.add(3000, np.eye(7)[j], angle=effects[j])
    prior = AdditiveHurdlePrior.fit(screen.data())
    assert prior.trained.tolist() == [True] * 6 + [False]
    found = change(prior, np.eye(7)[6])[0]
    assert rmse(found, effects.mean(0)) < 0.03
    np.testing.assert_allclose(found, prior.shared[0, 0], atol=1e-4)


def test_the_mean_effect_is_that_of_one_component(hurdle_screen):
    """Also where components were only seen in pairs, with twice the effect."""
    screen = hurdle_screen(N_GENES)
    effect = screen.rng.normal(0, 0.2, N_GENES)
    screen.add(3000, np.zeros(5))
    for pair in ([1, 1, 0, 0, 0], [0, 0, 1, 1, 0], [0, 1, 1, 0, 0]):
        screen.add(3000, pair, angle=2 * effect)
    prior = AdditiveHurdlePrior.fit(screen.data())
    assert rmse(change(prior, np.eye(5)[4])[0], effect) < 0.03


def test_small_doses_say_little_about_the_effect(hurdle_screen):
    screen = hurdle_screen(N_GENES)
    effect = screen.rng.normal(0, 0.3, N_GENES)
    screen.add(3000, [0])
    screen.add(300, [10], angle=effect)
    alone = AdditiveHurdlePrior.fit(screen.data())
    screen.add(300, [1], angle=0.1 * effect)
    both = AdditiveHurdlePrior.fit(screen.data())
    errors = [rmse(change(prior, [9])[0], 0.9 * effect) for prior in (alone, both)]  # at a dose without interaction
    assert errors[1] < 1.1 * errors[0]


def test_only_controls(hurdle_screen):
    screen = hurdle_screen(N_GENES)
    screen.add(100, [0, 0])
    prior = AdditiveHurdlePrior.fit(screen.data())
    for values in change(prior, [1, 1]):
        np.testing.assert_allclose(values, 0, atol=1e-4)


def test_genes_that_nobody_expresses(hurdle_screen):
    screen = hurdle_screen(N_GENES)
    screen.angle[:5] = -9.0
    screen.add(100, [0, 0])
    for doses in ([1, 0], [0, 1], [1, 1]):
        screen.add(100, doses, angle=0.5)
    prior = AdditiveHurdlePrior.fit(screen.data())
    for doses in ([0, 0], [1, 0], [1, 1]):
        distribution = distribution_of(prior, doses)
        assert (distribution.expressed[:5] < 0.01).all()
        assert all(
            np.isfinite(a).all() and (a > 0).all()
            for a in (distribution.expressed, distribution.mean, distribution.variance)
        )


def test_a_context_without_controls_is_an_error(hurdle_screen):
    screen = hurdle_screen(4)
    screen.add(10, [0], [0, 0])
    screen.add(10, [1], [0, 0])
    screen.add(10, [1], [0, 1])
    with pytest.raises(ValueError, match=r"control cells in every context, found none with covariate codes \[0, 1\]"):
        AdditiveHurdlePrior.fit(screen.data())


def test_pooled_law_is_that_of_all_cells(additive):
    cells = additive[0].data()
    distribution = AdditiveHurdlePrior.fit(cells).pooled_distribution()
    expressed = (cells.x > 0).mean(0)
    np.testing.assert_allclose(distribution.expressed, expressed, atol=1e-4)
    np.testing.assert_allclose(distribution.mean, cells.x.sum(0) / (cells.x > 0).sum(0), atol=1e-2)


def test_sampled_cells_follow_the_law(additive):
    n = 5000
    prior = AdditiveHurdlePrior.fit(additive[0].data())
    distribution = distribution_of(prior, [1, 0, 1])
    cells = prior.sample(distribution, n, rng=np.random.default_rng(0))
    assert cells.shape == (n, N_GENES)
    assert cells.dtype == np.float32
    assert_marginals(cells, distribution, distribution.variance)
    correlation = np.asarray(np.corrcoef(cells.T))[np.triu_indices(N_GENES, 1)]
    assert correlation.std() == pytest.approx(1 / np.sqrt(n), rel=0.1)


def assert_marginals(cells, distribution, variance):
    """Within 5 standard errors in 2 * 60 genes."""
    n, n_expressing = len(cells), (cells > 0).sum(0)
    p = distribution.expressed
    assert (np.abs((cells > 0).mean(0) - p) < 5 * np.sqrt(p * (1 - p) / n) + 1e-9).all()
    mean = cells.sum(0) / n_expressing
    assert (np.abs(mean - distribution.mean) < 5 * np.sqrt(variance / n_expressing)).all()


def correlated_controls(rng, n):
    """Half the genes follow one hidden state of the cell, the others its opposite."""
    state = rng.random(n) < 0.5
    active = np.where(np.arange(N_GENES) < N_GENES // 2, state[:, None], ~state[:, None])
    expressed = rng.random((n, N_GENES)) < np.where(active, 0.8, 0.2)
    return np.where(expressed, rng.normal(2.0, 0.3, (n, N_GENES)), 0).astype(np.float32)


@pytest.fixture(scope="module")
def correlated():
    rng = np.random.default_rng(0)
    controls = correlated_controls(rng, 5000)
    x = np.concatenate([controls, controls[:200]])
    cells = CellData(x, np.arange(len(x))[:, None] >= 5000, np.zeros((len(x), 0), dtype=int))
    prior = AdditiveHurdlePrior.fit(cells)
    return prior, prior.context(np.zeros(0, dtype=int)), controls


def test_moving_to_their_own_law_leaves_cells_as_they_are(correlated):
    prior, context, controls = correlated
    controls = controls.copy()
    controls[0, 0], controls[1, 0] = 0.01, 9.0  # values that no distribution would give
    distribution = HurdleDistribution(
        context.expressed.astype(np.float32), context.mean.astype(np.float32), prior.variance
    )
    before = controls.copy()
    moved = prior.move(controls, distribution, context, rng=np.random.default_rng(0))
    assert (moved == controls).all()
    assert moved is not controls
    moved[:] = 0
    assert (controls == before).all()


def test_moved_cells_have_the_marginals_of_the_law(correlated):
    prior, context, controls = correlated
    rng = np.random.default_rng(0)
    distribution = HurdleDistribution(
        rng.uniform(0.05, 0.95, N_GENES).astype(np.float32),
        rng.uniform(1.5, 3.0, N_GENES).astype(np.float32),
        prior.variance,
    )
    moved = prior.move(controls, distribution, context, rng=rng)
    assert moved.dtype == np.float32
    assert_marginals(moved, distribution, prior.variance)


def test_moved_cells_change_only_one_way(correlated):
    prior, context, controls = correlated
    for factor in (0.5, 1.5):
        distribution = HurdleDistribution(
            (context.expressed * factor).astype(np.float32), context.mean.astype(np.float32), prior.variance
        )
        moved = prior.move(controls, distribution, context, rng=np.random.default_rng(0))
        more, less = (moved > 0) & (controls == 0), (moved == 0) & (controls > 0)
        assert more.any() == (factor > 1)
        assert less.any() == (factor < 1)
        both = (moved > 0) & (controls > 0)
        assert (moved[both] == controls[both]).all()


def test_moved_cells_keep_the_dependence_of_controls(correlated):
    prior, context, controls = correlated
    distribution = prior.distribution(np.ones(1, dtype=np.float32), context)  # of a perturbation that does nothing
    truth = np.corrcoef(controls.T)
    moved = np.corrcoef(prior.move(controls, distribution, context, rng=np.random.default_rng(0)).T)
    drawn = np.corrcoef(prior.sample(distribution, len(controls), rng=np.random.default_rng(0)).T)
    assert rmse(moved, truth) < 0.03
    assert rmse(drawn, truth) > 0.25


def test_round_trip_through_arrays(additive):
    prior = AdditiveHurdlePrior.fit(additive[0].data())
    arrays = prior.to_arrays()
    assert all(isinstance(array, np.ndarray) for array in arrays.values())
    rebuilt = AdditiveHurdlePrior.from_arrays(arrays)
    for doses in ([0, 0, 0], [1, 1, 0], [0.5, 0, 1]):
        same_law(distribution_of(rebuilt, doses), distribution_of(prior, doses), rtol=0)
    for name, array in rebuilt.to_arrays().items():
        assert array.dtype == arrays[name].dtype
