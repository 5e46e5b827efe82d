from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from perturbflow.datasets import HillNetwork, hill_network

# Gene 0 is activated by 1 and repressed by 2; gene 1 is repressed by 0; gene 2 has no regulator.
NETWORK = HillNetwork(
    3, np.array([1, 2, 0]), np.array([0, 0, 1]), np.array([0.5, 0.4, 0.6]), np.array([1, -1, -1]), exponent=2.0
)


def test_rates_by_hand():
    x = np.array([0.6, 1.0, 0.8])
    first = 1.5 * (1.0 / (0.25 + 1.0)) * (0.16 / (0.16 + 0.64)) - 0.6
    np.testing.assert_allclose(NETWORK.rhs(x), np.array([first, 1.5 * 0.36 / (0.36 + 0.36) - 1.0, 1.5 - 0.8]))
    batch = np.stack([x, np.zeros(3)])
    np.testing.assert_allclose(NETWORK.rhs(batch), np.stack([NETWORK.rhs(x), [0.0, 1.5, 1.5]]))


def test_order_of_edges_does_not_matter():
    order = np.array([2, 0, 1])
    edges = {name: getattr(NETWORK, name)[order] for name in ("source", "target", "threshold", "sign")}
    x = np.array([0.6, 1.0, 0.8])
    np.testing.assert_allclose(dataclasses.replace(NETWORK, **edges).rhs(x), NETWORK.rhs(x))


def test_without_edges_every_gene_relaxes_to_its_production():
    none = np.array([], dtype=int)
    network = HillNetwork(2, none, none, none.astype(float), none)
    times = np.array([0.0, 1.0, 3.0])
    values = network.simulate(np.array([[0.2, 1.0]]), times)[0]
    np.testing.assert_allclose(values, 1.5 + (np.array([0.2, 1.0]) - 1.5) * np.exp(-times)[:, None], rtol=1e-7)


def test_random_network_has_the_stated_law():
    network = HillNetwork.random(600, np.random.default_rng(0))
    degrees = np.bincount(network.target, minlength=600)
    np.testing.assert_allclose(np.bincount(degrees, minlength=4) / 600, [0, 1 / 3, 1 / 3, 1 / 3], atol=0.06)
    assert (network.source != network.target).all()
    assert (np.bincount(network.source, minlength=600) > 0).mean() == pytest.approx(1 - np.exp(-2), abs=0.05)
    assert network.threshold.min() >= 0.3
    assert network.threshold.max() <= 0.7
    assert network.threshold.mean() == pytest.approx(0.5, abs=0.02)
    assert (network.sign > 0).mean() == pytest.approx(0.5, abs=0.06)


def test_small_networks_have_as_many_regulators_as_there_are():
    network = HillNetwork.random(2, np.random.default_rng(0))
    assert sorted(zip(network.source.tolist(), network.target.tolist(), strict=True)) == [(0, 1), (1, 0)]


def test_long_runs_end_at_a_fixed_point():
    chain = dataclasses.replace(NETWORK, source=np.array([1, 2, 2]), target=np.array([0, 0, 1]))  # without a loop
    end = chain.simulate(np.random.default_rng(0).random((4, 3)), [0.0, 40.0])[:, -1]
    np.testing.assert_allclose(chain.rhs(end), 0.0, atol=1e-7)
    np.testing.assert_allclose(end, end[:1].repeat(4, axis=0), atol=1e-7)
    assert end[0, 2] == pytest.approx(1.5)


def test_levels_stay_between_none_and_most():
    network = HillNetwork.random(20, np.random.default_rng(0))
    values = network.simulate(np.random.default_rng(1).uniform(0, 1.5, (5, 20)), np.linspace(0, 20, 50))
    assert values.min() >= 0
    assert values.max() <= 1.5


def test_clamped_genes_stay_and_only_what_is_downstream_changes():
    start, times = np.random.default_rng(0).random((3, 3)), np.linspace(0, 5, 11)
    free, clamped = NETWORK.simulate(start, times), NETWORK.simulate(start, times, clamp={1: 0.0})
    assert (clamped[:, :, 1] == 0).all()
    np.testing.assert_allclose(clamped[:, :, 0], start[:, [0]] * np.exp(-times), rtol=1e-6)  # its activator is gone
    np.testing.assert_allclose(clamped[:, :, 2], free[:, :, 2], rtol=1e-6)
    np.testing.assert_array_equal(start, np.random.default_rng(0).random((3, 3)))


def test_adjacency_is_the_sign_of_the_jacobian():
    network = HillNetwork.random(12, np.random.default_rng(3))
    x, h = np.random.default_rng(0).uniform(0.2, 1.2, (50, 12)), 1e-6
    jacobian = np.stack([(network.rhs(x + h * unit) - network.rhs(x - h * unit)).mean(axis=0) for unit in np.eye(12)])
    jacobian = jacobian / (2 * h) + np.eye(12)  # without decay
    np.testing.assert_array_equal(
        np.where(np.abs(jacobian) > 1e-7, np.sign(jacobian), 0), network.adjacency().toarray()
    )


def test_from_anndata_is_the_network_behind_the_data():
    adata = hill_network(n_genes=12, n_trajectories=3, n_times=8, noise=0.0)
    network = HillNetwork.from_anndata(adata)
    truth = adata.layers["noise_free"].reshape(3, 8, 12)
    simulated = network.simulate(truth[:, 0], adata.obs["time"].to_numpy()[:8])
    np.testing.assert_allclose(simulated, truth, atol=1e-5)
    np.testing.assert_array_equal(network.adjacency().toarray(), adata.varp["true_graph"].toarray())


def test_from_anndata_of_other_data():
    adata = hill_network(n_genes=3, n_trajectories=1, n_times=2)
    del adata.uns["simulation"]
    with pytest.raises(KeyError, match="data from `pf.datasets.hill_network`"):
        HillNetwork.from_anndata(adata)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"sign": np.array([1, 0, 1])}, "signs of -1 or 1"),
        ({"threshold": np.array([0.5, 0.0, 1.0])}, "positive thresholds"),
        ({"sign": np.array([1, 1])}, r"one shape \(E,\)"),
        ({"source": np.array([1, 3, 0])}, "edges between genes 0 to 2"),
        ({"source": np.array([1, 1, 0])}, "every pair of source and target once"),
    ],
)
def test_bad_networks(changes, match):
    with pytest.raises(ValueError, match=match):
        dataclasses.replace(NETWORK, **changes)


@pytest.mark.parametrize(
    ("start", "times", "clamp", "match"),
    [
        (np.ones(3), [0.0, 1.0], None, r"start of shape \(K, 3\)"),
        (np.ones((2, 3)), [[0.0, 1.0]], None, r"times of shape \(n,\) or \(K, n\)"),
        (np.ones((2, 3)), [1.0, 0.0], None, "to increase"),
        (-np.ones((2, 3)), [0.0, 1.0], None, "levels of at least 0, found -1"),
        (np.ones((2, 3)), [0.0, 1.0], {1: -0.5}, "levels of at least 0, found -0.5"),
        (np.ones((2, 3)), [0.0, 1.0], {3: 0.0}, r"`clamp` to name positions 0 to 2, found \[3\]"),
    ],
)
def test_bad_simulations(start, times, clamp, match):
    with pytest.raises(ValueError, match=match):
        NETWORK.simulate(start, times, clamp=clamp)


def test_bad_random_networks():
    with pytest.raises(ValueError, match="`n_genes` to be at least 2, found 1"):
        HillNetwork.random(1, np.random.default_rng(0))
    with pytest.raises(ValueError, match="`max_regulators` to be at least 1, found 0"):
        HillNetwork.random(5, np.random.default_rng(0), max_regulators=0)
