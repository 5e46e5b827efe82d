from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from perturbflow.metrics import DifferentialExpression, direction_fidelity, direction_fidelity_yield, direction_reach

METRICS = [direction_fidelity, direction_fidelity_yield, direction_reach]


def expression(change, adjusted, p_value=None):
    change, adjusted = np.asarray(change, dtype=float), np.asarray(adjusted, dtype=float)
    return DifferentialExpression(
        change, adjusted / 2 if p_value is None else np.asarray(p_value, dtype=float), adjusted
    )


def ranked(right, n_unscored=0):
    """Prediction that ranks genes in their order, and reference that agrees where ``right``."""
    n = len(right)
    predicted = expression(np.ones(n), np.linspace(0.001, 0.9, n))
    observed = expression(np.where(right, 1.0, -1.0), np.full(n, 0.01))
    return predicted, observed


def table(seed):
    rng = np.random.default_rng(seed)
    changes = rng.choice([-2.0, -1.0, 0.0, 1.0, 3.0, np.inf], size=20)
    return expression(changes, rng.choice([0.001, 0.01, 0.04, 0.06, 1.0], size=20))


def test_shares_by_hand():
    predicted = expression([1, 1, -1, 1, 1, 0], [0.01, 0.01, 0.01, 0.01, 0.9, 0.01])
    observed = expression([2, -2, -1, 0, 1, 1], [0.01, 0.01, 0.9, 0.01, 0.01, 0.9])
    # Called: genes 0, 1, 2 and 5 (gene 3 has no observed direction); right: 0 and 2; confident: 0, 1, 3, 4.
    assert direction_fidelity(predicted, observed) == 2 / 4
    assert direction_fidelity_yield(predicted, observed) == 2 / 4
    assert direction_fidelity(predicted, observed, targets=np.arange(6) == 5) == 2 / 3
    assert direction_fidelity_yield(predicted, observed, targets=np.arange(6) == 5) == 2 / 4


@pytest.mark.parametrize("seed", range(10))
def test_fidelity_yield_is_never_above_fidelity(seed):
    predicted, observed = table(seed), table(seed + 100)
    called = np.count_nonzero(predicted.significant() & (observed.log_fold_change != 0))
    confident = np.count_nonzero(observed.significant())
    expected = direction_fidelity(predicted, observed) * min(1, called / confident)
    assert direction_fidelity_yield(predicted, observed) == pytest.approx(expected)


def test_silence_and_the_empty_reference():
    silent, observed = expression([1, 1], [1, 1]), expression([1, -1], [0.01, 0.01])
    assert np.isnan(direction_fidelity(silent, observed))
    assert direction_fidelity_yield(silent, observed) == 0
    assert direction_fidelity_yield(observed, silent) == 1 / 2
    assert np.isnan(direction_reach(observed, silent))
    assert np.isnan(direction_fidelity_yield(silent, silent))


def test_infinite_changes_have_a_direction():
    observed = expression([np.inf, -np.inf], [0.01, 0.01])
    assert direction_fidelity(expression([1, 1], [0.01, 0.01]), observed) == 1 / 2


def test_perfect_and_reversed():
    predicted, observed = ranked([True] * 12)
    assert direction_reach(predicted, observed) == 1
    reversed_ = expression(-predicted.log_fold_change, predicted.adjusted)
    assert direction_reach(reversed_, observed) == 0
    assert direction_fidelity(reversed_, observed) == 0


@pytest.mark.parametrize(
    ("right", "expected"),
    [
        pytest.param([True] * 5 + [False] * 5, 5 / 10, id="mistakes_last"),
        pytest.param([False] + [True] * 8 + [False], 0, id="mistake_first"),
        pytest.param([False] + [True] * 9, 1, id="recovers_at_nine_tenths"),
        pytest.param([True] * 9 + [False] + [True] * 2 + [False], 12 / 13, id="dips_and_recovers"),
    ],
)
def test_reach_by_hand(right, expected):
    assert direction_reach(*ranked(right)) == pytest.approx(expected)


def test_purity_is_asked_of_the_first_genes():
    predicted, observed = ranked([True, False, True, True])
    assert direction_reach(predicted, observed, purity=1.0) == 1 / 4
    assert direction_reach(predicted, observed, purity=0.75) == 1
    assert direction_reach(predicted, observed, targets=np.arange(4) == 1, purity=1.0) == 1


def test_genes_without_an_observed_direction_hold_no_depth():
    predicted, _ = ranked([True] * 4)
    observed = expression([1, 0, 1, 1], [0.01] * 4)
    assert direction_reach(predicted, observed) == 3 / 4


def test_ranked_by_adjusted_then_raw_then_size():
    observed = expression([1, 1, 1, -1], [0.01] * 4)
    by_adjusted = expression([1, 1, 1, 1], [0.01, 0.02, 0.03, 0.04], p_value=[0.9, 0.8, 0.7, 0.1])
    by_raw = expression([1, 1, 1, 9], [0.01] * 4, p_value=[0.001, 0.002, 0.003, 0.004])
    by_size = expression([5, 4, 3, 1], [0.01] * 4, p_value=[0.001] * 4)
    for predicted in (by_adjusted, by_raw, by_size):
        assert direction_reach(predicted, observed) == 3 / 4


def test_genes_that_are_not_told_apart_enter_together():
    # One of three is wrong: whether it comes last would be decided by the order of the columns alone.
    predicted = expression([1, 1, 1], [0.2] * 3)
    assert direction_reach(predicted, expression([1, 1, -1], [0.01] * 3)) == 0
    assert direction_reach(predicted, expression([1, 1, 1], [0.01] * 3)) == 1


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 1000), arrays(np.int64, 20, elements=st.integers(0, 10**6), unique=True))
def test_the_order_of_genes_does_not_matter(seed, keys):
    order = np.argsort(keys)

    def shuffled(one):
        return DifferentialExpression(one.log_fold_change[order], one.p_value[order], one.adjusted[order])

    predicted, observed = table(seed), table(seed + 1)
    for metric in METRICS:
        np.testing.assert_equal(
            metric(shuffled(predicted), shuffled(observed)), metric(predicted, observed), err_msg=metric.__name__
        )


@pytest.mark.parametrize("metric", METRICS)
def test_bad_input(metric):
    three, two = expression(np.ones(3), np.ones(3)), expression(np.ones(2), np.ones(2))
    with pytest.raises(ValueError, match="same genes, found 2 predicted and 3 observed"):
        metric(two, three)
    with pytest.raises(ValueError, match="`fdr` above 0 and at most 1, found 5"):
        metric(three, three, fdr=5)


def test_bad_purity():
    one = expression(np.ones(1), np.ones(1))
    with pytest.raises(ValueError, match="`purity` above 0 and at most 1, found 0"):
        direction_reach(one, one, purity=0)
