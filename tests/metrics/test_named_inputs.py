"""Tables of pandas are put in order by their names, in every function of `pf.metrics`."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from perturbflow import metrics
from perturbflow.metrics import DifferentialExpression, Moments, Panel, WilcoxonAgainst

GENES, CONDITIONS = list("abcdef"), ["A", "B", "C", "D"]
RNG = np.random.default_rng(0)


def cells(n, shift=0.0):
    values = RNG.gamma(1.0, size=(n, 6)) * (RNG.random((n, 6)) < 0.8) + shift * np.arange(6)
    return pd.DataFrame(values, index=[f"{shift}{i}" for i in range(n)], columns=GENES)


def profiles(values):
    return pd.DataFrame(values, index=CONDITIONS, columns=GENES)


def network(values):
    return pd.DataFrame(values, index=list("abcd"), columns=list("abcd"))


X, Y, CONTROL = cells(20, 0.2), cells(18, 0.3), cells(25)
P, Q, R = (profiles(RNG.gamma(1.0, size=(4, 6))) for _ in range(3))
ONE = {"genes": pd.Series(RNG.random(6), index=GENES), "conditions": pd.Series(RNG.random(4), index=CONDITIONS)}
TRUTH, EDGES = network((RNG.random((4, 4)) < 0.4) * [-1.0, 1.0, 1.0, -1.0]), network(RNG.normal(size=(4, 4)))
TESTS = tuple(WilcoxonAgainst(CONTROL)(cells) for cells in (X, Y))
TWO, THREE, PAIR = (X, Y), (X, Y, CONTROL), (P, Q)
ARGUMENTS: dict[str, Any] = {
    **dict.fromkeys(
        (
            *("error_of_variances", "error_of_zero_fractions", "mmd", "energy_distance", "energy_loss"),
            *("wasserstein_of_genes", "sliced_wasserstein", "agreement_of_correlations", "error_of_correlations"),
            "classifier_auroc",
        ),
        (TWO, {}),
    ),
    **dict.fromkeys(
        (
            *("rmse_of_mean_effects", "cosine_of_mean_effects", "cosine_of_log_fold_changes", "mse_of_mean_effects"),
            *("mae_of_mean_effects", "pearson_of_mean_effects", "recall_of_top_genes"),
            *("error_of_responders", "energy_in_programs", "error_of_response_correlation", "r2_of_scores"),
        ),
        (THREE, {}),
    ),
    **dict.fromkeys(
        ("mse_of_mean_effects", "mae_of_mean_effects", "pearson_of_mean_effects"),
        (THREE, {"predicted_control": cells(12)}),
    ),
    **dict.fromkeys(("energy_distance", "mmd"), (TWO, {"again": cells(len(X), 0.2)})),
    "recall_of_top_genes": (THREE, {"n_top": 2}),
    "differential_weights": (([X, Y, CONTROL],), {}),
    "weighted_mse": ((P, Q, ONE["genes"]), {}),
    "weighted_r2": ((P, Q, abs(R), ONE["genes"]), {}),
    "pearson_against_reference": ((P, Q, ONE["genes"]), {"n_top": 3, "scores": R}),
    "discrimination_score": (PAIR, {"targets": R > R.to_numpy().max() - 0.1}),
    "centroid_accuracy": (PAIR, {}),
    "normalised_rank": ((pd.DataFrame(EDGES.to_numpy(), CONDITIONS, CONDITIONS),), {"higher_is_better": True}),
    **dict.fromkeys(
        (*("auroc", "average_precision", "early_precision", "sign_accuracy", "support_error", "network_scores"),),
        ((EDGES, TRUTH), {}),
    ),
    "edge_density": ((TRUTH,), {"candidates": TRUTH > -5}),
    **dict.fromkeys(
        (
            *("overlap_of_top_genes", "precision_of_top_genes", "recall_of_significant_genes"),
            *("agreement_of_direction", "spearman_of_log_fold_changes"),
            *("average_precision_of_significant_genes", "auroc_of_significant_genes"),
            *("direction_fidelity", "direction_fidelity_yield", "direction_reach"),
            *("jaccard_of_significant_genes",),
        ),
        (TESTS, {}),
    ),
    "relative_error_of_log_fold_changes": (TESTS, {"minimum": 1}),
    "jaccard_of_significant_genes": (TESTS, {"targets": pd.Series([True, *5 * [False]], index=GENES)}),
}
# Of one table, of things that are no tables, or of names alone.
WITHOUT = {
    *("challenge_score", "dynamic_range_fraction", "pseudobulk_moments", "register"),
    *("spearman_of_numbers_of_significant_genes", "pearson_of_energy_distances"),
    *("unbiased_mse", "pooled_unbiased_mse"),  # of a Panel, below
}


def test_every_function_is_tested():
    functions = {name for name in metrics.__all__ if inspect.isfunction(getattr(metrics, name))}
    assert functions == {*ARGUMENTS, *WITHOUT}


def shuffled(value, rng):
    if isinstance(value, list):
        return [shuffled(one, rng) for one in value]
    if isinstance(value, pd.Series):
        return value.iloc[rng.permutation(len(value))]
    if isinstance(value, DifferentialExpression):
        return value.reordered(rng.permutation(value.n_genes))
    if isinstance(value, pd.DataFrame):
        value = value.iloc[:, rng.permutation(value.shape[1])]
        # Cells stay: chance draws them by their place.
        return value if len(value) > 6 else value.iloc[rng.permutation(len(value))]
    return value


def plain(value):
    if isinstance(value, list):
        return [plain(one) for one in value]
    if isinstance(value, DifferentialExpression):
        return DifferentialExpression(value.log_fold_change, value.p_value, value.adjusted, value.score)
    return value.to_numpy() if isinstance(value, pd.Series | pd.DataFrame) else value


def called(name, args, options):
    found = getattr(metrics, name)(*args, **options)
    if isinstance(found, DifferentialExpression):
        return np.stack([found.log_fold_change, found.p_value])
    return np.array(list(found.values())) if isinstance(found, dict) else found


def test_order_of_names_does_not_matter(subtests):
    for name in ARGUMENTS:
        with subtests.test(name):
            args, options = ARGUMENTS[name]
            rng = np.random.default_rng(1)
            first, *others = args
            mixed = [first, *(shuffled(one, rng) for one in others)]
            if isinstance(first, list):
                mixed[0] = [first[0], *shuffled(first[1:], rng)]
            elif name == "normalised_rank":
                mixed[0] = first.iloc[:, ::-1]
            further = {key: shuffled(value, rng) for key, value in options.items()}
            expected = called(name, [plain(one) for one in args], {key: plain(value) for key, value in options.items()})
            assert np.isfinite(np.asarray(expected, dtype=float)).all()
            np.testing.assert_allclose(called(name, mixed, further), expected, rtol=1e-12)


ALIGNED = [name for name, (args, _) in ARGUMENTS.items() if len(args) > 1 and isinstance(args[0], pd.DataFrame)]


def test_other_names_are_refused(subtests):
    for name in ALIGNED:
        with subtests.test(name):
            (first, second, *others), options = ARGUMENTS[name]
            other = second.rename(columns={second.columns[0]: "other"})
            with pytest.raises(ValueError, match="Expected the same (genes|targets) in .*other"):
                called(name, [first, other, *others], options)


def test_cells_with_annotation_are_refused(subtests):
    for name in ALIGNED:
        with subtests.test(name):
            (first, second, *others), options = ARGUMENTS[name]
            with pytest.raises(TypeError, match=r"found AnnData. Pass `adata.to_df\(\)`"):
                called(name, [first, AnnData(second.to_numpy()), *others], options)


def test_moments_keep_names():
    other = Moments.of(Y[GENES[::-1]])
    control = Moments.of(CONTROL)
    expected = metrics.mse_of_mean_effects(*(one.to_numpy() for one in (X, Y, CONTROL)))
    assert metrics.mse_of_mean_effects(Moments.of(X), other, control) == pytest.approx(expected)
    pooled = Moments.pooled(Moments.of(X), other)
    np.testing.assert_allclose(pooled.mean, pd.concat([X, Y]).mean())
    assert pd.Index(GENES).equals(pooled.gene_names)
    with pytest.raises(ValueError, match=r"found only in `y` \['a'\]"):
        metrics.mse_of_mean_effects(Moments.of(X[GENES[1:]]), other, control)


def test_results_in_another_order_keep_names():
    order = np.array([3, 0, 5, 1, 2, 4])
    for one in (Moments.of(X), TESTS[0]):
        found = one.reordered(order)
        assert found.gene_names is not None
        assert found.gene_names.tolist() == [GENES[place] for place in order]
    fewer = TESTS[0].reordered(order[:5])
    for metric in (metrics.direction_fidelity, metrics.recall_of_significant_genes):
        with pytest.raises(ValueError, match=r"Expected the same genes in `predicted` and `observed`.*\['e'\]"):
            metric(fewer, TESTS[1])


def test_panels_keep_names():
    def panel(sides):
        predicted, observed, control, targets = sides
        return Panel(list(map(Moments.of, predicted)), list(map(Moments.of, observed)), Moments.of(control), targets)

    targets = pd.DataFrame([[True, *5 * [False]], 6 * [False]], columns=GENES)
    sides = [[X, Y], [Y, CONTROL], CONTROL, targets]
    expected = metrics.unbiased_mse(panel(plain(sides)))
    mixed = [[X, Y[GENES[::-1]]], shuffled(sides[1], np.random.default_rng(2)), CONTROL, targets[GENES[::-1]]]
    np.testing.assert_allclose(metrics.unbiased_mse(panel(mixed)), expected)


def test_what_is_prepared_once_keeps_names():
    for kind in (WilcoxonAgainst, metrics.WilcoxonOfCounts):
        test, expected = kind(CONTROL), kind(CONTROL.to_numpy())(X.to_numpy())
        found = test(X[GENES[::-1]])
        np.testing.assert_allclose(found.log_fold_change, expected.log_fold_change)
        assert pd.Index(GENES).equals(found.gene_names)


def test_self_edges_are_told_by_name():
    assert metrics.edge_density(network(np.eye(4))) == 0
    assert metrics.edge_density(network(np.eye(4))[list("dcba")]) == 0
    # Of other genes: nothing regulates itself.
    assert metrics.edge_density(pd.DataFrame(np.eye(2), index=["a", "b"], columns=["c", "d"])) == 0.5
    assert metrics.edge_density(np.eye(4)) == 0


def test_series_of_a_test_have_one_order():
    change, p_value = (pd.Series(RNG.random(3), index=list("abc")) for _ in range(2))
    found = DifferentialExpression(change, p_value[::-1], p_value)
    np.testing.assert_array_equal(found.p_value, p_value)
    assert pd.Index(list("abc")).equals(found.gene_names)
    with pytest.raises(ValueError, match=r"Expected the same genes in `log_fold_change` and `p_value`.*\['d'\]"):
        DifferentialExpression(change, p_value.rename({"a": "d"}), p_value)
