from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse
from sklearn.decomposition import PCA

from perturbflow.metrics import pearson_against_reference
from perturbflow.metrics._principal_components import (
    PrincipalComponents,
    cosine_in_components,
    cross_cosine_in_components,
)


def expression(n=80, n_genes=30, *, seed=0):
    rng = np.random.default_rng(seed)
    return rng.poisson(rng.gamma(0.5, size=n_genes) * np.exp(0.5 * rng.normal(size=(n, 1))), (n, n_genes)).astype(float)


@pytest.fixture(params=["covariance", "lanczos"])
def _method(request, monkeypatch):
    if request.param == "lanczos":
        monkeypatch.setattr("perturbflow.metrics._principal_components.MAX_COVARIANCE_GENES", 1)


@pytest.mark.usefixtures("_method")
@pytest.mark.parametrize("shape", [(80, 30), (20, 60)])
def test_agrees_with_scikit_learn(shape):
    cells, other = expression(*shape), expression(7, shape[1], seed=1)
    components = PrincipalComponents.of(cells, n_components=8)
    expected = PCA(n_components=8, svd_solver="full").fit(cells)
    np.testing.assert_allclose(components.variance, expected.explained_variance_, rtol=1e-8)
    signs = np.sign((components.loadings * expected.components_).sum(axis=1))
    np.testing.assert_allclose(components.loadings, expected.components_ * signs[:, None], atol=1e-8)
    np.testing.assert_allclose(components.project(other), expected.transform(other) * signs, atol=1e-8)


@pytest.mark.usefixtures("_method")
@pytest.mark.parametrize("container", [np.asfortranarray, sparse.csr_matrix, sparse.csc_array, sparse.coo_array])
def test_containers_and_blocks_agree(container, monkeypatch):
    cells = expression().astype(np.float32)
    expected = PrincipalComponents.of(cells, n_components=5)
    monkeypatch.setattr("perturbflow.metrics._principal_components.ROWS", 7)
    found = PrincipalComponents.of(container(cells), n_components=5)
    np.testing.assert_allclose(found.loadings, expected.loadings, atol=1e-9)
    np.testing.assert_allclose(found.project(container(cells)), expected.project(cells), atol=1e-9)


@pytest.mark.usefixtures("_method")
def test_signs_do_not_depend_on_the_order_of_cells():
    cells = expression()
    one, two = (PrincipalComponents.of(c, n_components=6) for c in (cells, cells[::-1]))
    np.testing.assert_allclose(one.loadings, two.loadings, atol=1e-9)
    largest = np.abs(one.loadings).argmax(axis=1)
    assert (one.loadings[np.arange(6), largest] > 0).all()


@pytest.mark.usefixtures("_method")
def test_there_are_no_more_components_than_directions_of_variance():
    rng = np.random.default_rng(1)
    plane = rng.normal(size=(40, 2)) @ rng.normal(size=(2, 9)) + 5
    assert PrincipalComponents.of(plane, n_components=6).loadings.shape == (2, 9)
    assert PrincipalComponents.of(plane, n_components=1).loadings.shape == (1, 9)
    assert PrincipalComponents.of(expression(4), n_components=100).loadings.shape == (3, 30)


def test_projection_keeps_distances_where_nothing_is_left_out():
    cells = expression(40, 10)
    projected = PrincipalComponents.of(cells).project(cells)
    expected = np.linalg.norm(cells[:, None] - cells[None], axis=2)
    np.testing.assert_allclose(np.linalg.norm(projected[:, None] - projected[None], axis=2), expected, atol=1e-9)
    np.testing.assert_allclose(projected.mean(axis=0), 0, atol=1e-10)


def test_cosine_by_hand():
    components = PrincipalComponents.of(expression(), n_components=5)
    a, b = (components.project(expression(n, seed=n)) for n in (4, 6))
    expected = np.array([[p @ q / np.linalg.norm(p) / np.linalg.norm(q) for q in b] for p in a])
    np.testing.assert_allclose(cross_cosine_in_components(a, b), expected, atol=1e-12)
    np.testing.assert_allclose(cosine_in_components(a, b[:4]), np.diagonal(expected), atol=1e-12)
    assert cosine_in_components(a[0], b[0]) == pytest.approx(expected[0, 0], abs=1e-12)


def test_rounding_makes_no_cosine_larger_than_one():
    vectors = np.random.default_rng(0).normal(size=(200, 5))
    for found in (cross_cosine_in_components(vectors, vectors), cosine_in_components(vectors, vectors)):
        assert found.max() == 1
    for found in (cross_cosine_in_components(-vectors, vectors), cosine_in_components(-vectors, vectors)):
        assert found.min() == -1
    assert pearson_against_reference(vectors, vectors, np.zeros(5)).max() == 1
    assert pearson_against_reference(-vectors, vectors, np.zeros(5)).min() == -1


def test_cosine_is_measured_from_the_centre():
    components = PrincipalComponents.of(expression(), n_components=5)
    means = components.project(components.mean + np.array([[1.0], [4.0], [-1.0]]) * components.loadings[2])
    expected = [[1, 1, -1], [1, 1, -1], [-1, -1, 1]]
    np.testing.assert_allclose(cross_cosine_in_components(means, means), expected, atol=1e-12)
    # Predicting the centre names no direction; if it is the reference, there is none to find.
    centre = components.project(components.mean[None])
    for nearly in (centre, centre + 1e-15):
        assert cosine_in_components(nearly, means[:1]) == 0
        assert np.isnan(cosine_in_components(means[:1], nearly))
    found = cross_cosine_in_components(np.vstack([centre, means[:1]]), np.vstack([means[:1], centre]))
    np.testing.assert_allclose(found, [[0, np.nan], [1, np.nan]], atol=1e-12)


@pytest.mark.usefixtures("_method")
def test_equal_cells_are_refused():
    with pytest.raises(ValueError, match="Expected cells that differ"):
        PrincipalComponents.of(np.tile([0.1, 0.7, 1e3], (9, 1)))


def test_bad_input_is_refused():
    cells = expression()
    with pytest.raises(ValueError, match="Expected `n_components` to be at least 1, found 0"):
        PrincipalComponents.of(cells, n_components=0)
    with pytest.raises(ValueError, match=r"Expected at least 2 cells .* found shape \(1, 30\)"):
        PrincipalComponents.of(cells[:1])
    with pytest.raises(ValueError, match="finite values in `cells`"):
        PrincipalComponents.of(np.where(cells == cells.max(), np.nan, cells))
