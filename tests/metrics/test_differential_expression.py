from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import sparse, stats

from perturbflow.metrics import DifferentialExpression, WilcoxonAgainst

TIED = st.sampled_from([-1.0, 0.0, 0.0, 0.5, 1.0])


def counts(rng, n, mean):
    return np.log1p(rng.poisson(mean, size=(n, len(mean))).astype(np.float64))


def score(found):
    assert found.score is not None
    return found.score


# The container


def test_p_values_are_adjusted_over_all_genes():
    p = np.array([0.01, 0.04, 0.03, 0.5])
    found = DifferentialExpression.of(np.zeros(4), p)
    # p m / rank from below: 0.04, then the smaller of 0.03 * 4 / 2 and 0.04 * 4 / 3, twice, and 0.5.
    assert found.adjusted == pytest.approx([0.04, 0.16 / 3, 0.16 / 3, 0.5])
    assert found.significant().tolist() == [True, False, False, False]
    assert found.significant(fdr=0.06).tolist() == [True, True, True, False]
    assert found.n_genes == 4
    assert found.score is None


def test_significance_is_strict():
    found = DifferentialExpression(np.zeros(2), np.array([0.05, 0.01]), np.array([0.05, 0.02]))
    assert found.significant(0.05).tolist() == [False, True]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        pytest.param((np.zeros(2), np.zeros(3), np.zeros(2)), "one value of `p_value` for every gene", id="shapes"),
        pytest.param((np.zeros(0),) * 3, "one value of `log_fold_change` for every gene", id="no_gene"),
        pytest.param((np.zeros((2, 1)),) * 3, r"found shape \(2, 1\)", id="matrix"),
        pytest.param((np.zeros(2), np.array([0.1, np.nan]), np.zeros(2)), "`p_value`, found NaN in 1 genes", id="nan"),
        pytest.param(
            (np.zeros(1), np.array([5.0]), np.zeros(1)), "`p_value` between 0 and 1, found 5 to 5", id="above"
        ),
        pytest.param((np.zeros(1), np.zeros(1), np.array([-0.1])), "`adjusted` between 0 and 1", id="below"),
        pytest.param((*[np.zeros(1)] * 3, np.zeros(2)), "one value of `score`", id="score"),
    ],
)
def test_bad_fields_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        DifferentialExpression(*fields)


@pytest.mark.parametrize("p", [np.array([np.nan]), np.array([2.0])])
def test_p_values_that_cannot_be_adjusted_are_refused(p):
    with pytest.raises(ValueError, match="Expected"):
        DifferentialExpression.of(np.zeros(1), p)


@pytest.mark.parametrize("fdr", [0.0, -1.0, 1.5, np.nan])
def test_bad_rate_is_refused(fdr):
    with pytest.raises(ValueError, match="`fdr` above 0 and at most 1, found"):
        DifferentialExpression.of(np.zeros(1), np.zeros(1)).significant(fdr)


# Fold changes


def log_fold_change(mean, control, **options):
    """Fold changes of means, those of single cells."""
    return WilcoxonAgainst(np.atleast_2d(control), **options)(np.atleast_2d(mean)).log_fold_change


def test_fold_changes_are_of_counts():
    assert log_fold_change(np.log1p([4.0, 1.0]), np.log1p([1.0, 4.0]), pseudocount=0) == pytest.approx([2, -2])
    assert log_fold_change(np.log1p([4.0]), np.log1p([1.0]), pseudocount=2.0) == pytest.approx([1])


def test_silent_genes_do_not_change():
    for pseudocount in (0.0, 1e-9, 1.0):
        assert log_fold_change(np.zeros(1), np.zeros(1), pseudocount=pseudocount) == [0]


def test_genes_of_one_side():
    mean, control = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    assert log_fold_change(mean, control, pseudocount=0).tolist() == [np.inf, -np.inf]
    up, down = log_fold_change(mean, control)
    assert up == pytest.approx(-down)
    assert 30 < up < 31


def test_a_negative_mean_is_no_expression():
    assert log_fold_change(np.array([-0.3]), np.array([1.0])) == log_fold_change(np.array([0.0]), np.array([1.0]))


@pytest.mark.parametrize("pseudocount", [-1.0, np.nan, np.inf])
def test_bad_pseudocount_is_refused(pseudocount):
    with pytest.raises(ValueError, match="`pseudocount` to be 0 or a positive number"):
        log_fold_change(np.zeros(1), np.zeros(1), pseudocount=pseudocount)
    with pytest.raises(ValueError, match="`pseudocount` to be 0 or a positive number"):
        WilcoxonAgainst(np.zeros((2, 1)), pseudocount=pseudocount)


def test_values_that_are_no_logarithms_are_refused():
    with pytest.raises(ValueError, match="log1p-normalised expression, found 5e"):
        log_fold_change(np.array([5e3]), np.array([1.0]))
    with pytest.raises(ValueError, match="same genes"):
        log_fold_change(np.zeros(2), np.zeros(3))


# Mann-Whitney


def wilcoxon(cells, control):
    return WilcoxonAgainst(control)(cells)


def naive_u(x, y):
    return sum((a > b) + (a == b) / 2 for a, b in itertools.product(x, y))


@settings(max_examples=100, deadline=None)
@given(
    x=arrays(np.float64, st.tuples(st.integers(1, 8), st.just(3)), elements=TIED),
    y=arrays(np.float64, st.tuples(st.integers(1, 8), st.just(3)), elements=TIED),
)
def test_agrees_with_scipy(x, y):
    with np.errstate(divide="ignore", invalid="ignore"):  # where all values are equal
        expected = stats.mannwhitneyu(x, y, axis=0, method="asymptotic")
    for cells, control in itertools.product((x, sparse.csr_array(x)), (y, sparse.csc_matrix(y))):
        found = wilcoxon(cells, control)
        # Where all values are equal, SciPy before 1.18 says 1 and then NaN.
        assert found.p_value == pytest.approx(np.nan_to_num(expected.pvalue, nan=1.0), abs=1e-12)
    excess = np.array([naive_u(a, b) for a, b in zip(x.T, y.T, strict=True)]) - len(x) * len(y) / 2
    assert np.sign(score(found)).tolist() == (np.sign(excess) * (np.abs(excess) > 0.5)).tolist()


def test_agrees_with_scipy_on_many_cells():
    rng = np.random.default_rng(3)
    mean = np.concatenate([[0.0], rng.gamma(0.5, size=60)])
    control, cells = counts(rng, 400, mean), counts(rng, 150, mean * 1.2)
    expected = stats.mannwhitneyu(cells, control, axis=0, method="asymptotic")
    p_value = np.nan_to_num(expected.pvalue, nan=1.0)  # where all values are equal
    found = WilcoxonAgainst(sparse.csr_matrix(control))(sparse.csr_matrix(cells))
    assert found.p_value == pytest.approx(p_value, rel=1e-10)
    assert found.adjusted == pytest.approx(stats.false_discovery_control(p_value), rel=1e-10)
    assert found.p_value == pytest.approx(2 * stats.norm.sf(np.abs(score(found))))
    assert found.log_fold_change == pytest.approx(log_fold_change(cells.mean(0), control.mean(0)))
    assert found.p_value[0] == 1


@pytest.mark.parametrize("as_cells", [np.asarray, sparse.csr_array], ids=["dense", "sparse"])
@pytest.mark.parametrize(
    "kinds", [(np.float32, np.float32), (np.float32, np.float64), (np.float64, np.float32)], ids=str
)
def test_precision_does_not_matter(kinds, as_cells):
    rng = np.random.default_rng(0)
    cells, control = (np.round(rng.normal(size=(n, 9)), 1) * rng.integers(0, 2, (n, 9)) for n in (30, 40))
    cells, control = (one.astype(np.float32).astype(np.float64) for one in (cells, control))
    expected = stats.mannwhitneyu(cells, control, axis=0, method="asymptotic").pvalue
    found = wilcoxon(as_cells(cells.astype(kinds[0])), as_cells(control.astype(kinds[1])))
    assert found.p_value == pytest.approx(expected, rel=1e-10)


def test_values_that_single_precision_cannot_tell_apart_are_not_equal():
    control = np.random.default_rng(1).normal(size=(40, 9)).astype(np.float32)
    cells = control[:30] + 1e-10  # above the equal control by less than its rounding
    for one, two in ((cells, control), (control, cells)):
        expected = stats.mannwhitneyu(one.astype(float), two.astype(float), axis=0, method="asymptotic").pvalue
        assert wilcoxon(one, two).p_value == pytest.approx(expected, rel=1e-10)


def test_cells_are_not_changed():
    cells = sparse.csr_array(np.array([[1.0, 0.0], [2.0, 3.0]]))
    cells.data[0] = 0.0
    wilcoxon(cells, cells)
    assert cells.nnz == 3


@settings(max_examples=50, deadline=None)
@given(
    x=arrays(np.float64, (6, 2), elements=TIED),
    y=arrays(np.float64, (5, 2), elements=TIED),
    shift=st.sampled_from([3, -2]),
)
def test_depends_on_the_order_of_values_only(x, y, shift):
    # Neither zeros, which are not stored, nor negative values are special.
    plain, moved = wilcoxon(x, y), wilcoxon(np.exp(x) + shift, np.exp(y) + shift)
    assert plain.score == pytest.approx(moved.score, abs=1e-12)
    assert plain.score == pytest.approx(-score(wilcoxon(-x, -y)), abs=1e-12)
    assert plain.score == pytest.approx(-score(wilcoxon(y, x)), abs=1e-12)


@pytest.mark.parametrize("convert", [np.asarray, np.asfortranarray, sparse.csr_matrix, sparse.csc_array])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_cells_are_left_alone(convert, dtype):
    rng = np.random.default_rng(4)
    x, y = rng.poisson(1.0, size=(9, 5)).astype(dtype), rng.poisson(1.0, size=(7, 5)).astype(dtype)
    cells, control = convert(x), convert(y)
    found = WilcoxonAgainst(control)(cells)
    assert found.p_value == pytest.approx(wilcoxon(x.astype(float), y.astype(float)).p_value, abs=1e-12)
    for left, right in ((cells, x), (control, y)):
        assert np.array_equal(left.toarray() if sparse.issparse(left) else left, right)


def test_stored_zeros_and_duplicates_are_what_they_stand_for():
    stored = sparse.csr_matrix(
        (np.array([0.0, 1.0, 1.0, 3.0]), np.array([0, 1, 1, 0]), np.array([0, 3, 4])), shape=(2, 2)
    )
    plain = np.array([[0.0, 2.0], [3.0, 0.0]])
    control = np.array([[1.0, 2.0], [0.0, 0.0], [3.0, 5.0]])
    assert wilcoxon(stored, control).score == pytest.approx(wilcoxon(plain, control).score)
    assert wilcoxon(control, stored).score == pytest.approx(wilcoxon(control, plain).score)


def test_many_conditions_against_one_set_of_controls():
    rng = np.random.default_rng(5)
    control = counts(rng, 50, np.full(8, 0.7))
    test = WilcoxonAgainst(control)
    for n in (1, 5, 30):
        cells = counts(rng, n, np.full(8, 1.5))
        assert test(cells).p_value == pytest.approx(wilcoxon(cells, control).p_value, abs=0)


def test_level_is_kept_and_effects_are_found():
    rng = np.random.default_rng(6)
    mean = np.full(400, 0.8)
    effect = np.where(np.arange(400) < 40, 4.0, 1.0)
    control = counts(rng, 200, mean)
    p_value = wilcoxon(counts(rng, 100, mean), control).p_value
    assert abs((p_value < 0.05).mean() - 0.05) < 4 * np.sqrt(0.05 * 0.95 / 400)
    found = wilcoxon(counts(rng, 100, mean * effect), control).significant(fdr=0.05)
    assert found[:40].all()
    assert found[40:].mean() < 0.02


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        pytest.param(np.ones((0, 2)), "at least 1 cells and 1 gene in `cells`", id="no_cells"),
        pytest.param(np.ones((3, 3)), "same genes", id="genes"),
        pytest.param(np.array([[1.0, np.nan]]), "finite values in `cells`", id="nan"),
        pytest.param(np.ones(3), "shape", id="vector"),
    ],
)
def test_bad_cells_are_refused(cells, message):
    with pytest.raises(ValueError, match=message):
        WilcoxonAgainst(np.ones((3, 2)))(cells)


def test_bad_controls_are_refused():
    with pytest.raises(ValueError, match="at least 1 cells and 1 gene in `control`"):
        WilcoxonAgainst(np.ones((0, 2)))
    with pytest.raises(ValueError, match="finite values in `control`"):
        WilcoxonAgainst(np.array([[np.inf]]))
