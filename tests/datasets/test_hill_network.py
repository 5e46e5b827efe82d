from __future__ import annotations

import time
from typing import Any

import anndata as ad
import numpy as np
import pytest

import perturbflow as pf
from perturbflow.datasets import HillNetwork

SMALL: dict[str, Any] = {"n_genes": 6, "n_trajectories": 3, "n_times": 10}


def test_format():
    adata = pf.datasets.hill_network(**SMALL)
    assert adata.shape == (30, 6)
    assert adata.var_names.tolist() == [f"gene{number}" for number in range(6)]
    np.testing.assert_allclose(adata.obs["time"].to_numpy().reshape(3, 10), np.tile(0.1 * np.arange(10), (3, 1)))
    assert adata.obs["trajectory"].tolist() == [name for name in "012" for _ in range(10)]
    assert set(adata.obs["perturbation"]) == {"control"}
    assert adata.var["is_regulator"].all()
    start = adata.layers["noise_free"][::10]
    assert start.min() >= 0
    assert start.max() <= 1.2


def test_noise_level():
    adata = pf.datasets.hill_network(n_genes=20, noise=0.1)
    deviation = adata.X - adata.layers["noise_free"]
    # 14,400 draws: the standard error of the standard deviation is 0.6 %.
    assert deviation.std() == pytest.approx(0.1 * adata.layers["noise_free"].std(), rel=0.03)
    assert adata.uns["simulation"]["noise_sd"] == pytest.approx(deviation.std(), rel=0.03)
    assert adata.X.min() < 0  # not clipped
    exact = pf.datasets.hill_network(n_genes=20, noise=0.0)
    np.testing.assert_array_equal(exact.X, adata.layers["noise_free"])


def test_true_edges_are_the_mean_jacobian():
    adata = pf.datasets.hill_network(n_genes=20, n_trajectories=4)
    network = HillNetwork.from_anndata(adata)
    x, h = adata.layers["noise_free"].astype(float), 1e-6
    jacobian = np.stack([(network.rhs(x + h * unit) - network.rhs(x - h * unit)).mean(axis=0) for unit in np.eye(20)])
    jacobian = jacobian / (2 * h) + np.eye(20)
    # Exactly on the edges, wherever the others of a product leave something.
    graph = adata.varp["true_graph"].toarray()
    assert (graph[np.abs(jacobian) > 1e-8] == np.sign(jacobian[np.abs(jacobian) > 1e-8])).all()
    assert (np.abs(jacobian[graph != 0]) > 1e-8).mean() > 0.9
    table = adata.uns["true_edges"]
    source, target = (adata.var_names.get_indexer(table[end]) for end in ("source", "target"))
    np.testing.assert_array_equal(graph[source, target], table["sign"])
    assert len(table) == np.count_nonzero(graph)


def test_interventions_hold_their_genes_and_leave_the_controls():
    adata = pf.datasets.hill_network(
        **SMALL, knockouts=["gene2", "gene0+gene4"], overexpressions=["gene1"], n_knockout_trajectories=2
    )
    assert adata.n_obs == (3 + 2 * 2 + 3) * 10
    labels = adata.obs["perturbation"]
    assert labels.cat.categories.tolist() == ["control", "gene2", "gene0+gene4", "gene1"]
    assert adata.obs["trajectory"].cat.categories.tolist() == [str(number) for number in range(10)]
    for matrix in (adata.X, adata.layers["noise_free"]):
        assert (matrix[labels == "gene2", 2] == 0).all()
        assert (matrix[labels == "gene0+gene4"][:, [0, 4]] == 0).all()
        assert (matrix[labels == "gene1", 1] == 1.5).all()
    assert (adata.obs.loc[labels == "gene1", "held_at"] == 1.5).all()
    assert (adata.obs.loc[labels == "gene0+gene4", "held_at"] == 0).all()
    assert adata.obs.loc[labels == "control", "held_at"].isna().all()

    control = adata[labels == "control"]
    alone = pf.datasets.hill_network(**SMALL)
    np.testing.assert_allclose(control.X, alone.X, atol=1e-6)
    np.testing.assert_array_equal(control.obs["time"], alone.obs["time"])


def test_numbers_of_interventions_draw_different_regulators():
    adata = pf.datasets.hill_network(n_genes=20, n_trajectories=2, n_times=3, knockouts=4, overexpressions=3)
    removed, added = adata.uns["simulation"]["knockouts"], adata.uns["simulation"]["overexpressions"]
    assert (len(set(removed)), len(set(added)), len(set(removed) & set(added))) == (4, 3, 0)
    assert {*removed, *added} <= set(adata.uns["true_edges"]["source"])
    fewer = pf.datasets.hill_network(n_genes=20, n_trajectories=2, n_times=3, knockouts=2)
    assert fewer.uns["simulation"]["knockouts"] == removed[:2]


def test_irregular_times_are_of_every_run():
    adata = pf.datasets.hill_network(n_genes=6, n_trajectories=40, n_times=50, irregular=True, noise=0.0)
    times = adata.obs["time"].to_numpy().reshape(40, 50)
    assert (np.diff(times, axis=1) > 0).all()
    assert len(np.unique(times)) == times.size
    # Uniform: of 2,000 draws, the mean of 2.45 has a standard error of 0.03.
    assert times.mean() == pytest.approx(2.45, abs=0.13)
    assert times.max() <= 4.9
    network = HillNetwork.from_anndata(adata)
    values = adata.layers["noise_free"].reshape(40, 50, 6)
    later = network.simulate(values[:, 0], np.concatenate([np.zeros((40, 1)), times[:, 1:] - times[:, :1]], axis=1))
    np.testing.assert_allclose(later, values, atol=1e-5)


def test_seed():
    first, again, other = (pf.datasets.hill_network(**SMALL, seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.X, again.X)
    assert not np.array_equal(first.X, other.X)
    assert not np.array_equal(first.varp["true_graph"].toarray(), other.varp["true_graph"].toarray())


def test_round_trip_keeps_the_network(tmp_path):
    adata = pf.datasets.hill_network(**SMALL, knockouts=["gene2"])
    adata.write_h5ad(tmp_path / "runs.h5ad")
    read = ad.read_h5ad(tmp_path / "runs.h5ad")
    x = np.full(6, 0.4)
    np.testing.assert_array_equal(HillNetwork.from_anndata(read).rhs(x), HillNetwork.from_anndata(adata).rhs(x))
    shuffled = read[:, read.var_names[::-1]]
    np.testing.assert_allclose(HillNetwork.from_anndata(shuffled).rhs(x)[::-1], HillNetwork.from_anndata(adata).rhs(x))


def test_a_hundred_genes_are_fast():
    start = time.process_time()
    pf.datasets.hill_network(n_genes=100)
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"n_genes": 1}, ValueError, "`n_genes` to be at least 2"),
        ({"n_trajectories": 0}, ValueError, "`n_trajectories` to be at least 1"),
        ({"step": 0}, ValueError, "`step` to be a finite number above 0, found 0"),
        ({"noise": -1.0}, ValueError, "`noise` to be from 0"),
        ({"irregular": "yes"}, TypeError, "`irregular` to be True or False"),
        ({"max_regulators": 0}, ValueError, "`max_regulators` to be at least 1"),
        ({"knockouts": "gene1"}, TypeError, r"`knockouts` to be a sequence of names such as \['A', 'A\+B'\]"),
        ({"knockouts": True}, TypeError, "`knockouts` to be a sequence of names"),
        ({"knockouts": ["Gene1"]}, ValueError, r"`knockouts` to name genes, found 'Gene1'. Similar: \['gene1'"),
        ({"overexpressions": ["gene9"]}, ValueError, "`overexpressions` to name genes, found 'gene9'"),
        ({"knockouts": 7}, ValueError, "`knockouts` to be from 0 to .*, found 7"),
        ({"n_knockout_trajectories": 0}, ValueError, "`n_knockout_trajectories` to be at least 1"),
    ],
)
def test_bad_input(changes, error, match):
    with pytest.raises(error, match=match):
        pf.datasets.hill_network(**{**SMALL, **changes})
