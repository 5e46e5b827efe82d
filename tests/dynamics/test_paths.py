from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from perturbflow.dynamics import path_product, path_weights


def layers(sizes, *, seed=0, heads=()):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(*heads, n_out, n_in, generator=generator, dtype=torch.float64)
        for n_in, n_out in itertools.pairwise(sizes)
    ]


def enumerated(matrices, transform=float):
    """Sum over all paths of the products of their entries, path by path."""
    widths = [matrices[0].shape[1], *(m.shape[0] for m in matrices)]
    result = torch.zeros(widths[-1], widths[0], dtype=torch.float64)
    for path in itertools.product(*(range(w) for w in widths)):
        entries = [transform(m[b, a]) for m, (a, b) in zip(matrices, itertools.pairwise(path), strict=True)]
        result[path[-1], path[0]] += math.prod(entries)
    return result


@pytest.mark.parametrize("sizes", [(3, 2), (3, 4, 2), (2, 3, 1, 4), (4, 2, 3, 2, 3)])
def test_products_are_sums_over_all_paths(sizes):
    matrices = layers(sizes)
    torch.testing.assert_close(path_product(matrices), enumerated(matrices))
    torch.testing.assert_close(path_weights(matrices), enumerated(matrices, lambda w: abs(float(w))))


def test_networks_of_one_output_stand_side_by_side():
    matrices = layers((4, 3, 1), heads=(5,))
    found = path_weights(matrices)
    assert found.shape == (5, 4)
    for head in range(5):
        alone = path_weights([m[head] for m in matrices])
        torch.testing.assert_close(found[head], alone[0])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.floats(0.1, 0.9))
def test_a_path_weight_is_zero_exactly_if_no_path_is_open(seed, density):
    generator = torch.Generator().manual_seed(seed)
    matrices = [m * (torch.rand(m.shape, generator=generator) < density) for m in layers((4, 3, 3), seed=seed)]
    reachable = torch.eye(4, dtype=torch.bool)
    for matrix in matrices:
        reachable = ((matrix != 0).long() @ reachable.long()) > 0
    assert torch.equal(path_weights(matrices) != 0, reachable)


def test_no_path_means_no_dependence():
    first, second = layers((4, 3, 2))
    first[:, 1] = 0
    assert (path_weights([first, second])[:, 1] == 0).all()
    slope = torch.autograd.functional.jacobian(
        lambda x: second @ torch.tanh(first @ x), torch.randn(4, dtype=torch.float64)
    )
    assert (slope[:, 1] == 0).all()
    assert (slope[:, [0, 2, 3]] != 0).all()
