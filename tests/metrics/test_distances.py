from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from scipy import sparse

from perturbflow.metrics._distances import distances_within, pair_sum, pair_sum_within


def naive(x, y):
    return sum(np.sqrt(((a - b) ** 2).sum()) for a in x for b in y)


@pytest.fixture
def clouds():
    rng = np.random.default_rng(0)
    return rng.normal(size=(23, 6)), rng.normal(0.5, 2.0, size=(17, 6))


@pytest.mark.parametrize("block_cells", [1, 2, 5, 16, 23, 1000, None])
def test_sums_agree_with_a_double_loop_for_any_block(clouds, block_cells):
    x, y = clouds
    centre = y.mean(axis=0)
    assert pair_sum(np.sqrt, x, y, centre=centre, block_cells=block_cells) == pytest.approx(naive(x, y), abs=1e-10)
    assert pair_sum_within(np.sqrt, x, centre=centre, block_cells=block_cells) == pytest.approx(naive(x, x), abs=1e-10)


def test_within_leaves_out_the_diagonal(clouds):
    x, _ = clouds
    assert pair_sum_within(np.ones_like, x, centre=x[0], block_cells=4) == 23 * 22


def test_equal_cells_are_at_distance_zero():
    rng = np.random.default_rng(0)
    x = np.repeat(rng.gamma(1.0, 3.0, size=(1, 500)), 40, axis=0)
    centre = rng.gamma(1.0, 3.0, size=500)
    assert pair_sum(np.sqrt, x, x, centre=centre, block_cells=7) == 0
    assert pair_sum_within(np.sqrt, x, centre=centre, block_cells=7) == 0


@pytest.mark.parametrize("distance", [1e-4, 1e-5])
def test_close_cells_are_told_apart(distance):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5, 200))
    step = rng.normal(size=200)
    y = x + distance * step / np.linalg.norm(step)
    measured = [pair_sum(np.sqrt, x[[i]], y[[i]], centre=np.zeros(200)) for i in range(5)]
    np.testing.assert_allclose(measured, distance, rtol=1e-2)


def test_a_large_offset_costs_no_precision(clouds):
    x, y = clouds
    far = 1e4
    value = pair_sum(np.sqrt, x + far, y + far, centre=(y + far).mean(axis=0))
    # Adding the offset itself rounds every value to about 1e-12.
    assert value == pytest.approx(naive(x, y), rel=1e-11)


def test_distances_within_are_those_of_all_pairs(clouds):
    x, _ = clouds
    expected = [np.linalg.norm(x[i] - x[j]) for i in range(23) for j in range(i + 1, 23)]
    np.testing.assert_allclose(distances_within(x, centre=x[0]), expected, atol=1e-12)


def test_memory_is_that_of_blocks():
    rng = np.random.default_rng(0)
    x = sparse.csr_array(rng.poisson(0.01, (3000, 1000)).astype(float))
    tracemalloc.start()
    pair_sum(np.sqrt, x, x, centre=np.zeros(1000), block_cells=200)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    dense, pairs = 3000 * 1000 * 8, 3000 * 3000 * 8
    assert peak < 0.3 * dense < pairs
