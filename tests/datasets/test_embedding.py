from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import perturbflow as pf
from perturbflow.datasets._network import GeneNetwork


def random_network(seed=0, **changes):
    parameters = {
        "n_genes": 200,
        "n_regulators": 20,
        "n_cell_types": 1,
        "mean_regulators": 4.0,
        "effect_strength": 3.0,
        **changes,
    }
    return GeneNetwork.random(**parameters, rng=np.random.default_rng(seed))


def similarities(vectors):
    """Absolute cosines of all pairs (R, R)."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.abs(unit @ unit.T)


def test_cascades_multiply():
    weights = np.zeros((2, 4))
    weights[0, 1], weights[1, 3] = 4.0, -2.0  # 0 activates 1, which represses 3
    network = dataclasses.replace(
        random_network(n_genes=4, n_regulators=2), regulators=np.array([0, 1]), weights=weights
    )
    expected = [[0, 1.0, 0, 1.0 * -0.5], [0, 0, 0, -0.5]]
    np.testing.assert_allclose(network.downstream_effects(), expected, atol=1e-12)


def test_regulators_of_a_pathway_share_targets():
    def n_similar(n_pathways):
        similarity = similarities(random_network(n_pathways=n_pathways).weights)
        return (similarity[np.triu_indices(20, 1)] > 0.5).sum()

    assert n_similar(None) == 0
    assert n_similar(4) == pytest.approx(4 * 10, abs=12)  # five regulators a pathway, of which some have few targets


def test_pathways_keep_the_number_of_regulators():
    edges = [np.mean([(random_network(s, n_pathways=n).weights != 0).sum() for s in range(5)]) for n in (None, 4)]
    assert edges[1] == pytest.approx(edges[0], rel=0.15)


def test_no_regulator_of_a_pathway_regulates_itself():
    network = random_network(n_pathways=1, mean_regulators=30.0)
    assert (network.weights[np.arange(20), network.regulators] == 0).all()


def test_projections_keep_what_is_similar():
    network = random_network(n_pathways=4)
    effects = similarities(network.downstream_effects())[np.triu_indices(20, 1)]

    def agreement(noise):
        rng = np.random.default_rng(0)
        vectors = network.embedding(-np.ones(20), size=16, noise=noise, rng=rng)
        return np.corrcoef(similarities(vectors)[np.triu_indices(20, 1)], effects)[0, 1]

    assert agreement(0.1) > 0.7
    assert abs(agreement(100.0)) < 0.3


def test_opposite_modes_have_opposite_vectors():
    network = random_network()
    embed = [
        network.embedding(np.full(20, sign), size=8, noise=0.0, rng=np.random.default_rng(0)) for sign in (-1.0, 1.0)
    ]
    np.testing.assert_allclose(embed[0], -embed[1])
    assert np.abs(embed[0]).max() > 0


def test_every_regulator_has_a_vector():
    adata = pf.datasets.simulated_perturb_seq(600, 60, n_perturbations=4, n_combinations=0, embedding_size=5)
    table = adata.uns["perturbation_embedding"]
    assert table.shape == (6, 5)
    assert table.index.tolist() == adata.var_names[adata.var["is_regulator"]].tolist()
    assert set(adata.uns["simulation"]["perturbation_modes"]) < set(table.index)
    other = pf.datasets.simulated_perturb_seq(600, 60, n_perturbations=4, n_combinations=0, embedding_noise=9.0)
    assert (other.X != adata.X).nnz == 0  # a stream of its own
    assert "n_pathways" not in adata.uns["simulation"]


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"n_pathways": 0}, "`n_pathways` to be at least 1, found 0"),
        ({"n_pathways": 1.5}, "`n_pathways` to be a whole number"),
        ({"embedding_size": 0}, "`embedding_size` to be at least 1"),
        ({"embedding_noise": -1.0}, "`embedding_noise` to be a finite number of at least 0"),
    ],
)
def test_bad_input(changes, match):
    with pytest.raises((TypeError, ValueError), match=match):
        pf.datasets.simulated_perturb_seq(600, 60, n_perturbations=4, n_combinations=0, **changes)
