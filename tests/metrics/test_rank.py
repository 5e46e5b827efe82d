from __future__ import annotations

import numpy as np
import pytest

from perturbflow.metrics import normalised_rank


def naive(scores, higher_is_better):
    """Mean position over all ways to break ties, by sorting every column with tiny random numbers added."""
    rng = np.random.default_rng(0)
    n = len(scores)
    positions = []
    for _ in range(4000):
        noisy = scores + rng.uniform(0, 1e-9, scores.shape)
        order = np.argsort(-noisy if higher_is_better else noisy, axis=0)
        positions.append([np.flatnonzero(order[:, j] == j)[0] / (n - 1) for j in range(n)])
    return np.mean(positions, axis=0)


@pytest.mark.parametrize("higher_is_better", [True, False])
def test_is_the_mean_position_over_random_ties(higher_is_better):
    scores = np.random.default_rng(1).integers(0, 3, (6, 6)).astype(float)
    ranks = normalised_rank(scores, higher_is_better=higher_is_better)
    np.testing.assert_allclose(ranks, naive(scores, higher_is_better), atol=0.03)


def test_perfect_and_worst_predictions():
    scores = 1.0 - np.eye(5)
    assert (normalised_rank(scores, higher_is_better=False) == 0).all()
    assert (normalised_rank(scores, higher_is_better=True) == 1).all()


def test_ties_take_the_middle():
    assert (normalised_rank(np.ones((4, 4)), higher_is_better=False) == 0.5).all()
    scores = np.array([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [2.0, 0.0, 0.0]])
    assert normalised_rank(scores, higher_is_better=False)[0] == 0.25


def test_ranks_predictions_within_each_reference():
    # The first reference is far from every prediction; its own is nevertheless the closest one.
    scores = np.array([[8.0, 7.0], [9.0, 1.0]])
    assert (normalised_rank(scores, higher_is_better=False) == 0).all()
    assert normalised_rank(scores.T, higher_is_better=False)[0] == 1


def test_random_scores_average_one_half():
    ranks = normalised_rank(np.random.default_rng(2).normal(size=(400, 400)), higher_is_better=False)
    assert abs(ranks.mean() - 0.5) < 4 * np.sqrt(1 / 12 / 400)


def test_undefined_ranks():
    assert np.isnan(normalised_rank([[3.0]], higher_is_better=False)).all()
    ranks = normalised_rank([[0.0, np.nan, 1.0], [1.0, 0.0, 1.0], [1.0, 1.0, 0.0]], higher_is_better=False)
    np.testing.assert_array_equal(ranks, [0.0, np.nan, 0.0])


@pytest.mark.parametrize("scores", [np.zeros((2, 3)), np.zeros(3), np.zeros((0, 0))])
def test_scores_must_be_square(scores):
    with pytest.raises(ValueError, match=r"Expected `scores` to have shape \(conditions, conditions\), found"):
        normalised_rank(scores, higher_is_better=False)
