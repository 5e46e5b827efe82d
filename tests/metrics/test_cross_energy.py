from __future__ import annotations

from importlib import import_module

import numpy as np
import pytest

from perturbflow.metrics import energy_distance
from perturbflow.metrics._energy import cross_energy

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
    np.testing.assert_allclose(cross_energy(predicted, observed, unbiased=unbiased), expected, atol=1e-11)


@pytest.mark.parametrize("block_cells", [1, 4, 11, 50])
def test_blocks_do_not_matter(block_cells, monkeypatch):
    predicted, observed = screen(SIZES_X, seed=0), screen(SIZES_Y, seed=1)
    expected = cross_energy(predicted, observed)
    monkeypatch.setattr("perturbflow.metrics._energy.block_size", lambda cells: block_cells)
    np.testing.assert_allclose(cross_energy(predicted, observed), expected, atol=1e-12)


def test_numbers_of_conditions_may_differ():
    predicted, observed = screen(SIZES_X[:2], seed=0), screen(SIZES_Y, seed=1)
    assert cross_energy(predicted, observed).shape == (2, 4)


def test_copied_cells_are_at_zero():
    observed = screen((6, 9), seed=2, n_genes=200)
    np.testing.assert_allclose(np.diagonal(cross_energy(observed, observed, unbiased=False)), 0, atol=1e-12)


def test_levels_of_genes_cost_no_digits():
    predicted, observed = screen(SIZES_X, seed=0), screen(SIZES_Y, seed=1)
    levels = np.linspace(-1e4, 1e4, 20)
    moved = ([cells + levels for cells in side] for side in (predicted, observed))
    np.testing.assert_allclose(cross_energy(*moved), cross_energy(predicted, observed), atol=1e-10)


def test_tight_groups_far_from_each_other():
    # Distances within a condition are a millionth of those from the common centre.
    rng = np.random.default_rng(3)
    places = rng.normal(0, 1e4, size=(3, 10))
    predicted, observed = ([place + 0.01 * rng.normal(size=(8, 10)) for place in places] for _ in range(2))
    found = cross_energy(predicted, observed, unbiased=False)
    expected = [energy_distance(x, y, unbiased=False) for x, y in zip(predicted, observed, strict=True)]
    np.testing.assert_allclose(np.diagonal(found), expected, rtol=1e-2)


def test_cells_of_several_conditions_count_once(monkeypatch):
    sizes, original = [], import_module("perturbflow.metrics._distances").mean_within

    def counted(kernel, cells, **options):
        sizes.append(len(cells))
        return original(kernel, cells, **options)

    monkeypatch.setattr("perturbflow.metrics._energy.mean_within", counted)
    (same, *_), observed = screen(SIZES_X, seed=0), screen(SIZES_Y, seed=1)
    found = cross_energy([same, same, same], observed)
    assert sizes == [len(same), *SIZES_Y]
    np.testing.assert_allclose(found, one_by_one([same] * 3, observed), atol=1e-12)
