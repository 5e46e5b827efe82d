from __future__ import annotations

import math
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.metrics import average_precision_score, roc_auc_score

from perturbflow import metrics
from perturbflow.metrics import (
    auroc,
    average_precision,
    early_precision,
    edge_density,
    network_scores,
    sign_accuracy,
    support_error,
)

OFF_DIAGONAL = ~np.eye(7, dtype=bool)
seeds = st.integers(0, 2**32 - 1)
few = settings(max_examples=25, deadline=None)


def example(seed: int, *, d: int = 7, levels: int | None = None):
    """Signed scores, few distinct ones if `levels`, and a signed truth with both kinds of pairs and both signs."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(d, d)) if levels is None else rng.integers(-levels, levels + 1, (d, d)).astype(float)
    truth = rng.choice([-1, 0, 0, 0, 0, 1], (d, d))
    truth[0, 1:4] = [1, -1, 0]
    return scores, truth


@given(seeds, st.sampled_from([None, 1, 3]))
@few
def test_areas_agree_with_sklearn(seed, levels):
    scores, truth = example(seed, levels=levels)
    flat = (truth[OFF_DIAGONAL] != 0, np.abs(scores)[OFF_DIAGONAL])
    assert auroc(scores, truth) == pytest.approx(roc_auc_score(*flat), abs=1e-12)
    assert average_precision(scores, truth) == pytest.approx(average_precision_score(*flat), abs=1e-12)


@given(seeds, st.sampled_from([np.sqrt, np.expm1, np.square, lambda x: 3 * x]))
@few
def test_rankings_are_invariant_under_monotone_maps(seed, increasing):
    scores, truth = example(seed)
    mapped = np.sign(scores) * increasing(np.abs(scores))
    for metric in (auroc, average_precision, early_precision, sign_accuracy):
        assert metric(mapped, truth) == pytest.approx(metric(scores, truth), abs=1e-12, nan_ok=True)


@given(seeds, st.sampled_from([None, 1]))
@few
def test_order_of_genes_does_not_matter(seed, levels):
    scores, truth = example(seed, levels=levels)
    order = np.random.default_rng(seed).permutation(len(truth))
    permuted = network_scores(scores[order][:, order], truth[order][:, order])
    assert permuted == pytest.approx(network_scores(scores, truth), abs=1e-12, nan_ok=True)


@given(seeds)
@few
def test_reversed_order_mirrors_the_auroc(seed):
    scores, truth = example(seed)
    assert auroc(1 / np.abs(scores), truth) == pytest.approx(1 - auroc(scores, truth), abs=1e-12)


def test_limits():
    _, truth = example(0)
    truth[np.diag_indices(7)] = 0
    perfect = network_scores(0.3 * truth, truth)
    n_edges = np.count_nonzero(truth)
    assert perfect == pytest.approx(
        {
            "auroc": 1.0,
            "average_precision": 1.0,
            "early_precision": 1.0,
            "sign_accuracy": 1.0,
            "structural_hamming_distance": 0,
            "support_error": 0.0,
            "edge_density": n_edges / 42,
            "n_edges": n_edges,
            "n_true_edges": n_edges,
            "n_candidates": 42,
        }
    )
    reverse = (truth == 0).astype(float)
    assert (auroc(reverse, truth), early_precision(reverse, truth)) == (0.0, 0.0)
    assert network_scores(reverse, truth)["structural_hamming_distance"] == 42
    assert sign_accuracy(-truth, truth) == 0.0


def test_constant_scores_are_chance():
    _, truth = example(1)
    constant = np.ones((7, 7))
    density = edge_density(truth)
    assert auroc(constant, truth) == 0.5
    assert average_precision(constant, truth) == pytest.approx(density)
    assert early_precision(constant, truth) == pytest.approx(density)
    assert sign_accuracy(constant, truth) == pytest.approx((truth[OFF_DIAGONAL] > 0).sum() / (density * 42))


def test_no_predicted_edge_has_support_error_one():
    _, truth = example(2)
    assert support_error(np.zeros((7, 7)), truth) == 1.0


def test_half_of_the_ties_with_the_last_place_count():
    truth = np.array([[1, -1, 0, 0]])
    scores = np.array([[3.0, 2.0, 2.0, 1.0]])
    assert early_precision(scores, truth) == pytest.approx(0.75)
    assert sign_accuracy(scores, truth) == pytest.approx(1 / 1.5)


def test_edges_without_a_score_are_not_recovered():
    truth = np.array([[1, -1, 0, 0]])
    assert sign_accuracy(np.array([[2.0, 0.0, 0.0, 0.0]]), truth) == 1.0
    assert math.isnan(sign_accuracy(np.zeros((1, 4)), truth))


def test_sign_needs_a_signed_truth():
    scores, truth = example(3)
    assert math.isnan(sign_accuracy(scores, truth != 0))
    assert math.isnan(network_scores(scores, np.abs(truth))["sign_accuracy"])
    assert sign_accuracy(-np.abs(scores), -np.abs(truth)) == 1.0


def test_threshold_is_exclusive():
    truth = np.array([[1, 1, 0]])
    scores = np.array([[0.5, -0.6, 0.2]])
    for threshold, expected in ((0.0, 1), (0.5, 1), (0.2, 0)):
        assert network_scores(scores, truth, threshold=threshold)["structural_hamming_distance"] == expected
    assert network_scores(scores, truth, threshold=0.5)["n_edges"] == 1


def test_self_edges_count_only_as_candidates():
    scores, truth = example(4)
    other_scores, other_truth = scores + 9 * np.eye(7), np.where(np.eye(7), 1, truth)
    assert network_scores(other_scores, other_truth) == pytest.approx(network_scores(scores, truth))
    everything = np.ones((7, 7), dtype=bool)
    assert network_scores(scores, truth, candidates=everything)["n_candidates"] == 49
    # Regulators by targets need not be square; nothing is left out of such a matrix.
    assert network_scores(scores[:3], truth[:3])["n_candidates"] == 21


def test_candidates_restrict_to_regulators():
    scores, truth = example(5)
    candidates = OFF_DIAGONAL & (np.arange(7) < 3)[:, None]
    silent = np.where(candidates, scores, 0)
    assert network_scores(silent, truth, candidates=candidates) == pytest.approx(
        network_scores(scores, truth, candidates=candidates)
    )
    flat = (truth[candidates] != 0, np.abs(scores)[candidates])
    assert auroc(scores, truth, candidates=candidates) == pytest.approx(roc_auc_score(*flat), abs=1e-12)


@pytest.mark.parametrize("container", [sparse.csr_matrix, sparse.csc_array])
def test_sparse_networks(container):
    scores, truth = example(6, levels=1)
    assert network_scores(container(scores), container(truth)) == pytest.approx(network_scores(scores, truth))


@pytest.mark.parametrize(("within", "axis"), [("regulator", 1), ("target", 0)])
def test_within_a_gene_its_level_says_nothing(within: Literal["regulator", "target"], axis: int):
    _, truth = example(7)
    degree = np.sum((truth != 0) & OFF_DIAGONAL, axis=axis, keepdims=True)
    scores = np.broadcast_to(degree, (7, 7))
    assert auroc(scores, truth, within=within) == 0.5
    assert auroc(scores, truth) > 0.55


def test_within_regulators_pairs_are_pooled():
    scores, truth = example(8, levels=2)
    concordant = comparisons = 0.0
    for j in range(7):
        row, edge = np.abs(scores[j, OFF_DIAGONAL[j]]), truth[j, OFF_DIAGONAL[j]] != 0
        difference = row[edge][:, None] - row[~edge]
        concordant += (difference > 0).sum() + (difference == 0).sum() / 2
        comparisons += difference.size
    assert auroc(scores, truth, within="regulator") == pytest.approx(concordant / comparisons, abs=1e-12)


METRICS = [auroc, average_precision, early_precision, sign_accuracy, support_error, network_scores]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("value", "found"), [(0, "0 edges in 42 pairs"), (1, "42 edges in 42 pairs")])
def test_edges_and_other_pairs_are_needed(metric, value, found):
    with pytest.raises(ValueError, match=f"Expected true edges and other pairs among the candidates, found {found}"):
        metric(np.ones((7, 7)), np.full((7, 7), value))


@pytest.mark.parametrize("metric", METRICS)
def test_bad_networks_are_refused(metric):
    scores, truth = example(9)
    with pytest.raises(ValueError, match=r"of one shape .*found \(7, 7\), \(6, 7\) and \(6, 7\)"):
        metric(scores, truth[:6])
    with pytest.raises(ValueError, match="Expected finite values in `edge_scores`, found nan at row 2, column 3"):
        metric(np.where(np.arange(49).reshape(7, 7) == 17, np.nan, scores), truth)
    with pytest.raises(ValueError, match="Expected finite values in `truth`, found inf at row 0, column 0"):
        metric(scores, np.where(np.arange(49).reshape(7, 7) == 0, np.inf, truth))
    with pytest.raises(ValueError, match=r"Expected `edge_scores` to hold numbers, .* found shape \(7,\)"):
        metric(scores[0], truth)
    with pytest.raises(ValueError, match=r"of one shape .*and \(7, 6\)"):
        metric(scores, truth, candidates=OFF_DIAGONAL[:, :6])
    with pytest.raises(TypeError, match="Expected `candidates` to hold booleans, found dtype float64"):
        metric(scores, truth, candidates=scores)
    with pytest.raises(ValueError, match="at least one candidate pair"):
        metric(scores, truth, candidates=np.zeros((7, 7), dtype=bool))


def test_density_refuses_nan():
    with pytest.raises(ValueError, match="Expected finite values in `truth`, found nan"):
        edge_density(np.full((3, 3), np.nan))


@pytest.mark.parametrize("metric", [support_error, network_scores])
@pytest.mark.parametrize("threshold", [-0.1, math.nan])
def test_threshold_is_not_negative(metric, threshold):
    with pytest.raises(ValueError, match="Expected `threshold` to be at least 0"):
        metric(*example(10), threshold=threshold)


def test_strata_are_named_and_comparable():
    scores, truth = example(11)
    with pytest.raises(ValueError, match="Expected `within` to be one of"):
        auroc(scores, truth, within="gene")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Expected an edge and a non-edge of the same target, found none"):
        auroc(np.ones((1, 2)), np.array([[1, 0]]), within="target")


def test_network_metrics_are_not_in_the_table_of_cell_metrics():
    assert not {"auroc", "average_precision"} & set(metrics.METRICS)
