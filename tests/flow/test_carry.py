from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from perturbflow.flow._carry import (
    WAYS_OF_ANGLES,
    Way,
    as_array,
    carried,
    choose_ways,
    compared_groups,
    from_array,
    mean_weights,
)

from .effects import carry_between, measurements


def angle(share):
    return 2 * np.arcsin(np.sqrt(share))


def share_at(angle):
    return np.sin(np.clip(angle, 0, np.pi) / 2) ** 2


def test_contexts_count_by_resemblance():
    changes, nothing = np.array([[0.01], [0.03]]), np.zeros((2, 1))
    for difference, reach in ((0.0, 0.3), (0.6, 0.3), (0.6, 2.0)):
        weight = 1 / (1 + np.exp(-difference / reach))
        found = carried(changes, nothing, np.zeros(1), np.array([1.0, 1.0 + difference]), [Way(reach)])
        assert found[0] == pytest.approx(0.01 * weight + 0.03 * (1 - weight))
    half = carried(changes, nothing, np.zeros(1), np.array([0.0, 0.0]), [Way(0.3, 0.5)])
    assert half[0] == pytest.approx(0.01)


def test_small_changes_add_and_large_ones_end_where_they_ended():
    bases, base = np.array([[2.0]]), np.array([0.5])
    for change, made_up in ((0.0, 0.0), (0.01, 1e-4 / 3.25), (1.0, 1 / 4.25), (-1.0, 1 / 4.25), (90.0, 1.0)):
        found = carried(np.array([[change]]), bases, base, np.zeros(1), [Way(0.3)])
        assert found[0] - change == pytest.approx(made_up * 1.5, rel=2e-3, abs=1e-12)


@pytest.mark.parametrize("difference", [-50.0, -1.0, 2.0, 1e4])
@pytest.mark.parametrize("change", [-3.0, 0.2, 8.0])
def test_the_difference_of_bases_changes_a_change_by_half_at_most(change, difference):
    bases = np.array([[difference]])
    found = carried(np.array([[change]]), bases, np.zeros(1), np.zeros(1), [Way(0.3)])[0]
    assert 0.5 < found / change < 1.5
    assert (found > change) == (difference > 0)
    added = carried(np.array([[change]]), bases, np.zeros(1), np.zeros(1), [Way(0.3, ends=0.0)])
    assert added[0] == change


def test_ways_are_averaged_by_their_shares():
    rng = np.random.default_rng(0)
    changes, bases, base, distances = (
        rng.normal(size=(3, 4)),
        rng.normal(size=(3, 4)),
        rng.normal(size=4),
        rng.random(3),
    )
    ways = [Way(0.3), Way(1.0, 0.5, 0.0)]
    each = [carried(changes, bases, base, distances, [way]) for way in ways]
    mixed = [way._replace(share=share) for way, share in zip(ways, (0.25, 0.75), strict=True)]
    found = carried(changes, bases, base, distances, mixed)
    np.testing.assert_allclose(found, 0.25 * each[0] + 0.75 * each[1], rtol=1e-12)
    additive = [way._replace(ends=0.0) for way in mixed]
    linear = carried(changes, bases, base, distances, additive)
    np.testing.assert_allclose(mean_weights(distances, additive) @ changes, linear, rtol=1e-12)


def test_log_odds_add_up():
    """Twice the odds stay twice the odds, also where nearly all cells express a gene."""
    shares, odds = np.array([[0.5]]), 2.0
    way = [Way(0.3, ends=0.0, odds=1.0)]
    changed = odds * shares / (1 - shares + odds * shares)
    change = angle(changed) - angle(shares)
    for own in (1e-3, 0.2, 0.5, 0.99):
        found = carried(change, angle(shares), angle(np.array([own])), np.zeros(1), way)
        expected = odds * own / (1 - own + odds * own)
        assert share_at(angle(np.array([own])) + found) == pytest.approx(expected, rel=1e-9)
    at_the_end = carried(change, angle(shares), np.array([np.pi]), np.zeros(1), way)
    assert abs(at_the_end[0]) < 0.01


def test_of_what_all_cells_express_little_is_lost_where_contexts_say_so():
    """A gene that all cells of some contexts express, and half of those of others, loses log-odds."""
    rng = np.random.default_rng(0)
    log_odds = rng.choice([0.0, 7.0], (6, 200))
    before, after = (angle(1 / (1 + np.exp(-each))) for each in (log_odds, log_odds - rng.normal(0, 1.5, 200)))
    carry = replace(carry_of(6, 200), bases=before, candidates=WAYS_OF_ANGLES)
    errors = carry.errors(measured(after - before, 1e-4))
    ways = choose_ways((carry, carry), (errors, errors))[0]
    assert sum(way.share for way in ways if way.odds) > 0.9


def test_effects_that_add_up_whatever_the_base_is_are_found_to():
    rng = np.random.default_rng(0)
    carry = replace(carry_of(5, 300), bases=rng.normal(0, 2, (5, 300)))
    common = np.repeat(rng.normal(0, 1.5, (1, 300)), 5, axis=0)
    added = chosen(carry, common + rng.normal(0, 0.05, (5, 300)))
    assert mean_of(added, "ends") < 0.2
    ended = rng.normal(0, 4, (1, 300)) - carry.bases
    assert mean_of(chosen(carry, ended), "ends") > 0.9


def chosen(carry, effects, noise=0.01):
    """The ways where both halves show the same."""
    errors = carry.errors(measured(effects, noise))
    ways, same = choose_ways((carry, carry), (errors, errors))
    assert ways == same
    assert sum(way.share for way in ways) == pytest.approx(1)
    return ways


def mean_of(ways, name):
    return sum(way.share * getattr(way, name) for way in ways)


def test_where_a_change_was_measured_it_stays():
    rng = np.random.default_rng(0)
    carry = carry_of(4)
    changes = rng.normal(size=(2, 5))
    found = carry.everywhere(np.array([0, 2]), changes)
    np.testing.assert_array_equal(found[[0, 2]], changes)
    alone = carry.everywhere(np.array([1]), changes[:1])
    np.testing.assert_allclose(alone, carried_from(carry, 1, changes[:1]), rtol=1e-12)


def carried_from(carry, observed, changes):
    return [
        changes[0]
        if context == observed
        else carried(
            changes,
            carry.bases[[observed]],
            carry.bases[context],
            np.zeros(1),
            carry.ways,
        )
        for context in range(carry.n_contexts)
    ]


def carry_of(n_contexts, n_genes=5):
    rng = np.random.default_rng(1)
    places = rng.normal(size=(n_contexts, 3))
    distances = np.square(places[:, None] - places).sum(axis=-1)
    bases = rng.normal(size=(n_contexts, n_genes)) * 0.01
    return carry_between(distances, bases)


def measured(effects, noise=0.01):
    """One component in as many contexts as there are rows."""
    n = len(effects)
    return measurements(
        effects, np.arange(n), sparse.csr_matrix(np.ones((n, 1))), variance=noise, scales=(0.2, 0.8, 1.6)
    )


def test_the_usual_way_stays_without_evidence():
    rng = np.random.default_rng(0)
    for n_contexts in (1, 2):
        carry = carry_of(n_contexts, 200)
        assert chosen(carry, np.repeat(rng.normal(0, 0.5, (1, 200)), n_contexts, axis=0)) == carry.ways


def test_effects_that_differ_everywhere_are_not_carried():
    rng = np.random.default_rng(0)
    assert mean_of(chosen(carry_of(8, 200), rng.normal(0, 0.5, (8, 200))), "scale") < 0.1


def test_effects_that_are_common_but_noisy_are_averaged_over_more_contexts():
    rng = np.random.default_rng(0)
    carry = replace(carry_of(8, 300), distances=4 * carry_of(8).distances)
    common = rng.normal(0, 0.2, (1, 300)) + rng.normal(0, 0.2, (8, 300))
    ways = chosen(carry, common, noise=0.04)
    assert sum(way.share for way in ways if way.reach > 0.3) > 0.25
    assert all(way.reach >= 0.3 for way in ways)


def test_errors_are_those_of_contexts_that_are_left_out():
    rng = np.random.default_rng(0)
    carry = replace(carry_of(4), weights=np.arange(5.0))
    effects = rng.normal(0, 1, (4, 5))
    errors = carry.errors(measured(effects, noise=1e-9))
    others = [0, 1, 3]
    found = carried(effects[others], carry.bases[others], carry.bases[2], carry.distances[2, others], carry.ways)
    assert errors[2, 0, 0] == pytest.approx(np.square(effects[2] - found) @ carry.weights, rel=1e-3)
    squares = np.diagonal(errors, axis1=1, axis2=2)
    nothing = [
        place for place in range(squares.shape[1]) if np.allclose(squares[:, place], np.square(effects) @ carry.weights)
    ]
    assert len(nothing) == 1  # the way that carries nothing
    with_nothing = (effects[2] - found) * effects[2] @ carry.weights
    assert errors[2, 0, nothing[0]] == pytest.approx(with_nothing, rel=1e-3)


CARRIES = carry_of(2), carry_of(2)


@pytest.mark.parametrize("size", [1.0, 2.0, 30.0, 0.2])
def test_shares_are_those_with_the_lowest_errors_near_the_way_that_is_surely_best(size):
    """Two ways with independent errors, the second of the given size: from the derivative of n (w^2 + a (1 - w)^2) / 2 + 2 (1 - w)^2."""
    n_contexts, others = 6, [1, 2, 3, 5, 6, 7, 8, 9]
    errors = np.zeros((2, n_contexts, 10, 10))
    errors[:, :, others, others] = 1e6
    errors[:, :, 0, 0], errors[:, :, 4, 4] = 1.0, size
    ways = choose_ways(CARRIES, errors)[0]
    caution = (2, 0) if size >= 1 else (0, 2)  # the second is surely better where its error is smaller
    expected = (n_contexts / 2 * size + caution[0]) / (n_contexts / 2 * (1 + size) + 2)
    assert ways[0].share == pytest.approx(expected, abs=2e-3)
    assert ways[0].reach == 0.3
    assert ways[1].ends == 0


def test_halves_are_carried_as_is_best_for_both_together():
    """What one half shows by far counts; a half that makes no error of the mean expression does not change the other."""
    rng = np.random.default_rng(0)
    errors = np.ones((2, 6, 10, 10)) * rng.uniform(5, 10, (1, 6, 1, 1))  # all ways make the same errors
    assert choose_ways(CARRIES, errors) == ((Way(0.3),), (Way(0.3),))
    errors[0, :, 2] *= 0.1
    errors[0, :, :, 2] *= 0.1
    for size in (1.0, 1e-6):
        errors[1] *= size
        ways = choose_ways(CARRIES, errors)
        assert ways[0][0].reach == 0.1 or ways[0][0].reach == 1.0
        assert len(ways[0]) == 1
        assert ways[1] == (Way(0.3),)


def test_contexts_have_to_be_enough():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(2, 5, 10, 30)) + 3 * rng.normal(size=(2, 5, 1, 30))  # errors that ways have in common
    errors = vectors @ vectors.swapaxes(-1, -2)
    assert choose_ways(CARRIES, errors[:, :2]) == ((Way(0.3),), (Way(0.3),))
    assert choose_ways(CARRIES, np.zeros_like(errors)) == ((Way(0.3),), (Way(0.3),))  # nothing was compared
    some = errors.copy()
    some[:, 3:] = 0
    assert choose_ways(CARRIES, some) == choose_ways(CARRIES, errors[:, :3])


def test_ways_are_numbers_and_back():
    ways = [(Way(0.3, share=0.25), Way(1.0, 0.5, 0.0, share=0.75)), (Way(1e3),)]
    numbers = as_array(ways)
    assert numbers.shape == (2, 2, 5)
    assert from_array(numbers) == ways


def test_groups_that_are_compared_are_of_one_level_in_several_contexts():
    design = sparse.csr_matrix(
        np.array([[1, 0, 0], [0, 1, 0], [1, 1, 0], [1, 0, 0], [0, 0.5, 0], [0, 0, 1], [0, 1, 0]])
    )
    which = np.array([0, 0, 0, 1, 1, 1, 2])
    np.testing.assert_array_equal(compared_groups(design, which), [0, 1, 3, 6])
    assert not len(compared_groups(design[5:6], which[5:6]))
    assert not len(compared_groups(design[:0], which[:0]))
    many = sparse.csr_matrix(np.kron(np.ones((2, 1)), np.eye(250)))
    assert len(compared_groups(many, np.repeat([0, 1], 250))) == 200
