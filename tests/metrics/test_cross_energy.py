from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from perturbflow.metrics import _cross_energy
from perturbflow.metrics._cross_energy import cross_energy, mean_distances
from perturbflow.metrics._energy import energy_distance
from perturbflow.metrics._perturbench_energy import mean_distance_within

SIZES_X, SIZES_Y = (7, 30, 12, 2), (5, 18, 40, 3)


def screen(sizes, *, seed, n_genes=20, shift=0.0):
    rng = np.random.default_rng(seed)
    return [rng.gamma(0.4, size=(n, n_genes)) + shift * i * rng.normal(size=n_genes) for i, n in enumerate(sizes)]


def one_by_one(predicted, observed, *, unbiased=True):
    return np.array([[energy_distance(x, y, unbiased=unbiased) for y in observed] for x in predicted])


@pytest.mark.parametrize("unbiased", [True, False])
@pytest.mark.parametrize("shift", [0.0, 3.0])
def test_agrees_with_energy_distances_one_by_one(unbiased, shift):
    predicted, observed = screen(SIZES_X, seed=0, shift=shift), screen(SIZES_Y, seed=1, shift=shift)
    expected = one_by_one(predicted, observed, unbiased=unbiased)
    np.testing.assert_allclose(cross_energy(predicted, observed, unbiased=unbiased), expected, atol=2e-6)


@pytest.mark.parametrize("block_cells", [1, 4, 11, 50, 10_000])
def test_blocks_do_not_matter(block_cells, monkeypatch):
    predicted, observed = screen(SIZES_X, seed=0), screen(SIZES_Y, seed=1)
    expected = cross_energy(predicted, observed)
    monkeypatch.setattr(_cross_energy, "PREDICTED_CELLS", block_cells)
    monkeypatch.setattr(_cross_energy, "OBSERVED_CELLS", 1 + block_cells // 3)
    np.testing.assert_allclose(cross_energy(predicted, observed), expected, atol=1e-6)


def test_numbers_of_conditions_may_differ():
    predicted, observed = screen(SIZES_X[:2], seed=0), screen(SIZES_Y, seed=1)
    assert cross_energy(predicted, observed).shape == (2, 4)


def test_copied_cells_are_at_zero_exactly():
    # The inner products are in float32, in which a cell would be at 1e-3 of its norm from its copy.
    observed = screen((6, 9), seed=2, n_genes=200)
    np.testing.assert_allclose(np.diagonal(cross_energy(observed, observed, unbiased=False)), 0, atol=1e-6)
    point = np.tile(observed[0][:1], (5, 1))
    np.testing.assert_allclose(mean_distances([point, observed[1]], [point])[0], 0, atol=1e-12)


def test_tight_groups_far_from_each_other():
    # Distances within a condition are a millionth of those from the common centre.
    rng = np.random.default_rng(3)
    places = rng.normal(0, 1e4, size=(3, 10))
    predicted, observed = ([place + 0.01 * rng.normal(size=(8, 10)) for place in places] for _ in range(2))
    between = mean_distances(predicted, observed)
    own = [np.linalg.norm(x[:, None] - y[None], axis=2).mean() for x, y in zip(predicted, observed, strict=True)]
    np.testing.assert_allclose(np.diagonal(between), own, rtol=1e-4)


def test_few_close_pairs_are_computed_again_alone():
    # One copied cell among thousands of pairs, and far from the share at which the whole block is computed again.
    x, y = screen((60, 70), seed=4, n_genes=300)
    y[5] = x[3]
    exact = np.linalg.norm(x[:, None] - y[None], axis=2).mean()
    assert mean_distances([x], [y])[0, 0] == pytest.approx(exact, rel=1e-8)


def test_sparse_cells_of_any_type():
    rng = np.random.default_rng(5)
    predicted, observed = ([rng.poisson(0.4, (n, 9)).astype(np.float32) for n in sizes] for sizes in (SIZES_X, SIZES_Y))
    expected = one_by_one(predicted, observed)
    found = cross_energy([sparse.csr_matrix(x) for x in predicted], [sparse.csc_array(y) for y in observed])
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_every_within_term_is_computed_once(monkeypatch):
    sizes = []

    def counted(cells, **options):
        sizes.append(cells.shape[0])
        return mean_distance_within(cells, **options)

    monkeypatch.setattr(_cross_energy, "mean_distance_within", counted)
    cross_energy(screen(SIZES_X, seed=0), screen(SIZES_Y, seed=1))
    assert sizes == [*SIZES_X, *SIZES_Y]


@pytest.mark.parametrize(
    ("predicted", "message"),
    [
        pytest.param([], "Expected the cells of at least one condition in `predicted`, found none", id="none"),
        pytest.param([np.ones((3, 2)), np.ones((1, 2))], r"at least 2 cells and 1 gene in `predicted\[1\]`", id="few"),
        pytest.param([np.ones((3, 4))], r"Expected 2 genes in `predicted\[0\]` .*, found 4", id="genes"),
        pytest.param([np.full((3, 2), np.nan)], r"finite values in `predicted\[0\]`", id="nan"),
    ],
)
def test_bad_conditions_are_named(predicted, message):
    with pytest.raises(ValueError, match=message):
        cross_energy(predicted, [np.zeros((3, 2))])
