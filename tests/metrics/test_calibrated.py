from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from anndata import AnnData
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.metrics import r2_score

from perturbflow.metrics import Moments, differential_weights, pearson_against_reference, weighted_mse, weighted_r2


def draw_conditions(seed=0, sizes=(5, 9, 2, 14, 7), n_genes=8, offset=0.0):
    rng = np.random.default_rng(seed)
    return [offset + rng.gamma(0.5, 1 + rng.random(n_genes), size=(n, n_genes)) for n in sizes]


def draw_profiles(seed=0, n_conditions=6, n_genes=9):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(n_conditions, n_genes)) for _ in range(2)] + [rng.random((n_conditions, n_genes))]


def weights_of(scores):
    scores = np.abs(scores)
    low, high = scores.min(axis=1, keepdims=True), scores.max(axis=1, keepdims=True)
    return ((scores - low) / (high - low)) ** 2


@pytest.mark.parametrize("sizes", [(5, 9, 2, 14, 7), (4, 3), (3, 3, 3)])
@pytest.mark.parametrize("offset", [0.0, 1e5])
def test_weights_are_those_of_the_pooled_others(sizes, offset):
    conditions = draw_conditions(sizes=sizes, offset=offset)
    scores = []
    for i, cells in enumerate(conditions):
        others = np.concatenate(conditions[:i] + conditions[i + 1 :])
        variance = cells.var(axis=0, ddof=1) + others.var(axis=0, ddof=1)
        scores.append((cells.mean(axis=0) - others.mean(axis=0)) / np.sqrt(variance / len(cells)))
    np.testing.assert_allclose(differential_weights(conditions), weights_of(scores), rtol=0, atol=1e-8)


def test_weights_are_those_of_scanpy():
    conditions = draw_conditions(sizes=(20, 31, 17, 25), n_genes=30)
    labels = np.repeat(list("abcd"), [len(cells) for cells in conditions])
    obs = pd.DataFrame({"group": pd.Categorical(labels)}, index=[str(i) for i in range(len(labels))])
    adata = AnnData(np.concatenate(conditions), obs=obs)
    sc.tl.rank_genes_groups(adata, "group", method="t-test_overestim_var", reference="rest")
    scores = [
        sc.get.rank_genes_groups_df(adata, group).set_index("names")["scores"].reindex(adata.var_names).to_numpy()
        for group in "abcd"
    ]
    # scanpy keeps its scores in float32
    np.testing.assert_allclose(differential_weights(conditions), weights_of(scores), rtol=0, atol=1e-6)


def test_weights_of_moments_and_of_sparse_cells():
    conditions = draw_conditions()
    expected = differential_weights(conditions)
    np.testing.assert_array_equal(differential_weights([Moments.of(cells) for cells in conditions]), expected)
    np.testing.assert_allclose(differential_weights([sparse.csr_array(cells) for cells in conditions]), expected)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**16))
def test_weights_do_not_depend_on_order_units_or_what_is_common(seed):
    conditions = draw_conditions(seed)
    rng = np.random.default_rng(seed)
    expected = differential_weights(conditions)
    order = rng.permutation(5)
    np.testing.assert_allclose(differential_weights([conditions[i] for i in order]), expected[order], atol=1e-9)
    common, units = rng.normal(size=8), rng.uniform(0.1, 10, 8)
    np.testing.assert_allclose(
        differential_weights([units * cells + common for cells in conditions]), expected, atol=1e-9
    )
    assert expected.min() == 0
    assert expected.max() == 1


def test_genes_that_do_not_vary_have_no_weight():
    conditions = draw_conditions()
    for cells in conditions:
        cells[:, 2] = 0.1
    assert (differential_weights(conditions)[:, 2] == 0).all()
    conditions[1][:, 2] = 0.3  # differs, but there is nothing to compare the difference with in the second condition
    weights = differential_weights(conditions[:2])
    assert (weights[:, 2] == 0).all()
    assert np.isfinite(weights).all()


def test_conditions_without_a_difference_have_no_weights():
    cells = draw_conditions()[0]
    assert (differential_weights([cells, cells, cells]) == 0).all()
    assert (differential_weights([np.ones((3, 4)), np.ones((2, 4))]) == 0).all()


def test_a_gene_of_one_condition_alone_has_its_full_weight():
    conditions = [np.tile(cells[:, :1], 3) * [1.0, 1.0, 0.0] for cells in draw_conditions()]
    conditions[3][:, 2] = 5 + conditions[3][:, 0]
    assert differential_weights(conditions)[3].tolist()[1:] == [0.0, 1.0]


def test_bad_conditions_are_refused():
    conditions = draw_conditions()
    with pytest.raises(ValueError, match="at least 2 conditions, found 1"):
        differential_weights(conditions[:1])
    with pytest.raises(ValueError, match=r"at least 2 cells in `conditions\[1\]`, found 1"):
        differential_weights([conditions[0], conditions[1][:1]])
    with pytest.raises(ValueError, match=r"same genes in .*'conditions\[1\]': 7"):
        differential_weights([conditions[0], conditions[1][:, :7]])


def test_weighted_error_and_share_are_those_of_scikit_learn():
    predicted, observed, weights = draw_profiles()
    reference = np.random.default_rng(1).normal(size=9)
    errors = [np.average((p - o) ** 2, weights=w) for p, o, w in zip(predicted, observed, weights, strict=True)]
    shares = [
        r2_score(o - reference, p - reference, sample_weight=w)
        for p, o, w in zip(predicted, observed, weights, strict=True)
    ]
    np.testing.assert_allclose(weighted_mse(predicted, observed, weights), errors, rtol=1e-12)
    np.testing.assert_allclose(weighted_r2(predicted, observed, weights, reference), shares, rtol=1e-12)
    np.testing.assert_allclose(
        weighted_r2(predicted, observed, weights, np.tile(reference, (6, 1))), shares, rtol=1e-12
    )


def test_weights_of_one_gene_are_its_error():
    predicted, observed, _ = draw_profiles()
    one = np.eye(9)[4]
    np.testing.assert_allclose(weighted_mse(predicted, observed, 3 * one), (predicted - observed)[:, 4] ** 2)
    assert np.isnan(weighted_r2(predicted, observed, one, np.zeros(9))).all()


def test_perfect_prediction():
    _, observed, weights = draw_profiles()
    assert (weighted_mse(observed, observed, weights) == 0).all()
    assert (weighted_r2(observed, observed, weights, np.zeros(9)) == 1).all()
    np.testing.assert_allclose(pearson_against_reference(observed, observed, np.zeros(9)), 1)


def test_without_weights_nothing_is_defined():
    predicted, observed, weights = draw_profiles()
    weights[2] = 0
    for values in (weighted_mse(predicted, observed, weights), weighted_r2(predicted, observed, weights, np.zeros(9))):
        assert np.flatnonzero(np.isnan(values)).tolist() == [2]


def test_an_observed_change_equal_in_all_genes_leaves_nothing_to_explain():
    predicted, observed, weights = draw_profiles()
    observed[1] = np.arange(9) + 0.1  # not exactly equal to the reference plus 0.1
    reference = np.arange(9.0)
    for values in (
        weighted_r2(predicted, observed, weights, reference),
        pearson_against_reference(predicted, observed, reference),
    ):
        assert np.flatnonzero(np.isnan(values)).tolist() == [1]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**16))
def test_predicting_the_reference_explains_nothing(seed):
    _, observed, weights = draw_profiles(seed)
    reference = observed.mean(axis=0)
    assert (weighted_r2(np.tile(reference, (6, 1)), observed, weights, reference) <= 1e-12).all()
    assert (pearson_against_reference(np.tile(reference, (6, 1)), observed, reference) == 0).all()


@pytest.mark.parametrize("size", [1e-12, 1e12])
def test_the_size_of_other_conditions_does_not_matter(size):
    predicted, observed, _ = draw_profiles()
    scale = np.ones((6, 1))
    scale[3] = size
    reference = np.zeros(9)
    expected = pearson_against_reference(predicted, observed, reference)
    found = pearson_against_reference(scale * predicted, scale * observed, reference)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_correlation_from_the_reference():
    predicted, observed, reference = draw_profiles()
    expected = [np.corrcoef(p - r, o - r)[0, 1] for p, o, r in zip(predicted, observed, reference, strict=True)]
    np.testing.assert_allclose(pearson_against_reference(predicted, observed, reference), expected, rtol=1e-12)
    np.testing.assert_allclose(pearson_against_reference(predicted, observed, reference[0])[0], expected[0], rtol=1e-12)


def test_correlation_over_top_genes():
    predicted, observed, reference = draw_profiles()
    scores = np.random.default_rng(1).normal(size=observed.shape)
    for n_top, ranking, given_scores in ((4, scores, scores), (3, observed - reference, None)):
        expected = []
        for i in range(6):
            top = np.argsort(-abs(ranking[i]))[:n_top]
            expected.append(np.corrcoef((predicted - reference)[i, top], (observed - reference)[i, top])[0, 1])
        values = pearson_against_reference(predicted, observed, reference, n_top=n_top, scores=given_scores)
        np.testing.assert_allclose(values, expected, rtol=1e-9)
    everything = pearson_against_reference(predicted, observed, reference)
    np.testing.assert_allclose(pearson_against_reference(predicted, observed, reference, n_top=9), everything)


def test_the_average_response_is_rewarded_against_controls_but_not_against_the_mean():
    """All conditions share a large response, and have a small one of their own."""
    rng = np.random.default_rng(0)
    shared, own = 3 * rng.normal(size=200), 0.5 * rng.normal(size=(30, 200))
    observed = shared + own
    control = np.zeros(200)
    collapsed = np.tile(observed.mean(axis=0), (30, 1)) + 1e-3 * rng.normal(size=(30, 200))
    specific = shared + 0.5 * own
    assert pearson_against_reference(collapsed, observed, control).min() > 0.9
    assert abs(pearson_against_reference(collapsed, observed, observed.mean(axis=0)).mean()) < 0.1
    assert pearson_against_reference(specific, observed, observed.mean(axis=0)).min() > 0.9


def test_bad_profiles_are_refused():
    predicted, observed, weights = draw_profiles()
    reference = np.zeros(9)
    functions = [
        lambda x, y: weighted_mse(x, y, weights),
        lambda x, y: weighted_r2(x, y, weights, reference),
        lambda x, y: pearson_against_reference(x, y, reference),
    ]
    for function in functions:
        with pytest.raises(ValueError, match="same conditions and genes in predicted, observed"):
            function(predicted[:, :8], observed)
        with pytest.raises(ValueError, match="finite values in `predicted`, found 54"):
            function(predicted * np.nan, observed)
    weighted: list[Callable] = [weighted_mse, partial(weighted_r2, reference=reference)]
    for function in weighted:
        with pytest.raises(ValueError, match=r"`weights` of at least 0, found -1"):
            function(predicted, observed, -np.ones(9))
        with pytest.raises(ValueError, match=r"`weights` to have shape \(9,\) or \(6, 9\), found \(6,\)"):
            function(predicted, observed, np.ones(6))
    with pytest.raises(ValueError, match=r"`reference` to have shape \(9,\) or \(6, 9\), found \(8,\)"):
        pearson_against_reference(predicted, observed, np.zeros(8))
    with pytest.raises(ValueError, match="`n_top` to be at least 2, found 1"):
        pearson_against_reference(predicted, observed, reference, n_top=1)
