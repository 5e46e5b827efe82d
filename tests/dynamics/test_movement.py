from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from scipy.stats import f as f_distribution
from scipy.stats import f_oneway

from perturbflow.dynamics import Movement, Trajectory, smooth
from perturbflow.dynamics._movement import rest

TIME = np.linspace(0, 3, 15)


def runs(*genes, n=4, held=None, time=TIME):
    """Runs of genes, functions of the time and the number of the run; ``held`` says in which runs each is held."""
    held = held or {}
    return [
        Trajectory(
            f"run {k}",
            time,
            np.column_stack([np.broadcast_to(gene(time, k), time.shape) for gene in genes]).astype(float),
            np.ones(len(time)),
            np.array([k in held.get(number, ()) for number in range(len(genes))]),
        )
        for k in range(n)
    ]


def wave(time, k):
    return 2 + np.sin(time + k)


def noise(mean, spread):
    return lambda time, k: mean + spread * np.random.default_rng(k).normal(size=len(time))


@pytest.mark.parametrize(
    "gene",
    [
        lambda time, k: 0,
        lambda time, k: 3,
        lambda time, k: np.float32(0.1) * np.ones(len(time), dtype=np.float32) * 3 / 3,
        noise(0, 1e-17),
        noise(5, 1e-8),
        noise(0, 0.01),
        noise(3, 0.1),
        lambda time, k: np.clip(noise(0, 0.05)(time, k), 0, None),
    ],
    ids=["0", "3", "float32", "dust at 0", "dust at 5", "noise at 0", "noise at 3", "noise that is cut"],
)
def test_constants_and_small_noise_do_not_move(gene):
    found = Movement.of(runs(wave, gene))
    assert found.moves.tolist() == found.varies.tolist() == [True, False]
    assert not found.is_negative.any()


@pytest.mark.parametrize(
    "gene",
    [
        lambda time, k: 1e-3 * np.sin(time),
        lambda time, k: 1000 + 0.01 * time,
        lambda time, k: (k == 2) * time,
        lambda time, k: 0.1 * np.sin(2 * time) + noise(0, 0.05)(time, k),
        noise(0, 1.0),
    ],
    ids=["little", "little of much", "in one run", "little in noise", "as much as others, be it noise"],
)
def test_what_moves(gene):
    assert Movement.of(runs(wave, gene)).moves.tolist() == [True, True]


def test_noise_cannot_be_told_from_change_in_few_times():
    few = np.array([0.0, 6.0, 12.0])
    assert Movement.of(runs(wave, noise(0, 0.1), time=few)).moves.all()
    assert Movement.of(runs(wave, lambda time, k: 3, time=few)).moves.tolist() == [True, False]
    five = np.linspace(0, 3, 5)  # the fewest that tell it
    assert Movement.of(runs(wave, noise(2, 0.05), n=6, time=five)).moves.tolist() == [True, False]


def test_noise_alone_is_all_there_is():
    assert Movement.of(runs(noise(0, 1), noise(1, 1))).moves.all()


def family(gene):
    """Genes of ascending size between nothing and what is clear, small beside a wave."""
    return [partial(gene, size=size) for size in np.linspace(0, 0.05, 41)]


def test_small_genes_move_where_their_curve_is_more_than_noise():
    genes = family(lambda time, k, size: 2 + 3 * size * np.sin(time) + noise(0, 0.02)(time, k))
    observed = runs(*[wave] * len(genes), *genes, n=1)  # most are clear
    found = Movement.of(observed).moves
    curve = smooth(observed[0])
    freedom, levels = curve.freedom, curve(TIME)
    signal = ((levels - levels.mean(axis=0)) ** 2).sum(axis=0) / (freedom - 1)
    chance = f_distribution.sf(signal / curve.noise**2, freedom - 1, len(TIME) - freedom)
    assert len(genes) + 5 < found.sum() < 2 * len(genes) - 5
    np.testing.assert_array_equal(found, chance < 0.005)


@pytest.mark.parametrize("n_times", [15, 6])
def test_genes_vary_where_means_of_runs_differ_by_more_than_noise(n_times):
    wiggle = 0.02 * np.where(np.arange(len(TIME)) % 2, 1.0, -1.0)
    genes = family(lambda time, k, size: 2 + size * (k % 2) + wiggle[: len(time)])
    observed = [*runs(wave, *genes, n=3), *runs(wave, *genes, n=4, time=TIME[:n_times])[3:]]
    found = Movement.of(observed)
    expected = [f_oneway(*(run.values[:, gene] for run in observed)).pvalue < 0.005 for gene in range(1, 42)]
    assert 5 < sum(expected) < 36
    assert found.varies[1:].tolist() == expected


def test_times_count_by_their_weights():
    """What is mere noise moves where it changes half as much as what is clear, as weighted standard deviations."""
    weight = np.linspace(0.1, 4, len(TIME)) ** 2
    sizes = np.linspace(0.02, 0.2, 41)
    one = runs(wave, *(noise(2, size) for size in sizes), n=1)[0]
    one = replace(one, weight=weight)
    mean = np.average(one.values, axis=0, weights=weight)
    spread = np.sqrt(np.average((one.values - mean) ** 2, axis=0, weights=weight))
    expected = spread >= spread[0] / 2
    assert 5 < expected[1:].sum() < 36
    np.testing.assert_array_equal(Movement.of([one]).moves, expected)


def test_nothing_moves():
    found = Movement.of(runs(lambda time, k: 0, lambda time, k: 3))
    assert not found.moves.any()
    assert not found.varies.any()


@pytest.mark.parametrize("spread", [0.0, 0.01])
def test_levels_that_differ_between_runs_vary(spread):
    found = Movement.of(runs(wave, lambda time, k: k + noise(0, spread)(time, k)))
    assert found.moves.tolist() == [True, False]
    assert found.varies.tolist() == [True, True]


@pytest.mark.parametrize(
    ("gene", "varies"),
    [
        (lambda time, k: 0.0 if k == 3 else 2.0, True),
        (lambda time, k: 2 + time * (k == 3), True),
        (lambda time, k: 0.0, False),
    ],
    ids=["knocked out", "driven", "knocked out where it was never expressed"],
)
def test_held_genes(gene, varies):
    found = Movement.of(runs(wave, gene, held={1: [3]}))
    assert found.moves.tolist() == [True, False]
    assert found.varies.tolist() == [True, varies]


@pytest.mark.parametrize(
    ("gene", "is_negative"),
    [
        (lambda time, k: np.sin(2 * time) - np.sin(2 * time).mean(), True),
        (lambda time, k: wave(time, k) - 5, True),
        (lambda time, k: -1.0, True),
        (noise(-1, 0.1), True),
        (noise(0, 0.01), False),
        (lambda time, k: noise(0, 1)(time, k) - noise(0, 1)(time, k).mean() - 1e-3, False),
        (lambda time, k: np.exp(-5 * time) + noise(0, 0.05)(time, k), False),
        (lambda time, k: 0.0, False),
    ],
    ids=["centred", "shifted", "-1", "noise at -1", "noise at 0", "noise just below 0", "expressed", "0"],
)
def test_negative_by_more_than_noise(gene, is_negative):
    assert Movement.of(runs(wave, gene)).is_negative.tolist() == [False, is_negative]


def test_genes_at_rest_are_held_at_their_mean():
    one = runs(wave, noise(1, 0.1), lambda time, k: time, held={2: [0]})[0]
    one = Trajectory(one.name, one.time, one.values, np.arange(1.0, 16.0), one.clamped)
    found = rest(one, np.array([False, True, True]))
    assert found.clamped.tolist() == [False, True, True]
    np.testing.assert_array_equal(found.values[:, [0, 2]], one.values[:, [0, 2]])
    np.testing.assert_allclose(found.values[:, 1], np.average(one.values[:, 1], weights=one.weight))
