"""The scale of expression, cell by cell."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from anndata import AnnData
from scipy import sparse

from perturbflow._checks import looks_unlogged
from perturbflow.datasets import simulated_perturb_seq
from perturbflow.metrics import WilcoxonAgainst
from perturbflow.pp import setup_perturbation
from perturbflow.screen import read_fields
from perturbflow.screen._scale import check_no_counts, natural_per_unit, recorded_base, totals_of, warn_of_mixed_totals
from perturbflow.tl import evaluate, fit_flow, predict_perturbation, write_cell_eval

RNG = np.random.default_rng(0)
N, G = 120, 30
LABELS = np.repeat(["control", "A"], [80, 40])
FIRST, EVEN = np.arange(N) < N // 2, np.arange(N) % 2 == 0
FORMATS = {"dense": np.asarray, "csr": sparse.csr_matrix, "csc": sparse.csc_matrix}
FIELDS: dict[str, Any] = {"perturbation_key": "p", "control": "control"}


def logged(seed=0, n=N):
    rng = np.random.default_rng(seed)
    return np.where(rng.random((n, G)) < 0.6, rng.normal(2, 0.3, (n, G)).clip(0.5), 0).astype(np.float32)


def scaled(x, rows, factor):
    """Some cells at another total."""
    x = x.copy()
    x[rows] = np.log1p(factor * np.expm1(x[rows]))
    return x


def cells(x, **obs):
    return AnnData(x, obs=pd.DataFrame({"p": LABELS[: x.shape[0]], **obs}, index=[f"c{i}" for i in range(x.shape[0])]))


def counted(x, rows):
    x = x.copy()
    x[rows] = np.rint(np.expm1(x[rows]))
    return x


@pytest.mark.parametrize("make", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize(
    ("rows", "message"),
    [
        pytest.param(EVEN, r"in 60 of 120 cells: \['c0', 'c2', 'c4'\] and 57 more. Normalise", id="half"),
        pytest.param(np.arange(N) == 7, r"in 1 of 120 cells: \['c7'\]. Normalise", id="one"),
    ],
)
def test_counts_among_logged_cells_are_refused(make, rows, message, unchanged):
    adata = cells(make(counted(logged(), rows)))
    with unchanged(adata), pytest.raises(ValueError, match=r"every cell of `adata.X`, found raw counts .*" + message):
        setup_perturbation(adata, **FIELDS)


def few_genes():
    x = logged()
    x[:, 2:] = 0
    x[0, :2] = [1, 2]
    x[1:, 0] = 1.7
    return x


@pytest.mark.parametrize(
    "x",
    [
        pytest.param(logged(), id="logged"),
        pytest.param(logged().round(1), id="rounded"),
        pytest.param(np.where(EVEN[:, None], 1.0, logged()), id="ones"),
        pytest.param(few_genes(), id="few_genes"),
        pytest.param(counted(logged(), np.ones(N, bool)), id="all_counts_are_for_another_check"),
        pytest.param(np.where(EVEN[:, None], 0.0, logged()), id="empty"),
    ],
)
@pytest.mark.parametrize("make", FORMATS.values(), ids=FORMATS)
def test_other_cells_are_not_taken_for_counts(make, x):
    check_no_counts(make(x), [str(i) for i in range(N)], where="adata.X")


@pytest.mark.parametrize("make", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize(
    ("x", "message"),
    [
        pytest.param(scaled(logged(), EVEN, 100), "50% of the cells have 1[01].?.? times the expr", id="half"),
        pytest.param(scaled(logged(), np.arange(N) >= 80, 100), "33% of the cells have", id="perturbed"),
        pytest.param(scaled(logged(), EVEN, 10), "50% of the cells have", id="ten_times"),
    ],
)
def test_totals_that_differ_within_a_context(make, x, message):
    with pytest.warns(UserWarning, match="normalised to different totals: " + message):
        setup_perturbation(cells(make(x)), **FIELDS)


@pytest.mark.parametrize(
    ("factor", "constant", "options", "differs"),
    [
        (100, False, {"batch_key": "group"}, True),
        (8, False, {"batch_key": "group"}, True),
        (3, False, {"batch_key": "group"}, False),
        (100, False, {"covariate_keys": "group"}, True),
        (8, False, {"covariate_keys": "group"}, False),  # as cell types may, in their variable genes
        (2, True, {"covariate_keys": "group"}, True),
    ],
)
def test_totals_that_differ_between_contexts(factor, constant, options, differs):
    x = logged()
    if constant:
        x = np.log1p(1e4 * np.expm1(x) / totals_of(x)[:, None])
    adata = cells(scaled(x, FIRST, factor), group=np.where(FIRST, "one", "two"))
    adata.obs["p"] = np.tile(["control", "A"], N // 2)
    if differs:
        with pytest.warns(UserWarning, match=r"those of \{'group': 'one'\} have .* times .* of \{'group': 'two'\}"):
            setup_perturbation(adata, **FIELDS, **options)
    else:
        setup_perturbation(adata, **FIELDS, **options)


def test_biology_is_no_other_total():
    """Cell types and depths that differ, and few variable genes of all, give no warning."""
    types = np.arange(600) % 3
    means = RNG.lognormal(0, 1.5, (3, 1000))[types]
    counts = RNG.poisson(means / means.sum(axis=1, keepdims=True) * RNG.lognormal(8, 0.6, (600, 1)))
    x = np.log1p(1e4 * counts / counts.sum(axis=1, keepdims=True))
    order = np.argsort(-x.var(axis=0))
    contexts = pd.DataFrame({"type": types.astype(str)})
    for n_genes in (1000, 100, 20, 5):
        for given in (contexts, contexts[[]]):
            warn_of_mixed_totals(x[:, order[:n_genes]], given, batch_key=None, unit=1.0)


@pytest.mark.parametrize("make", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize(
    ("x", "expected"),
    [
        pytest.param(np.log2(1 + RNG.poisson(3.0, (20, 30)) / 1e-6), False, id="tiny_size_factors"),
        pytest.param(np.log1p(RNG.poisson(3.0, (20, 30)) / np.r_[[[1e-8]] * 10, [[1.0]] * 10]), False, id="some"),
        pytest.param(RNG.poisson(1.0, (20, 30)) * 4.37, True, id="normalised"),
        pytest.param(np.expm1(RNG.normal(2.2, 0.4, (20, 30)).clip(0.5)), True, id="small_total"),
        pytest.param(np.full((20, 30), 50.5), True, id="far_too_large"),
        pytest.param(np.full((20, 30), 19.5), False, id="small"),
    ],
)
def test_large_values_may_be_logarithms(make, x, expected):
    assert looks_unlogged(make(x)) == expected
    adata = cells(logged()[:20])
    adata.obs["p"] = ["control", "A"] * 10
    adata.layers["l"] = make(x + (x > 0) * 0.013)
    if expected:
        with pytest.raises(
            ValueError, match=r"in `adata.layers\['l'\]`, found values up to .* which do not seem to be logged"
        ):
            setup_perturbation(adata, layer="l", **FIELDS)
    else:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Cells seem to be normalised to different totals")
            setup_perturbation(adata, layer="l", **FIELDS)


def test_few_unlogged_cells_are_counted():
    x = logged()
    x[3] = np.where(x[3] > 0, 7.7 * np.expm1(x[3]), 0)
    with pytest.raises(
        ValueError, match="in 1 of 120 cells, which do not seem to be logged.*for these cells only if the others"
    ):
        setup_perturbation(cells(x), **FIELDS)


def test_base_of_the_logarithm():
    assert natural_per_unit(None) == 1
    assert natural_per_unit(2) == pytest.approx(np.log(2))
    for wrong in (1, 0.5, np.inf):
        with pytest.raises(ValueError, match="`base` of the logarithm to be above 1"):
            natural_per_unit(wrong)
    adata = cells(logged())
    assert recorded_base(adata) is None
    for record, expected in (({}, None), ({"base": None}, None), ({"base": np.e}, None), ({"base": np.array(2)}, 2.0)):
        adata.uns["log1p"] = record
        assert recorded_base(adata) == expected


def fourfold(base):
    """A gene that goes from 50 to 200, in logarithms of a base."""
    x = np.full((N, G), 50.0) + RNG.random((N, G))
    x[80:, 0] = 200
    adata = cells(x)
    sc.pp.log1p(adata, base=base)
    return adata


@pytest.mark.parametrize("base", [None, 2, 10])
def test_fold_changes_in_every_base(base):
    adata = fourfold(base)
    setup_perturbation(adata, **FIELDS)
    fields = read_fields(adata)
    assert fields.log_base == base
    assert ("log_base" in adata.uns["perturbation_fields"]) == (base is not None)
    treated, control = adata.X[80:], adata.X[:80]
    found = [
        WilcoxonAgainst(control.mean(axis=0)[None], base=base)(treated.mean(axis=0)[None]).log_fold_change,
        WilcoxonAgainst(control, base=base)(treated).log_fold_change,
    ]
    np.testing.assert_allclose([each[0] for each in found], np.log2(200 / 50.5), atol=0.01)


def simulated(base):
    adata = simulated_perturb_seq(n_cells=300, n_genes=20, n_perturbations=2, n_combinations=0)
    adata.X = adata.X / natural_per_unit(base)
    adata.uns["log1p"] = {"base": base}
    setup_perturbation(adata, perturbation_key="perturbation", control="control")
    return adata


@pytest.fixture(scope="module")
def in_base_2():
    adata = simulated(2)
    fit_flow(
        adata,
        max_steps=2,
        model_kwargs={"width": 8, "n_blocks": 1},
        plan_kwargs={"calibrate": False},
        progress_bar=False,
    )
    return adata


def test_counts_of_predictions_in_another_base(in_base_2):
    name = read_fields(in_base_2).vocabulary.components[0]
    controls = in_base_2[in_base_2.obs["perturbation"] == "control"]
    found: Any = predict_perturbation(in_base_2, name, output="counts", as_anndata=True)
    # The depth of the cells that they come from, in the genes that are there.
    expected = controls.layers["counts"].sum(axis=1).mean()
    assert found.X.sum(axis=1).mean() == pytest.approx(expected, rel=0.2)


def test_files_for_cell_eval_have_natural_logarithms(in_base_2, tmp_path):
    adata = in_base_2.copy()
    predict_perturbation(adata, read_fields(adata).vocabulary.components[0])
    write_cell_eval(adata, tmp_path / "predicted.h5ad", real_path=tmp_path / "real.h5ad")
    real = sc.read_h5ad(tmp_path / "real.h5ad")
    controls = adata[adata.obs["perturbation"] == "control"].X
    written = real[real.obs["target_gene"] == "non-targeting"].X
    assert written.sum() == pytest.approx(controls.sum() * np.log(2), rel=1e-5)


def test_scores_of_fold_changes_do_not_depend_on_the_base():
    metrics = ["cosine_of_log_fold_changes", "relative_error_of_log_fold_changes", "rank_of_log_fold_changes"]
    options: dict[str, Any] = {
        "key": None,
        "metrics": metrics,
        "baselines": ["mean effect"],
        "n_permutations": 0,
        "progress_bar": False,
    }
    scores = []
    for base in (None, 2):
        adata = simulated(base)
        adata.obs["split"] = "train"
        evaluate(adata, n_resamples=2, n_cells=40, **options)
        scores.append(adata.uns["evaluation"]["value"].to_numpy())
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-4)


def test_other_bases_than_that_of_the_fit_are_refused(in_base_2):
    adata = in_base_2.copy()
    adata.uns["log1p"] = {"base": None}
    name = read_fields(adata).vocabulary.components[0]
    with pytest.raises(ValueError, match=r"Expected base 2 logarithms in `adata.X`, as registered, found natural"):
        predict_perturbation(adata, name)
    observed = in_base_2.copy()
    observed.obs["split"] = "train"
    with pytest.raises(ValueError, match=r"Expected base 2 logarithms in predicted\['predicted'\], found natural"):
        evaluate(observed, adata, key=None, progress_bar=False)


def test_predicted_cells_on_another_scale():
    adata = simulated(None)
    adata.obs["split"] = "train"
    predicted = adata.copy()
    predicted.X = predicted.X.expm1().multiply(50.0).log1p().tocsr()
    options: dict[str, Any] = {
        "metrics": ["rmse_of_mean_effects"],
        "baselines": [],
        "n_permutations": 0,
        "progress_bar": False,
    }
    with pytest.warns(
        UserWarning, match=r"cells of predicted\['predicted'\] are on a different scale from the observed"
    ):
        evaluate(adata, predicted, key=None, n_resamples=2, n_cells=20, **options)


@pytest.fixture(scope="module")
def fitted_cells():
    adata = cells(logged())
    setup_perturbation(adata, **FIELDS)
    fit_flow(
        adata,
        max_steps=2,
        model_kwargs={"width": 8, "n_blocks": 1},
        plan_kwargs={"calibrate": False},
        progress_bar=False,
    )
    return adata


@pytest.mark.parametrize(("factor", "differs"), [(1, False), (2, False), (100, True), (0.01, True)])
def test_new_controls_on_another_scale(fitted_cells, factor, differs):
    new = AnnData(scaled(logged(seed=1, n=40), slice(None), factor), uns={"flow": fitted_cells.uns["flow"]})
    if differs:
        with pytest.warns(UserWarning, match="The control cells are on a different scale from those of the fit"):
            predict_perturbation(new, "A")
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            predict_perturbation(new, "A")
