"""Differential expression and its agreement, beside cell-eval 0.8, pdex 0.3, illico 0.6 and scanpy.

Where cell-eval is ill-defined, the values differ, and a test here says how: conditions without significant genes, equal
fold changes, predictions without order.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import sparse
from sklearn.metrics import r2_score

from perturbflow.metrics import (
    DifferentialExpression,
    Moments,
    Strengths,
    WilcoxonAgainst,
    agreement_of_direction,
    auroc_of_significant_genes,
    average_precision_of_significant_genes,
    energy_distance,
    overlap_of_top_genes,
    pearson_of_energy_distances,
    precision_of_top_genes,
    r2_of_scores,
    recall_of_significant_genes,
    spearman_of_log_fold_changes,
    spearman_of_numbers_of_significant_genes,
)
from perturbflow.metrics._t_scores import t_statistics

ad = pytest.importorskip("anndata", reason="the reference implementations read AnnData")
pl = pytest.importorskip("polars", reason="cell-eval reads frames of polars")
cell_eval = pytest.importorskip("cell_eval", reason="the reference implementation of the metrics")
pdex = pytest.importorskip("pdex", reason="the reference implementation of the test")

pytestmark = pytest.mark.filterwarnings("ignore:the string cache has been replaced:DeprecationWarning")

N_GENES = 150


def close(expected, *, nan_ok=False):
    return pytest.approx(expected, rel=1e-6, abs=1e-6, nan_ok=nan_ok)


def simulated(n_cells, fold, seed):
    """Sparse log1p-normalised cells with ties: counts of weakly expressed genes, of equal depth."""
    counts = np.random.default_rng(seed).poisson(
        np.random.default_rng(0).gamma(0.4, size=N_GENES) * fold, (n_cells, N_GENES)
    )
    counts[:, :3] = 0  # genes that no cell expresses
    return sparse.csr_matrix(np.log1p(counts.astype(np.float64)))


def folds(seed, share=0.3, size=1.0):
    rng = np.random.default_rng(seed)
    return np.exp(size * rng.normal(size=N_GENES) * (rng.random(N_GENES) < share))


@pytest.fixture(scope="module")
def screen():
    """Controls, and real and predicted cells of conditions by name."""
    control = simulated(120, np.ones(N_GENES), 1)
    real, predicted = {}, {}
    for i in range(6):
        real[f"random{i}"] = simulated(40 + 5 * i, folds(i, size=0.3 + 0.3 * i), 10 + i)
        predicted[f"random{i}"] = simulated(50, folds(i if i % 2 else i + 50, size=0.6), 20 + i)
    real["nothing_observed"], predicted["nothing_observed"] = control[:40], simulated(60, folds(3, size=1.5), 31)
    real["nothing_predicted"], predicted["nothing_predicted"] = simulated(60, folds(4, size=1.5), 32), control[:50]
    real["nothing"], predicted["nothing"] = control[:30], control[20:60]
    real["perfect"] = predicted["perfect"] = simulated(60, folds(5, size=1.5), 33)
    real["two_cells"], predicted["two_cells"] = simulated(2, folds(6, size=2.0), 34), simulated(3, folds(6), 35)
    return control, real, predicted


def as_adata(control, cells):
    labels = np.repeat(["control", *cells], [control.shape[0], *(c.shape[0] for c in cells.values())])
    names = [str(i) for i in range(len(labels))]
    adata = ad.AnnData(sparse.vstack([control, *cells.values()], format="csr"))
    adata.obs_names, adata.var_names = names, [f"g{i:03d}" for i in range(control.shape[1])]
    adata.obs["target"] = labels
    adata.obs["target"] = adata.obs["target"].astype("category")
    return adata


def by_pdex(control, cells, **settings):
    settings = {"is_log1p": True, "epsilon": 0.0, "threads": 1} | settings
    return pdex.pdex(as_adata(control, cells), groupby="target", reference="control", **settings)


@pytest.fixture(scope="module")
def compared(screen):
    """cell-eval's comparison, and ours of every condition, predicted and observed."""
    control, real, predicted = screen
    theirs = cell_eval.initialize_de_comparison(real=by_pdex(control, real), pred=by_pdex(control, predicted))
    test = WilcoxonAgainst(control, pseudocount=0.0)
    return theirs, {name: (test(predicted[name]), test(real[name])) for name in real}


def cell_eval_value(name, data):
    return cell_eval.metrics_registry.compute(name, data, kwargs={})


@pytest.mark.parametrize("pseudocount", [0.0, 1e-9, 0.5])
def test_wilcoxon_is_that_of_pdex(screen, pseudocount):
    control, real, _ = screen
    frame = by_pdex(control, real, epsilon=pseudocount)
    test = WilcoxonAgainst(control, pseudocount=pseudocount)
    for name, cells in real.items():
        theirs, ours = frame.filter(pl.col("target") == name), test(cells)
        assert ours.p_value == close(theirs["p_value"].to_numpy()), name
        assert ours.adjusted == close(theirs["fdr"].to_numpy()), name
        assert ours.log_fold_change == close(theirs["log2_fold_change"].to_numpy()), name


def test_pdex_takes_a_predicted_loss_for_no_change():
    # The logarithm of a negative mean is NaN, which pdex turns into 0; a gene that is lost has a negative change.
    control, predicted = np.full((20, 2), 1.0), np.full((20, 2), -0.01)
    adata = ad.AnnData(np.vstack([control, predicted]))
    adata.obs["target"] = np.repeat(["control", "a"], 20)
    theirs = pdex.pdex(adata, groupby="target", reference="control", is_log1p=True, threads=1)
    assert theirs["log2_fold_change"].to_list() == [0, 0]
    assert (theirs["fdr"].to_numpy() < 1e-6).all()
    assert (WilcoxonAgainst(control)(predicted).log_fold_change < -20).all()


def test_wilcoxon_is_that_of_illico(screen):
    illico = pytest.importorskip("illico", reason="a second implementation of the test")
    control, real, _ = screen
    frame = illico.asymptotic_wilcoxon(
        as_adata(control, real), is_log1p=True, group_keys="target", reference="control", exp_post_agg=True
    )
    test, n_differ = WilcoxonAgainst(control), 0
    for name, cells in real.items():
        theirs, ours = frame.loc[name], test(cells)
        assert ours.log_fold_change == close(np.log2(theirs["fold_change"].to_numpy())), name
        # Where U is exactly its expectation, illico's Rust kernel takes the correction for continuity for a difference
        # (the sign of 0 is 1 in Rust); SciPy, pdex and illico's other kernel have p = 1 there, as is right.
        same = theirs["statistic"].to_numpy() != control.shape[0] * cells.shape[0] / 2
        assert ours.p_value[same] == close(theirs["p_value"].to_numpy()[same]), name
        assert ours.score is not None
        assert ours.score[same] == close(theirs["z_score"].to_numpy()[same]), name
        assert (ours.p_value[~same] == 1).all()
        n_differ += (theirs["p_value"].to_numpy()[~same] < 1).sum()
    assert n_differ > 0


def test_t_scores_are_those_of_scanpy(screen):
    sc = pytest.importorskip("scanpy", reason="the reference implementation of the t-test")
    control, real, _ = screen
    adata = as_adata(control, real)
    sc.tl.rank_genes_groups(adata, "target", reference="control", method="t-test_overestim_var")
    for name, cells in real.items():
        theirs = sc.get.rank_genes_groups_df(adata, name).set_index("names").loc[adata.var_names]
        # Their scores are in float32.
        ours = t_statistics(Moments.of(cells), Moments.of(control))
        assert ours == close(theirs["scores"].to_numpy()), name


PER_CONDITION = {
    "de_direction_match": agreement_of_direction,
    "de_spearman_lfc_sig": spearman_of_log_fold_changes,
    "de_sig_genes_recall": recall_of_significant_genes,
    "pr_auc": average_precision_of_significant_genes,
    "roc_auc": auroc_of_significant_genes,
}


@pytest.mark.parametrize("metric", PER_CONDITION)
def test_metrics_of_a_condition(compared, metric):
    theirs, ours = compared
    values = cell_eval_value(metric, theirs)
    silent = [name for name, (_, observed) in ours.items() if not observed.significant().any()]
    assert "nothing_observed" in silent
    for name, pair in ours.items():
        value = PER_CONDITION[metric](*pair)
        assert value == close(values.get(name, math.nan), nan_ok=True), name
        assert math.isnan(value) or name not in silent


@pytest.mark.parametrize("n_top", [None, 5, 50, 100, 200, 500])
@pytest.mark.parametrize(
    ("metric", "function"), [("overlap", overlap_of_top_genes), ("precision", precision_of_top_genes)]
)
def test_top_genes(compared, metric, function, n_top):
    theirs, ours = compared
    values = theirs.compute_overlap(k=n_top, metric=metric)
    for name, pair in ours.items():
        value = function(*pair, n_top=n_top)
        # Without significant genes cell-eval has 0, which a perfect prediction then has as well.
        assert (0.0 if math.isnan(value) else value) == close(values[name]), name
    assert math.isnan(function(*ours["nothing"], n_top=n_top))
    assert function(*ours["perfect"], n_top=n_top) == 1


def as_frame(differential, name="a"):
    """The columns of pdex that cell-eval reads."""
    return pl.DataFrame(
        {
            "target": [name] * differential.n_genes,
            "feature": [f"g{i:03d}" for i in range(differential.n_genes)],
            "log2_fold_change": differential.log_fold_change,
            "p_value": differential.p_value,
            "fdr": differential.adjusted,
        }
    )


def test_equal_fold_changes_are_ordered_by_place_in_cell_eval():
    # Genes that one side alone expresses have infinite fold changes without a pseudocount. Of these cell-eval takes the
    # first, whatever their p-values.
    changes = np.full(4, np.inf)
    observed = DifferentialExpression.of(changes, np.array([1e-3, 1e-3, 1e-9, 1e-9]))
    predicted = DifferentialExpression.of(changes, np.array([1e-9, 1e-9, 1e-3, 1e-3]))
    theirs = cell_eval.initialize_de_comparison(real=as_frame(observed), pred=as_frame(predicted))
    assert theirs.compute_overlap(k=2) == {"a": 1}
    assert overlap_of_top_genes(predicted, observed, n_top=2) == 0


def test_a_prediction_without_order_has_no_value_in_cell_eval():
    observed = DifferentialExpression.of(np.array([1.0, 2.0, 3.0]), np.full(3, 1e-3))
    predicted = DifferentialExpression.of(np.zeros(3), np.ones(3))
    theirs = cell_eval.initialize_de_comparison(real=as_frame(observed), pred=as_frame(predicted))
    assert math.isnan(cell_eval_value("de_spearman_lfc_sig", theirs)["a"])
    assert spearman_of_log_fold_changes(predicted, observed) == 0


def strengths(tests, distances=None):
    numbers = np.array([one.significant().sum() for one in tests], dtype=float)
    return Strengths(numbers, np.zeros(len(numbers)) if distances is None else np.array(distances))


def test_numbers_over_conditions(compared):
    theirs, ours = compared
    value = cell_eval_value("de_spearman_sig", theirs)
    everything = [strengths(side) for side in zip(*ours.values(), strict=True)]
    # Conditions without an observed effect are left out there, so the effects predicted in them cost nothing.
    some = [strengths(side) for side in zip(*(two for two in ours.values() if two[1].significant().any()), strict=True)]
    assert spearman_of_numbers_of_significant_genes(*some) == close(value)
    assert spearman_of_numbers_of_significant_genes(*everything) != pytest.approx(value, abs=1e-3)


def test_numbers_without_any_effect():
    nothing = DifferentialExpression.of(np.zeros(3), np.ones(3))
    theirs = cell_eval.initialize_de_comparison(real=as_frame(nothing), pred=as_frame(nothing))
    assert cell_eval_value("de_spearman_sig", theirs) == 1
    assert math.isnan(spearman_of_numbers_of_significant_genes(strengths([nothing]), strengths([nothing])))


@pytest.fixture(scope="module")
def pair(screen):
    control, real, predicted = screen
    return cell_eval.PerturbationAnndataPair(
        real=as_adata(control, real), pred=as_adata(control, predicted), pert_col="target", control_pert="control"
    )


def test_energy_distances_over_conditions(screen, pair):
    control, real, predicted = screen
    value = cell_eval_value("pearson_edistance", pair)

    def found(unbiased):
        sides = [
            [energy_distance(cells, control, unbiased=unbiased) for cells in side.values()]
            for side in (predicted, real)
        ]
        return pearson_of_energy_distances(*(Strengths(np.zeros(len(one)), np.array(one)) for one in sides))

    assert found(unbiased=False) == close(value)
    # Two and three cells are far from the controls in the biased distance on both sides.
    assert found(unbiased=True) != pytest.approx(value, abs=1e-3)


def test_r2_of_scores_is_that_of_perturbench(screen):
    # PerturBench: sklearn's r2_score with the prediction as the truth.
    control, real, predicted = screen
    for name in real:
        x, y = (t_statistics(Moments.of(side[name]), Moments.of(control)) for side in (predicted, real))
        cells = predicted[name], real[name], control
        assert r2_of_scores(*cells, relative_to="predicted") == close(r2_score(x, y))
        assert r2_of_scores(*cells) == close(r2_score(y, x))
