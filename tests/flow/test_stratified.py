from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from perturbflow.flow._joint_move import stratified_normals, stratified_uniforms


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 6), st.floats(0, 1), st.integers(0, 1000))
def test_one_number_in_every_interval(n_cells, n_genes, share, seed):
    rng = np.random.default_rng(seed)
    members = rng.random((n_cells, n_genes)) < share
    uniforms = stratified_uniforms(members, rng=rng)
    for gene in range(n_genes):
        for group in (members[:, gene], ~members[:, gene]):
            m = group.sum()
            # float32 may round a number up to the end of its interval.
            intervals = np.floor(uniforms[group, gene] * m * (1 - 1e-6)).astype(int)
            assert sorted(intervals.tolist()) == list(range(m))


def test_every_cell_is_as_likely():
    rng = np.random.default_rng(0)
    members = np.array([[True], [True], [True], [False]])
    below = np.mean([stratified_uniforms(members, rng=rng)[:, 0] < 0.4 for _ in range(4000)], axis=0)
    np.testing.assert_allclose(below, 0.4, atol=4 * np.sqrt(0.24 / 4000))


def test_genes_are_independent():
    rng = np.random.default_rng(1)
    x = stratified_normals((5000, 3), rng=rng)
    assert np.abs(np.corrcoef(x.T) - np.eye(3)).max() < 4 / np.sqrt(5000)


def test_normals_are_normal_and_their_mean_is_nearly_0():
    x = stratified_normals((200, 50), rng=np.random.default_rng(2))
    assert x.dtype == np.float32
    assert np.isfinite(x).all()
    assert kstest(x.ravel(), "norm").pvalue > 0.01
    assert x.mean(axis=0).std() < 0.25 / np.sqrt(200)  # a quarter of that of independent numbers


@pytest.mark.parametrize("n_cells", [0, 1])
def test_few_cells(n_cells):
    assert stratified_normals((n_cells, 4), rng=np.random.default_rng(3)).shape == (n_cells, 4)
