from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from scipy import sparse
from scipy.spatial.distance import cdist

from perturbflow.metrics import energy_distance


def naive(x, y, *, unbiased=True):
    """Energy distance by all distances one by one."""
    within = [cdist(each, each).sum() / (len(each) * (len(each) - unbiased)) for each in (x, y)]
    return 2 * cdist(x, y).mean() - sum(within)


@pytest.fixture
def clouds():
    rng = np.random.default_rng(0)
    return rng.normal(size=(23, 6)), rng.normal(0.5, 2.0, size=(17, 6))


@pytest.mark.parametrize("block_cells", [1, 2, 5, 16, 23, 1000])
@pytest.mark.parametrize("unbiased", [True, False])
def test_distances_agree_for_any_block(clouds, block_cells, unbiased, monkeypatch):
    monkeypatch.setattr("perturbflow.metrics._distances.block_size", lambda cells: block_cells)
    expected = pytest.approx(naive(*clouds, unbiased=unbiased), abs=1e-10)
    assert energy_distance(*clouds, unbiased=unbiased) == expected


def test_blocks_are_smaller_for_many_genes(clouds, monkeypatch):
    expected = energy_distance(*clouds)
    monkeypatch.setattr("perturbflow.metrics._distances.BLOCK_BYTES", 5 * 8 * 6 + 1)
    assert energy_distance(*clouds) == pytest.approx(expected, abs=1e-12)


def test_blocks_do_not_matter_for_two_predictions(clouds, monkeypatch):
    x, y = clouds
    again = x + np.random.default_rng(1).normal(size=x.shape)
    expected = energy_distance(x, y, again=again)
    monkeypatch.setattr("perturbflow.metrics._distances.MAX_BLOCK_CELLS", 5)
    assert energy_distance(x, y, again=again) == pytest.approx(expected, abs=1e-12)


def test_equal_cells_are_at_distance_zero(monkeypatch):
    monkeypatch.setattr("perturbflow.metrics._distances.block_size", lambda cells: 7)
    rng = np.random.default_rng(0)
    x = np.repeat(rng.gamma(1.0, 3.0, size=(1, 500)), 40, axis=0)
    assert energy_distance(x, x) == energy_distance(x, x, unbiased=False) == 0


@pytest.mark.parametrize("distance", [1e-4, 1e-5])
def test_close_cells_are_told_apart(distance):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5, 200))
    step = rng.normal(size=200)
    y = x + distance * step / np.linalg.norm(step)
    measured = [energy_distance(x[[i]], y[[i]], unbiased=False) / 2 for i in range(5)]
    np.testing.assert_allclose(measured, distance, rtol=1e-2)


def test_a_large_offset_costs_no_precision(clouds):
    x, y = clouds
    # Adding the offset itself rounds every value to about 1e-12.
    assert energy_distance(x + 1e4, y + 1e4) == pytest.approx(naive(x, y), rel=1e-10)


def test_memory_is_that_of_blocks(monkeypatch):
    monkeypatch.setattr("perturbflow.metrics._distances.block_size", lambda cells: 200)
    rng = np.random.default_rng(0)
    x = sparse.csr_array(rng.poisson(0.01, (3000, 1000)).astype(float))
    tracemalloc.start()
    energy_distance(x, x)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    dense, pairs = 3000 * 1000 * 8, 3000 * 3000 * 8
    assert peak < 0.3 * dense < pairs
