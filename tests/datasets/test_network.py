from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy import sparse
from scipy.integrate import solve_ivp
from scipy.special import expit

from perturbflow.datasets._network import HILL_EXPONENT, MAX_LOOP_GAIN, TIME_STEP, Cells, GeneNetwork


def random_network(seed=0, **changes):
    parameters = {
        "n_genes": 40,
        "n_regulators": 8,
        "n_cell_types": 2,
        "mean_regulators": 4.0,
        "effect_strength": 5.0,
        **changes,
    }
    return GeneNetwork.random(**parameters, rng=np.random.default_rng(seed))


def random_cells(network, n=6, seed=1):
    rng = np.random.default_rng(seed)
    n_regulators = len(network.regulators)
    return Cells(
        cell_type=rng.integers(len(network.basal), size=n),
        state=rng.lognormal(0, 0.4, (n, n_regulators)),
        factor=rng.choice([0.0, 0.5, 1.0, 5.0], (n, n_regulators)),
    )


def derivative(network, levels, cells, i):
    """The differential equation of one cell, written gene by gene."""
    change = np.empty(network.n_genes)
    for g in range(network.n_genes):
        drive = network.basal[cells.cell_type[i], g]
        for r, regulator in enumerate(network.regulators):
            bound = (levels[regulator] / network.threshold[r]) ** HILL_EXPONENT
            drive += network.weights[r, g] * (bound / (1 + bound) - 0.5)
        production = 1 / (1 + np.exp(-drive))
        for r, regulator in enumerate(network.regulators):
            if regulator == g:
                production *= cells.state[i, r] * cells.factor[i, r]
        change[g] = network.decay[g] * (production - levels[g])
    return change


def test_steady_state_does_not_move():
    network = random_network()
    cells = random_cells(network)
    levels = network.steady_state(cells)
    for i in range(len(levels)):
        np.testing.assert_allclose(derivative(network, levels[i], cells, i), 0, atol=1e-12)


def test_relax_solves_the_differential_equation_to_second_order():
    network = random_network()
    cells = random_cells(network, n=2)
    start = np.random.default_rng(2).uniform(0, 1, (2, network.n_genes))
    exact = [
        solve_ivp(lambda _, x, i=i: derivative(network, x, cells, i), (0, 1.6), start[i], rtol=1e-9, atol=1e-9).y[:, -1]
        for i in range(2)
    ]

    def error(step):
        levels = start
        for _ in range(round(1.6 / step)):
            levels = network.relax(levels, cells, duration=step)
        return np.abs(levels - exact).max()

    assert error(TIME_STEP) < 0.01
    assert np.log2(error(0.1) / error(0.05)) == pytest.approx(2, abs=0.3)
    np.testing.assert_allclose(
        network.relax(start, cells, duration=2 * TIME_STEP),
        network.relax(network.relax(start, cells, duration=TIME_STEP), cells, duration=TIME_STEP),
        rtol=1e-12,
    )


def test_relax_is_exact_without_edges():
    network = random_network(mean_regulators=0.0)
    cells = random_cells(network)
    start = np.ones((6, network.n_genes))
    target = expit(network.basal)[cells.cell_type]
    target[:, network.regulators] *= cells.state * cells.factor
    expected = target + (start - target) * np.exp(-0.7 * network.decay)
    np.testing.assert_allclose(network.relax(start, cells, duration=0.7), expected, rtol=1e-12)
    np.testing.assert_allclose(network.steady_state(cells), target, rtol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_every_start_reaches_the_same_steady_state(seed):
    network = random_network(seed, mean_regulators=8.0)
    cells = random_cells(network)
    steady = network.steady_state(cells)
    for start in (np.zeros_like(steady), np.full_like(steady, 5.0)):
        np.testing.assert_allclose(network.relax(start, cells, duration=200.0), steady, atol=1e-6)


def test_loop_gain_is_bounded():
    network = random_network(mean_regulators=12.0)
    core = np.abs(network.weights[:, network.regulators])
    gain = np.abs(np.linalg.eigvals(core * HILL_EXPONENT / 4)).max()
    assert gain == pytest.approx(MAX_LOOP_GAIN)


def test_response_passes_through_the_time_points():
    network = random_network()
    cells = random_cells(network, n=4)
    time = np.array([np.inf, 0.0, 1.0, 3.0])
    levels = network.response(cells, time)
    control = network.steady_state(cells.unperturbed())
    np.testing.assert_allclose(levels[0], network.steady_state(cells)[0], rtol=1e-12)
    np.testing.assert_array_equal(levels[1], control[1])
    for i in (2, 3):
        alone = cells[np.array([i])]
        np.testing.assert_allclose(levels[i], network.relax(control[[i]], alone, duration=time[i])[0], atol=1e-3)


def test_single_precision_is_enough():
    network = random_network()
    cells = random_cells(network)
    levels = network.astype(np.float32).steady_state(cells.astype(np.float32))
    assert levels.dtype == np.float32
    np.testing.assert_allclose(levels, network.steady_state(cells), atol=1e-4)


def test_adjacency_and_edges_say_the_same():
    network = random_network()
    genes = np.array([f"g{i}" for i in range(network.n_genes)])
    adjacency = network.adjacency()
    assert sparse.issparse(adjacency)
    assert adjacency.shape == (40, 40)
    edges = network.edges(genes)
    assert len(edges) == adjacency.nnz > 0
    for source, target, weight in edges.itertuples(index=False):
        assert adjacency[int(source[1:]), int(target[1:])] == weight
    assert set(edges["source"]) <= set(genes[network.regulators])


def test_no_gene_regulates_itself():
    network = random_network(mean_regulators=100.0)  # everything else regulates everything
    adjacency = network.adjacency().toarray()
    assert (adjacency.diagonal() == 0).all()
    others = np.setdiff1d(np.arange(40), network.regulators)
    assert (adjacency[np.ix_(network.regulators, others)] != 0).all()


def test_descendants_follow_edges():
    network = random_network()
    weights = np.zeros((3, 5))
    weights[0, 1] = weights[1, 4] = weights[2, 3] = -1.0  # regulators 0, 1, 2: 0 -> 1 -> 4 and 2 -> 3
    network = dataclasses.replace(network, regulators=np.array([0, 1, 2]), weights=weights)
    expected = [[True, True, False, False, True], [False, True, False, False, True], [False, False, True, True, False]]
    np.testing.assert_array_equal(network.descendants(), expected)


def test_weights_have_both_signs_and_the_asked_strength():
    network = random_network(n_genes=400, mean_regulators=4.0, effect_strength=3.0)
    others = np.setdiff1d(np.arange(400), network.regulators)
    weights = network.weights[:, others]
    weights = weights[weights != 0]
    assert len(weights) / len(others) == pytest.approx(4.0, rel=0.1)  # about 8 regulators: hardly truncated
    assert np.median(np.abs(weights)) == pytest.approx(3.0, rel=0.1)
    assert (weights > 0).mean() == pytest.approx(0.6, abs=0.05)
