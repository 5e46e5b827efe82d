"""Metrics of means and the discrimination score beside those of cell-eval 0.8 and cell-eval2 0.20.

Where a reference is ill-defined the test says how ours differs:

- Effects without order over genes: cell-eval's Pearson correlation is NaN, or that of rounding errors; ours is 0 for a
  prediction (it names no genes) and NaN only where the observed effect has no order.
- Ties of the discrimination score: cell-eval takes the place in an unstable sort of the distances. If all conditions
  are tied that is the order of names, which ours reproduces with ``convention="cell_eval"``; of some that are tied the
  sort puts any first, which differs between machines, and ours the first by name. The default takes the middle, as
  cell-eval2 does.
- One condition: both references score 1; ours is NaN by default, as nothing is there to be told apart.
"""

from __future__ import annotations

import warnings
from typing import Literal

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

from perturbflow.datasets import norman_mcfaline_subset
from perturbflow.metrics import (
    centroid_accuracy,
    discrimination_score,
    mae_of_mean_effects,
    mse_of_mean_effects,
    pearson_of_mean_effects,
)

REASON = "the reference package is installed in the environment of the benchmarks alone"
cell_eval = pytest.importorskip("cell_eval.metrics._anndata", reason=REASON)
cell_eval_types = pytest.importorskip("cell_eval._types", reason=REASON)
cell_eval2 = pytest.importorskip("cell_eval2.metrics.discrimination", reason=REASON)

CONTROL = "non-targeting"
N_GENES = 40
DISTANCES: list[Literal["l1", "l2", "cosine"]] = ["l1", "l2", "cosine"]


def draw(seed, n_conditions=12, *, exact=False):
    """Predicted and real cells of conditions that are named after a gene, but for one, and of controls.

    Means of exact cells have no rounding, whatever the order of cells, so that equal cells have equal means.
    """
    rng = np.random.default_rng(seed)
    genes = [f"g{i:02d}" for i in range(N_GENES)]
    names = [*rng.permutation(genes)[: n_conditions - 1], "drug", CONTROL]
    effects = rng.normal(size=(len(names), N_GENES)) * (rng.random((len(names), N_GENES)) < 0.3)
    base = rng.gamma(1.0, size=N_GENES)
    sides = []
    for noise in (2.0, 0.0):
        shift = effects + noise * rng.normal(size=effects.shape)
        cells = {}
        for i, name in enumerate(names):
            size = 8 if exact else 6 + i % 4
            values = np.maximum(base + shift[i] + 0.7 * rng.normal(size=(size, N_GENES)), 0)
            cells[name] = np.round(values * 8) / 8 if exact else values
        sides.append(cells)
    return *sides, genes


def as_adata(cells, genes, container=np.asarray):
    labels = np.repeat(list(cells), [len(one) for one in cells.values()])
    order = np.random.default_rng(0).permutation(len(labels))
    obs = pd.DataFrame({"target": labels[order]}, index=[str(i) for i in range(len(labels))])
    matrix = np.concatenate(list(cells.values()))[order]
    return AnnData(container(matrix), obs=obs, var=pd.DataFrame(index=genes))


def pair_of(predicted, observed, genes, container=np.asarray):
    return cell_eval_types.PerturbationAnndataPair(
        real=as_adata(observed, genes, container),
        pred=as_adata(predicted, genes, container),
        pert_col="target",
        control_pert=CONTROL,
    )


def panel_of(predicted, observed, genes, *, own_controls):
    """Names, effects of both sides (P, G) and target genes (P, G), in the order of names that both references use."""
    names = sorted(set(observed) - {CONTROL})
    means = [{name: cells.mean(axis=0) for name, cells in side.items()} for side in (predicted, observed)]
    controls = [means[0][CONTROL] if own_controls else means[1][CONTROL], means[1][CONTROL]]
    effects = [
        np.stack([side[name] - control for name in names]) for side, control in zip(means, controls, strict=True)
    ]
    return names, *effects, np.array(names)[:, None] == np.array(genes)


def second_scores(predicted, observed, genes, names, **options):
    scores = cell_eval2.discrimination_score(
        as_adata(predicted, genes), as_adata(observed, genes), control=CONTROL, control_source="real", **options
    )
    return np.array([scores[name] for name in names])


@pytest.mark.parametrize("container", [np.asarray, sparse.csr_matrix], ids=["dense", "sparse"])
@pytest.mark.parametrize("seed", range(3))
def test_means_and_effects(seed, container):
    predicted, observed, genes = draw(seed)
    pair = pair_of(predicted, observed, genes, container)
    own = {"predicted_control": container(predicted[CONTROL])}
    control = container(observed[CONTROL])
    for reference, ours in (
        (cell_eval.mse, lambda x, y: mse_of_mean_effects(x, y, control)),
        (cell_eval.mae, lambda x, y: mae_of_mean_effects(x, y, control)),
        (cell_eval.mse_delta, lambda x, y: mse_of_mean_effects(x, y, control, **own)),
        (cell_eval.mae_delta, lambda x, y: mae_of_mean_effects(x, y, control, **own)),
        (cell_eval.pearson_delta, lambda x, y: pearson_of_mean_effects(x, y, control, **own)),
    ):
        expected = reference(pair)
        assert set(expected) == set(observed) - {CONTROL}
        for name, value in expected.items():
            assert ours(container(predicted[name]), container(observed[name])) == pytest.approx(value, abs=1e-9)


def test_real_controls_on_both_sides_are_those_of_a_prediction_that_holds_them():
    predicted, observed, genes = draw(0)
    predicted[CONTROL] = observed[CONTROL]
    expected = cell_eval.pearson_delta(pair_of(predicted, observed, genes))
    for name, value in expected.items():
        ours = pearson_of_mean_effects(predicted[name], observed[name], observed[CONTROL])
        assert ours == pytest.approx(value, abs=1e-9)


def test_effects_without_order_are_undefined_or_noise_in_cell_eval():
    for exact in (True, False):
        predicted, observed, genes = draw(1, exact=exact)
        predicted["drug"] = predicted[CONTROL]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = cell_eval.pearson_delta(pair_of(predicted, observed, genes))["drug"]
        # The same cells in another order have another mean by rounding, which cell-eval correlates.
        assert np.isnan(expected) if exact else expected != 0
        cells = predicted["drug"], observed["drug"], observed[CONTROL]
        assert pearson_of_mean_effects(*cells, predicted_control=predicted[CONTROL][::-1]) == 0


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("exclude", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_discrimination(distance, exclude, seed):
    predicted, observed, genes = draw(seed)
    names, x, y, targets = panel_of(predicted, observed, genes, own_controls=True)
    expected = cell_eval.discrimination_score(
        pair_of(predicted, observed, genes), metric=distance, exclude_target_gene=exclude
    )
    ours = discrimination_score(x, y, distance=distance, convention="cell_eval", targets=targets if exclude else None)
    np.testing.assert_allclose(ours, [expected[name] for name in names], rtol=0, atol=1e-6)
    assert len(set(ours)) > 3
    assert targets.sum() == 11


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("exclude", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_discrimination_of_cell_eval2(distance, exclude, seed):
    predicted, observed, genes = draw(seed)
    names, x, y, targets = panel_of(predicted, observed, genes, own_controls=False)
    targets = targets if exclude else None
    options = {"distance": distance, "exclude_target_gene": exclude}
    expected = second_scores(predicted, observed, genes, names, rank_denominator="n-1", **options)
    ours = discrimination_score(x, y, distance=distance, targets=targets)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-6)

    # Its rendering of the first rules is ours of them.
    legacy = {"tie_policy": "position", "exclusion_scope": "row"}
    expected = second_scores(predicted, observed, genes, names, **legacy, **options)
    ours = discrimination_score(x, y, distance=distance, convention="cell_eval", targets=targets)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-6)


def test_real_cells(data_folder, monkeypatch):
    """One half of the cells of every condition as the prediction of the other."""
    monkeypatch.setenv("PERTURBFLOW_DATA", str(data_folder))
    adata = norman_mcfaline_subset("norman")
    labels = adata.obs["perturbation"].astype(str).replace("control", CONTROL).to_numpy()
    cells = adata.X.toarray().astype(np.float64)
    predicted, observed = [{name: cells[labels == name][start::2] for name in np.unique(labels)} for start in (0, 1)]
    genes = list(adata.var_names)

    names, x, y, targets = panel_of(predicted, observed, genes, own_controls=True)
    assert targets.any()
    pair = pair_of(predicted, observed, genes)
    own = {"predicted_control": predicted[CONTROL]}
    for reference, metric in (
        (cell_eval.mse_delta, mse_of_mean_effects),
        (cell_eval.mae_delta, mae_of_mean_effects),
        (cell_eval.pearson_delta, pearson_of_mean_effects),
    ):
        expected = reference(pair)
        values = [metric(predicted[name], observed[name], observed[CONTROL], **own) for name in names]
        np.testing.assert_allclose(values, [expected[name] for name in names], rtol=0, atol=1e-9)
    for distance in DISTANCES:
        expected = cell_eval.discrimination_score(pair, metric=distance)
        ours = discrimination_score(x, y, distance=distance, convention="cell_eval", targets=targets)
        np.testing.assert_allclose(ours, [expected[name] for name in names], rtol=0, atol=1e-6)

    names, x, y, targets = panel_of(predicted, observed, genes, own_controls=False)
    for distance in DISTANCES:
        expected = second_scores(predicted, observed, genes, names, rank_denominator="n-1", distance=distance)
        ours = discrimination_score(x, y, distance=distance, targets=targets)
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_ties(seed):
    """A prediction of the controls has no direction, so that all conditions are equally close to it."""
    predicted, observed, genes = draw(seed, exact=True)
    names, *_ = panel_of(predicted, observed, genes, own_controls=False)
    predicted[CONTROL] = observed[CONTROL]
    empty = names[2:9:3]
    for name in empty:
        predicted[name] = observed[CONTROL]
    _, x, y, targets = panel_of(predicted, observed, genes, own_controls=False)

    expected = cell_eval.discrimination_score(pair_of(predicted, observed, genes), metric="cosine")
    ours = discrimination_score(x, y, distance="cosine", convention="cell_eval", targets=targets)
    np.testing.assert_allclose(ours, [expected[name] for name in names], rtol=0, atol=1e-6)
    np.testing.assert_allclose(ours[2:9:3], [1 - i / 12 for i in (2, 5, 8)])  # the place of the name in the alphabet

    expected = second_scores(predicted, observed, genes, names, rank_denominator="n-1", distance="cosine")
    ours = discrimination_score(x, y, distance="cosine", targets=targets)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-6)
    assert (ours[2:9:3] == 0.5).all()


@pytest.mark.parametrize("distance", DISTANCES)
def test_equal_conditions_are_ties(distance):
    """Pairs of conditions with the same cells: cell-eval takes either place, cell-eval2 the middle of both."""
    predicted, observed, genes = draw(5, exact=True)
    names, *_ = panel_of(predicted, observed, genes, own_controls=False)
    for one, other in zip(names[::2], names[1::2], strict=True):
        observed[other] = observed[one]
    _, x, y, _ = panel_of(predicted, observed, genes, own_controls=True)
    pair = pair_of(predicted, observed, genes)
    expected = cell_eval.discrimination_score(pair, metric=distance, exclude_target_gene=False)
    ours = discrimination_score(x, y, distance=distance, convention="cell_eval")
    places = 12 * (np.array([expected[name] for name in names]) - ours)
    # Ours gives the first of a pair the better place, cell-eval whichever its sort puts first.
    np.testing.assert_allclose(np.abs(places - np.tile([-0.5, 0.5], 6)), 0.5, rtol=0, atol=1e-6)

    _, x, y, _ = panel_of(predicted, observed, genes, own_controls=False)
    options = {"rank_denominator": "n-1", "distance": distance, "exclude_target_gene": False}
    expected = second_scores(predicted, observed, genes, names, **options)
    ours = discrimination_score(x, y, distance=distance)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose((2 * 11 * ours) % 2, 1, rtol=0, atol=1e-6)  # half a place


def test_centroid_accuracy_is_the_score_of_cell_eval2_with_all_genes():
    predicted, observed, genes = draw(6)
    names, x, y, _ = panel_of(predicted, observed, genes, own_controls=False)
    expected = second_scores(
        predicted, observed, genes, names, rank_denominator="n-1", distance="l2", exclude_target_gene=False
    )
    np.testing.assert_allclose(centroid_accuracy(x, y), expected, rtol=0, atol=1e-6)


def test_one_condition_scores_one_in_the_references():
    predicted, observed, genes = draw(7, n_conditions=2)
    for side in (predicted, observed):
        del side["drug"]
    names, x, y, _ = panel_of(predicted, observed, genes, own_controls=True)
    assert list(cell_eval.discrimination_score(pair_of(predicted, observed, genes)).values()) == [1]
    assert second_scores(predicted, observed, genes, names, rank_denominator="n-1") == [1]
    assert discrimination_score(x, y, convention="cell_eval") == [1]
    assert np.isnan(discrimination_score(x, y)).all()
