"""Metrics of the 2026 Virtual Cell Challenge beside cell-eval2 0.20: function by function, and its preset in one run.

Where values differ, a test here says how: the noise of the perturbed gene itself, genes that a prediction does not tell
apart, genes that a prediction holds constant, scales that do not exist.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np
import pytest
from scipy import sparse

from perturbflow.metrics import (
    DifferentialExpression,
    Moments,
    Panel,
    WilcoxonOfCounts,
    agreement_of_correlations,
    challenge_score,
    direction_fidelity,
    direction_fidelity_yield,
    direction_reach,
    discrimination_score,
    jaccard_of_significant_genes,
    pooled_unbiased_mse,
    pseudobulk_moments,
    relative_error_of_log_fold_changes,
    unbiased_mse,
)
from perturbflow.metrics._unbiased_errors import unbiased_effect_sizes

CHALLENGE = [
    *("pds_cosine", "expr_mse_unbiased_capped_norm", "de_wilcoxon_sig_jaccard", "de_wilcoxon_lfc_nmae"),
    *("de_wilcoxon_direction_fidelity_yield_raw", "de_wilcoxon_direction_reach_raw"),
]

REASON = "the reference implementation, and what it reads"
ad, pd, pl = (pytest.importorskip(name, reason=REASON) for name in ("anndata", "pandas", "polars"))
pytest.importorskip("pdex", reason="the reference implementation tests with it")
cell_eval2 = pytest.importorskip("cell_eval2", reason=REASON)
anchor, catalog, prep, scoring, reference_moments, reference_score = (
    import_module(f"cell_eval2.{name}") for name in ("anchor", "catalog", "prep", "scoring", "moments", "score")
)
reference_cells, reference_de, reference_delta, reference_direction = (
    import_module(f"cell_eval2.metrics.{name}") for name in ("cells", "de", "delta", "direction")
)

CONTROL = "non-targeting"
assert_close = partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-6)
PREFIX = "de_wilcoxon_"
PRESET = [m for m, spec in catalog.CATALOG.items() if "vcc2026" in spec.profiles]

N_GENES, N_CONDITIONS = 200, 8
GENES = [f"g{i:03d}" for i in range(N_GENES)]
# The last condition does nothing and names no gene.
CONDITIONS = [*GENES[: N_CONDITIONS - 1], "nowhere"]
TARGETS = np.eye(N_CONDITIONS, N_GENES, dtype=bool)
TARGETS[-1] = False


def simulated(folds, seed):
    """Counts of controls and of conditions of different sizes, by name."""
    rng = np.random.default_rng(seed)
    base = np.random.default_rng(0).gamma(0.5, 4.0, size=N_GENES) + 0.05
    means = {CONTROL: base, **{name: base * fold for name, fold in zip(CONDITIONS, folds, strict=True)}}
    sizes = dict(zip(means, [80, *(40 + 3 * i for i in range(N_CONDITIONS))], strict=True))
    return {
        name: rng.poisson(rng.gamma(3.0, mean / 3, size=(sizes[name], N_GENES)) * rng.gamma(5, 0.2, (sizes[name], 1)))
        for name, mean in means.items()
    }


def as_anndata(counts):
    names = np.repeat(list(counts), [len(block) for block in counts.values()])
    values = sparse.csr_matrix(np.concatenate(list(counts.values())).astype(np.float32))
    obs = pd.DataFrame({"target": names}, index=[str(i) for i in range(len(names))])
    return ad.AnnData(values, obs=obs, var=pd.DataFrame(index=GENES))


@pytest.fixture(scope="module")
def configuration():
    preset = cell_eval2.EvalConfig.from_preset("vcc2026")
    return replace(preset, device="cpu", num_threads=1, de=replace(preset.de, backend="pdex"))


@pytest.fixture(scope="module")
def screens():
    """Predicted and real counts: effects of the right direction but half the size, and noise of their own."""
    rng = np.random.default_rng(1)
    folds = np.exp(rng.normal(size=(N_CONDITIONS, N_GENES)) * (rng.random((N_CONDITIONS, N_GENES)) < 0.4))
    folds[-1] = 1
    predicted = np.sqrt(folds) * np.exp(0.3 * rng.normal(size=folds.shape))
    return simulated(predicted, 2), simulated(folds, 3)


def panel_of(predicted, observed, *, targets=None):
    x, y = ([pseudobulk_moments(side[name]) for name in CONDITIONS] for side in (predicted, observed))
    return Panel(x, y, pseudobulk_moments(observed[CONTROL]), targets)


def with_noise_of_targets(panel):
    """The panel as cell-eval2 has it: the noise of a target gene is subtracted although its error is not counted."""

    def spread(one, targets):
        share = np.where(targets, 0.0, one.variance.sum() / np.count_nonzero(~targets))
        return Moments(one.n_cells, one.mean, share)

    x, y = ([spread(*pair) for pair in zip(side, TARGETS, strict=True)] for side in (panel.predicted, panel.observed))
    return Panel(x, y, panel.control, TARGETS)


def reference_errors(predicted, observed, *, genes=None):
    """The two errors and the size of cell-eval2, in the order of the conditions."""
    sides: dict[str, Any] = {}
    for name, side in (("pred", predicted), ("real", observed)):
        found = prep.pseudobulk_bulk_lognorm_with_moments(as_anndata(side), "target", bulk_target_sum=50_000.0)
        sides |= {f"{name}_bulk": found[:2], f"{name}_moments": found[2]}
    functions = reference_delta.mse_unbiased, reference_delta.mse_unbiased_capped, reference_delta.distance_unbiased
    given = {"comparator": "bulk_lognorm", "genes": genes, **sides}
    return [np.array([metric(**given)[name] for name in CONDITIONS]) for metric in functions]


def test_pseudobulk_and_jackknife(screens):
    _, observed = screens
    names, means, moments = prep.pseudobulk_bulk_lognorm_with_moments(
        as_anndata(observed), "target", bulk_target_sum=50_000.0, per_gene_jk=True
    )
    for name, mean, noise in zip(names, means, moments.jk_gene, strict=True):
        found = pseudobulk_moments(sparse.csr_matrix(observed[name]))
        assert_close(found.mean, mean)
        assert_close(found.variance / found.n_cells, noise)


@pytest.mark.parametrize("thinned", [1, 4])
def test_unbiased_errors(screens, thinned):
    predicted, observed = screens
    predicted = {name: block[::thinned] for name, block in predicted.items()}  # fewer cells: the caps bind
    panel = panel_of(predicted, observed)
    error, capped, size = reference_errors(predicted, observed)
    assert_close(unbiased_mse(panel), error)
    assert_close(unbiased_mse(panel, capped=True), capped)
    assert_close(unbiased_effect_sizes(panel), size)
    assert np.abs(error - capped).max() > 0.01


def test_one_prediction_for_all_conditions(screens):
    predicted, observed = screens
    same = dict.fromkeys(predicted, predicted[CONDITIONS[0]])
    _, capped, _ = reference_errors(same, observed)
    assert_close(unbiased_mse(panel_of(same, observed), capped=True), capped)


def test_noise_of_the_target_is_not_subtracted(screens):
    error, capped, size = reference_errors(*screens, genes=GENES)
    panel = panel_of(*screens, targets=TARGETS)
    whole = with_noise_of_targets(panel)
    assert_close(unbiased_mse(whole), error)
    assert_close(unbiased_mse(whole, capped=True), capped)

    noise_control = panel.control.variance / panel.control.n_cells
    left_out = [
        (one.variance / one.n_cells + noise_control)[targets].sum() / np.count_nonzero(~targets)
        for one, targets in zip(panel.observed, TARGETS, strict=True)
    ]
    assert_close(unbiased_effect_sizes(panel) - left_out, size)
    assert max(left_out) > 1e-4


def test_unbiased_errors_of_log_normalised_cells():
    rng = np.random.default_rng(4)
    groups = {name: rng.gamma(1.0, size=(5 + i, 12)) for i, name in enumerate([CONTROL, "a", "b", "c"])}
    guesses = {name: rng.gamma(1.2, size=(4, 12)) for name in groups}
    sides: dict[str, Any] = {}
    for name, side in (("pred", guesses), ("real", groups)):
        squares = [np.square(block).sum() for block in side.values()]
        names, sizes = np.array(list(side)), np.array([len(block) for block in side.values()])
        means = np.stack([block.mean(axis=0) for block in side.values()])
        found = reference_moments.GroupMoments(names, sizes, np.array(squares))
        sides |= {f"{name}_bulk": (names, means), f"{name}_moments": found}
    x, y = ([Moments.of(side[name]) for name in "abc"] for side in (guesses, groups))
    panel = Panel(x, y, Moments.of(groups[CONTROL]))
    for metric, found in (
        (reference_delta.mse_unbiased, unbiased_mse(panel)),
        (reference_delta.mse_unbiased_capped, unbiased_mse(panel, capped=True)),
        (reference_delta.distance_unbiased, unbiased_effect_sizes(panel)),
    ):
        assert_close(found, list(metric(comparator="lognorm", **sides).values()))


def random_tests(rng, n_genes=60, *, significant=0.4, ties=False):
    """Differential expression with changes of size 0 and infinite ones."""
    change = rng.normal(size=n_genes)
    change[rng.random(n_genes) < 0.1] = 0.0
    change[rng.random(n_genes) < 0.05] = np.inf
    p_value = np.where(rng.random(n_genes) < significant, rng.uniform(0, 0.01, n_genes), rng.uniform(0.2, 1, n_genes))
    if ties:
        change, p_value = np.round(change), np.ceil(200 * p_value) / 200
    return DifferentialExpression.of(change, p_value)


def frame(tests):
    columns = {"log2_fold_change": "log_fold_change", "p_value": "p_value", "p_adj": "adjusted"}
    return pl.concat(
        pl.DataFrame({c: getattr(one, f) for c, f in columns.items()}).with_columns(
            target=pl.lit(name), feature=pl.Series([f"g{i:03d}" for i in range(one.n_genes)])
        )
        for name, one in tests.items()
    )


def prepared(predicted, observed):
    return reference_de.prepare_de(frame(predicted), frame(observed), control=CONTROL)


DIFFERENTIAL = [
    pytest.param(jaccard_of_significant_genes, reference_de.de_sig_jaccard, id="jaccard"),
    pytest.param(relative_error_of_log_fold_changes, reference_de.de_lfc_nmae, id="lfc_nmae"),
    pytest.param(direction_fidelity, reference_direction.de_direction_fidelity_raw, id="fidelity"),
    pytest.param(direction_fidelity_yield, reference_direction.de_direction_fidelity_yield_raw, id="fidelity_yield"),
    pytest.param(
        direction_reach, lambda p: reference_direction.de_direction_reach(p, corrected=False), id="direction_reach"
    ),
]


@pytest.fixture(scope="module")
def differential():
    """Differential expression of conditions that name a gene, with agreeing, unrelated, empty and full sets."""
    rng = np.random.default_rng(5)
    predicted, observed = {}, {}
    for i in range(24):
        name = f"g{i:03d}"
        observed[name] = random_tests(rng, significant=[0.4, 0.0, 1.0, 0.15][i % 4])
        predicted[name] = random_tests(rng, significant=[0.4, 0.4, 0.0, 1.0, 0.1][i % 5])
        if i % 3:  # a prediction that knows most directions
            sign = np.where(rng.random(60) < [0.8, 0.97][i % 2], 1.0, -1.0)
            predicted[name] = replace(predicted[name], log_fold_change=sign * observed[name].log_fold_change)
    return predicted, observed


@pytest.mark.parametrize(("metric", "reference"), DIFFERENTIAL)
def test_differential_metrics(differential, metric, reference):
    predicted, observed = differential
    expected = reference(prepared(predicted, observed))
    found = [metric(predicted[name], observed[name], targets=np.arange(60) == i) for i, name in enumerate(predicted)]
    assert_close(found, [expected.get(name, np.nan) for name in predicted])
    assert 10 < np.isfinite(found).sum()
    assert len(set(found)) > 5


def test_genes_that_are_not_told_apart():
    """cell-eval2 orders them by name, so that it may stop amid them, and another name gives another value."""
    observed = DifferentialExpression.of(np.array([1.0, 1.0, -1.0, 1.0]), np.full(4, 0.001))
    predicted = DifferentialExpression.of(np.ones(4), np.array([0.001, 0.5, 0.5, 0.5]))
    expected = reference_direction.de_direction_reach(
        prepared({"g003": predicted}, {"g003": observed}), corrected=False
    )
    targets = np.arange(4) == 3
    assert expected["g003"] == pytest.approx(2 / 3)
    assert direction_reach(predicted, observed, targets=targets) == pytest.approx(1 / 3)


@pytest.mark.parametrize("seed", range(5))
def test_reach_never_exceeds_that_of_ordered_ties(seed):
    rng = np.random.default_rng(seed)
    predicted = {f"g{i:03d}": random_tests(rng, ties=True) for i in range(20)}
    observed = {name: random_tests(rng, ties=True) for name in predicted}
    expected = reference_direction.de_direction_reach(prepared(predicted, observed), corrected=False)
    for i, name in enumerate(predicted):
        found = direction_reach(predicted[name], observed[name], targets=np.arange(60) == i)
        assert found <= expected[name] + 1e-12


def cell_blocks(seed, n=80, n_genes=30):
    rng = np.random.default_rng(seed)
    return [
        (
            rng.normal(size=(n, 2)) @ np.random.default_rng(0).normal(size=(2, n_genes)) * s
            + rng.normal(size=(n, n_genes))
        )
        for s in (1.0, 0.6)
    ]


@pytest.mark.parametrize("seed", range(3))
def test_correlations_of_genes(seed):
    y, x = cell_blocks(seed)
    expected = reference_cells.cov_agreement(y, x)
    assert agreement_of_correlations(x, y, n_top=30) == pytest.approx(expected["corr"], abs=1e-6)


def test_a_gene_that_the_prediction_holds_constant():
    """cell-eval2 drops it before it compares; in the Pearson correlation its correlations count here as 0."""
    y, x = cell_blocks(0)
    x[:, 0] = 2.0
    expected = reference_cells.cov_agreement(y[:, 1:], x[:, 1:])
    assert agreement_of_correlations(x, y, n_top=30) < expected["corr"] - 0.01


@pytest.mark.parametrize("metric", CHALLENGE)
def test_rescaling(metric):
    def score(*values):  # of the prediction, the baseline and the replicate
        return challenge_score(*(dict.fromkeys(CHALLENGE, value) for value in values))[metric]

    rng = np.random.default_rng(6)
    policy = catalog.CATALOG[metric].scoring
    higher_is_better = policy.direction == "higher"
    for _ in range(50):
        baseline, replicate = sorted(rng.uniform(0.05, 1.0, size=2), reverse=not higher_is_better)
        for value in (
            (rng.uniform(0, 1), rng.uniform(0, 1), np.nan) if higher_is_better else (rng.uniform(0, 9), np.nan)
        ):
            expected = scoring.score_one(value, baseline, replace(policy, anchor=replicate))
            assert score(value, baseline, replicate) == pytest.approx(expected, abs=1e-9)
    # Where there is no scale, cell-eval2 refuses to score anything.
    ends = (0.5, 0.25) if higher_is_better else (0.25, 0.5)
    assert scoring.is_degenerate(ends[0], replace(policy, anchor=ends[1]))
    assert math.isnan(score(0.3, *ends))


def own_values(predicted, observed):
    """Values of all conditions by the names of the preset, from counts."""
    panel = with_noise_of_targets(panel_of(predicted, observed, targets=TARGETS))
    test = WilcoxonOfCounts(observed[CONTROL])  # of the real controls, on both sides
    pairs = [
        (test(predicted[c]), test(observed[c]), row[test.genes]) for c, row in zip(CONDITIONS, TARGETS, strict=True)
    ]
    values = {
        "pds_cosine": discrimination_score(
            panel.predicted_effects, panel.observed_effects, distance="cosine", targets=TARGETS
        ),
        "expr_mse_unbiased": unbiased_mse(panel),
        "expr_mse_unbiased_capped": unbiased_mse(panel, capped=True),
    }
    differential = {
        "direction_fidelity_yield_raw": direction_fidelity_yield,
        "direction_reach_raw": direction_reach,
        "sig_jaccard": jaccard_of_significant_genes,
        "lfc_nmae": relative_error_of_log_fold_changes,
    }
    for name, metric in differential.items():
        values[PREFIX + name] = np.array([metric(p, o, targets=t) for p, o, t in pairs])
    return values, panel


@pytest.fixture(scope="module")
def preset_values(screens, configuration):
    """Values of all conditions in a frame, and what they add up to by the names of the metrics."""
    values = cell_eval2.compute_metrics(*map(as_anndata, screens), config=configuration)
    return values, means(cell_eval2.aggregate_metrics(values, metrics=PRESET))


def means(aggregate, column="mean"):
    return dict(aggregate.select("metric", column).iter_rows())


def test_the_preset(screens, preset_values):
    predicted, observed = screens
    frame, aggregate = preset_values
    values, panel = own_values(predicted, observed)
    for metric, found in values.items():
        rows = frame.filter(pl.col("metric") == metric)
        expected = dict(rows.select("perturbation", "value").iter_rows())
        assert_close(found, [expected.get(c, np.nan) for c in CONDITIONS], err_msg=metric)
        assert np.nanmean(found) == pytest.approx(aggregate[metric], abs=1e-6)
    sizes = dict(frame.filter(pl.col("metric") == "expr_distance_unbiased").select("perturbation", "value").iter_rows())
    expected_error = unbiased_mse(panel, capped=True).sum() / sum(sizes.values())
    assert expected_error == pytest.approx(aggregate["expr_mse_unbiased_capped_norm"], abs=1e-6)
    # A sum over many genes hardly notices the noise of the targets, even among 200 genes.
    assert pooled_unbiased_mse(panel_of(*screens, targets=TARGETS)) == pytest.approx(expected_error, abs=0.02)
    assert (frame.filter(pl.col("metric") == "expr_real_mass_ratio")["value"] - 1).abs().max() < 1e-6


def test_the_score(screens, configuration, preset_values):
    real, (_, values) = as_anndata(screens[1]), preset_values
    baseline = cell_eval2.build_generic_baseline(real, config=configuration).agg
    baselines = baseline.filter(pl.col("statistic") == "mean").drop("statistic").row(0, named=True)
    _, replicates = anchor.compute_replicate_anchor(real, config=configuration, n_splits=2)
    entries = reference_score._replicate_entries(baselines, replicates)
    expected = {m: scoring.score_one(values[m], entry.base, entry.scoring) for m, entry in entries.items()}
    assert set(expected) == set(CHALLENGE)
    found = challenge_score(values, baselines, means(replicates, "replicate"))
    assert found == pytest.approx(expected | {"mean": np.mean(list(expected.values()))}, abs=1e-9)
