from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perturbflow.metrics import centroid_accuracy, discrimination_score

DISTANCES = ["l1", "l2", "cosine"]
CONVENTIONS = ["cell_eval", "cell_eval2"]


def draw(seed, n_conditions=7, n_genes=11):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(n_conditions, n_genes)) for _ in range(2)]


def distance_of(x, y, name):
    if name == "l1":
        return abs(x - y).sum()
    if name == "l2":
        return np.sqrt(((x - y) ** 2).sum())
    length = np.sqrt((x @ x) * (y @ y))
    return 1 - x @ y / length if length else 1.0


def naive(predicted, observed, distance, convention, targets):
    """Score of every condition, one distance at a time."""
    n_conditions = len(observed)
    scores = []
    for i in range(n_conditions):
        kept = ~(targets[i] if convention == "cell_eval" else targets.any(axis=0))
        distances = [distance_of(predicted[i, kept], observed[j, kept], distance) for j in range(n_conditions)]
        others = distances[:i] + distances[i + 1 :]
        closer = sum(other < distances[i] for other in others)
        if convention == "cell_eval":
            scores.append(1 - (closer + sum(other == distances[i] for other in distances[:i])) / n_conditions)
        else:
            scores.append(1 - (closer + sum(other == distances[i] for other in others) / 2) / (n_conditions - 1))
    return np.array(scores)


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("convention", CONVENTIONS)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**16))
def test_definition(distance, convention, seed):
    predicted, observed = draw(seed)
    targets = np.random.default_rng(seed).random(observed.shape) < np.repeat([0.0, 0.2], [4, 7])
    expected = naive(predicted, observed, distance, convention, targets)
    scores = discrimination_score(predicted, observed, distance=distance, convention=convention, targets=targets)
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("convention", CONVENTIONS)
def test_blocks_do_not_matter(distance, convention, monkeypatch):
    predicted, observed = draw(1, n_conditions=23)
    targets = np.random.default_rng(0).random(observed.shape) < 0.05
    arguments: dict[str, Any] = {"distance": distance, "convention": convention, "targets": targets}
    expected = discrimination_score(predicted, observed, **arguments)
    monkeypatch.setattr("perturbflow.metrics._discrimination.BLOCK_BYTES", 8 * 23 * 5)
    np.testing.assert_allclose(discrimination_score(predicted, observed, **arguments), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("convention", CONVENTIONS)
def test_perfect_prediction(distance, convention):
    _, observed = draw(0)
    assert (discrimination_score(observed, observed, distance=distance, convention=convention) == 1).all()


def test_worst_prediction():
    observed = np.eye(5)
    assert (discrimination_score(-observed, observed, distance="cosine") == 0).all()
    np.testing.assert_allclose(
        discrimination_score(-observed, observed, distance="cosine", convention="cell_eval"), 1 / 5
    )


@pytest.mark.parametrize("distance", DISTANCES)
def test_one_prediction_for_all_conditions_averages_one_half(distance):
    predicted, observed = draw(2)
    scores = discrimination_score(np.tile(predicted[0], (7, 1)), observed, distance=distance)
    np.testing.assert_allclose(np.sort(scores), np.arange(7) / 6)


def test_ties_take_the_middle_or_the_order_of_conditions():
    _, observed = draw(3)
    nothing = np.zeros_like(observed)
    assert (discrimination_score(nothing, observed, distance="cosine") == 0.5).all()
    scores = discrimination_score(nothing, observed, distance="cosine", convention="cell_eval")
    np.testing.assert_allclose(scores, 1 - np.arange(7) / 7)


@pytest.mark.parametrize("distance", DISTANCES)
def test_equal_conditions_are_ties_whatever_the_rounding(distance):
    predicted, observed = draw(4, n_conditions=37, n_genes=50)
    rounding = 1 + 4e-16 * np.random.default_rng(0).normal(size=observed.shape)
    scores = discrimination_score(predicted, observed[:1] * rounding, distance=distance)
    assert (scores == 0.5).all()
    observed[1::2] = observed[:-1:2]  # pairs of equal conditions
    scores = discrimination_score(observed, observed * rounding, distance=distance)
    np.testing.assert_allclose(scores[:36], 1 - 0.5 / 36)
    assert scores[36] == 1


@pytest.mark.parametrize("distance", DISTANCES)
def test_conditions_that_differ_little_are_told_apart(distance):
    _, observed = draw(4, n_conditions=20, n_genes=50)
    observed[1::2] = observed[::2] + 1e-5 * observed[1::2]
    assert (discrimination_score(observed, observed, distance=distance) == 1).all()


def test_rounding_is_no_direction():
    _, observed = draw(5)
    noise = 1e-16 * np.random.default_rng(0).normal(size=observed.shape)
    assert (discrimination_score(noise, observed, distance="cosine") == 0.5).all()


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_cosine_sees_the_direction_only(convention):
    predicted, observed = draw(6)
    sizes = np.logspace(-3, 3, 7)[:, None]
    expected = discrimination_score(predicted, observed, distance="cosine", convention=convention)
    scores = discrimination_score(sizes * predicted, observed, distance="cosine", convention=convention)
    np.testing.assert_array_equal(scores, expected)


@pytest.mark.parametrize("distance", ["l1", "l2"])
def test_the_same_controls_on_both_sides_do_not_matter(distance):
    predicted, observed = draw(7)
    control = 1e7 * np.random.default_rng(0).random(11)
    expected = discrimination_score(predicted, observed, distance=distance)
    np.testing.assert_array_equal(
        discrimination_score(predicted + control, observed + control, distance=distance), expected
    )


@pytest.mark.parametrize("distance", DISTANCES)
def test_order_of_conditions_and_genes_does_not_matter(distance):
    predicted, observed = draw(8)
    rng = np.random.default_rng(0)
    rows, columns = rng.permutation(7), rng.permutation(11)
    expected = discrimination_score(predicted, observed, distance=distance)[rows]
    scores = discrimination_score(predicted[rows][:, columns], observed[rows][:, columns], distance=distance)
    np.testing.assert_array_equal(scores, expected)


def test_target_genes_of_the_others_can_be_exploited_in_cell_eval_alone():
    """Every perturbation lowers its own gene; the prediction raises the genes of all others and knows no more."""
    rng = np.random.default_rng(0)
    n_conditions = 20
    observed = 0.1 * rng.normal(size=(n_conditions, 100))
    targets = np.eye(n_conditions, 100, dtype=bool)
    observed[targets] = -5.0
    predicted = np.zeros_like(observed)
    predicted[:, :n_conditions] = 1.0
    arguments: dict[str, Any] = {"distance": "cosine", "targets": targets}
    assert discrimination_score(predicted, observed, convention="cell_eval", **arguments).mean() > 0.95
    assert (discrimination_score(predicted, observed, convention="cell_eval2", **arguments) == 0.5).all()


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("convention", CONVENTIONS)
def test_the_change_of_a_target_gene_does_not_count(distance, convention):
    predicted, observed = draw(9)
    targets = np.eye(7, 11, dtype=bool)
    arguments: dict[str, Any] = {"distance": distance, "convention": convention, "targets": targets}
    expected = discrimination_score(predicted, observed, **arguments)
    predicted[targets] = 1e4 * np.arange(1, 8)
    np.testing.assert_array_equal(discrimination_score(predicted, observed, **arguments), expected)


def test_one_condition_has_no_rank():
    predicted, observed = draw(0, n_conditions=1)
    assert np.isnan(discrimination_score(predicted, observed)).all()
    assert (discrimination_score(predicted, observed, convention="cell_eval") == 1).all()


def test_score_falls_as_a_prediction_moves_away():
    _, observed = draw(10, n_conditions=40, n_genes=30)
    wrong = np.roll(observed, 1, axis=0)
    means = [centroid_accuracy((1 - t) * observed + t * wrong, observed).mean() for t in np.linspace(0, 1, 6)]
    assert all(former >= latter for former, latter in pairwise(means))
    assert means[0] == 1
    assert means[-1] < 0.6


def test_centroid_accuracy_is_the_share_of_farther_conditions():
    predicted, observed = draw(11, n_conditions=12)
    distances = np.linalg.norm(predicted[:, None] - observed, axis=2)
    expected = (distances > np.diagonal(distances)[:, None]).sum(axis=1) / 11
    np.testing.assert_allclose(centroid_accuracy(predicted, observed), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("predicted", "observed", "error", "message"),
    [
        (np.zeros(3), np.zeros(3), ValueError, r"`predicted` to have shape \(conditions, genes\), found \(3,\)"),
        (np.zeros((0, 3)), np.zeros((0, 3)), ValueError, r"`predicted` to have shape .* found \(0, 3\)"),
        (
            np.zeros((2, 3)),
            np.zeros((3, 3)),
            ValueError,
            r"same conditions and genes in predicted, observed; .*\(3, 3\)",
        ),
        (np.zeros((2, 3)), np.full((2, 3), np.nan), ValueError, "finite values in `observed`, found 6"),
        (np.array([["a"]]), np.zeros((1, 1)), TypeError, "`predicted` to hold real numbers, found dtype <U1"),
    ],
)
def test_bad_profiles_are_refused(predicted, observed, error, message):
    for function in (discrimination_score, centroid_accuracy):
        with pytest.raises(error, match=message):
            function(predicted, observed)


def test_bad_options_are_refused():
    predicted, observed = draw(0)
    with pytest.raises(ValueError, match=r"`distance` to be one of \['cosine', 'l1', 'l2'\], found 'euclidean'"):
        discrimination_score(predicted, observed, distance="euclidean")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"`convention` to be one of \['cell_eval', 'cell_eval2'\], found 'vcc'"):
        discrimination_score(predicted, observed, convention="vcc")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"`targets` to be boolean of shape \(7, 11\), found bool of shape \(11,\)"):
        discrimination_score(predicted, observed, targets=np.zeros(11, dtype=bool))
    with pytest.raises(ValueError, match="`targets` to be boolean of shape .*, found float64"):
        discrimination_score(predicted, observed, targets=np.zeros((7, 11)))


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_some_genes_must_be_left(convention):
    predicted, observed = draw(0, n_conditions=3, n_genes=3)
    targets = np.eye(3, dtype=bool)
    if convention == "cell_eval":
        assert np.isfinite(discrimination_score(predicted, observed, convention=convention, targets=targets)).all()
        targets[1] = True
    with pytest.raises(ValueError, match="Expected genes that are not targets, found none for condition"):
        discrimination_score(predicted, observed, convention=convention, targets=targets)
