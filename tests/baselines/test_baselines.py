"""What all baselines have in common, and the two that ignore the perturbation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

from perturbflow.baselines import (
    AdditiveEffect,
    AdditiveHurdle,
    ControlCells,
    CovariateMean,
    CrossContextEffect,
    FeatureRidge,
    MatchingMean,
    MeanEffect,
    Sampler,
)
from perturbflow.flow import CellData

BASELINES: list[Any] = [
    ControlCells,
    MeanEffect,
    CovariateMean,
    MatchingMean,
    CrossContextEffect,
    AdditiveEffect,
    FeatureRidge,
]
RNG = np.random.default_rng(0)


def simulated(effects, *, n_control=40, container=np.asarray):
    """Cells whose group means are exactly a context mean plus an effect; ``effects`` maps (doses, context) to (G,)."""
    rng = np.random.default_rng(1)
    n_genes = len(next(iter(effects.values())))
    base = {context: rng.uniform(2, 4, n_genes) for _, context in effects}
    x, perturbations, covariates = [], [], []

    def add(doses, context, effect, n_cells):
        noise = rng.normal(0, 0.3, (n_cells, n_genes))
        x.append(base[context] + effect + noise - noise.mean(axis=0))
        perturbations.extend([doses] * n_cells)
        covariates.extend([[context]] * n_cells)

    n_components = len(next(iter(effects))[0])
    for context in base:
        add((0,) * n_components, context, 0.0, n_control)
    for number, ((doses, context), effect) in enumerate(effects.items()):
        add(doses, context, effect, 3 + number)
    return CellData(container(np.vstack(x).astype(np.float32)), np.array(perturbations), np.array(covariates)), base


def shift_of(baseline, doses, context):
    """The shift that a fitted baseline applies, read from cells far above zero."""
    controls = np.full((2, baseline._shape[0]), 10.0, dtype=np.float32)
    predicted = baseline.sample(controls, np.array(doses, dtype=np.float32), np.array([context]), rng=RNG)
    assert (predicted[0] == predicted[1]).all()
    return predicted[0] - 10.0


A0, A1, B0, B1 = np.array([1.0, 0.0]), np.array([0.5, 0.5]), np.array([0.0, -1.0]), np.array([0.0, 0.25])
EFFECTS = {((1, 0), 0): A0, ((1, 0), 1): A1, ((0, 1), 0): B0, ((0, 1), 1): B1}


@pytest.fixture(params=[np.asarray, sparse.csr_matrix], ids=["dense", "sparse"])
def cells(request):
    return simulated(EFFECTS, container=request.param)[0]


def test_mean_effect_counts_every_group_once(cells):
    baseline = MeanEffect().fit(cells)
    for doses, context in (((1, 0), 0), ((0, 3), 1), ((1, 1), 7)):
        np.testing.assert_allclose(shift_of(baseline, doses, context), (A0 + A1 + B0 + B1) / 4, atol=1e-5)


def test_covariate_mean_is_that_of_the_context(cells):
    baseline = CovariateMean().fit(cells)
    np.testing.assert_allclose(shift_of(baseline, (1, 0), 0), (A0 + B0) / 2, atol=1e-5)
    np.testing.assert_allclose(shift_of(baseline, (5, 1), 1), (A1 + B1) / 2, atol=1e-5)
    np.testing.assert_allclose(shift_of(baseline, (1, 0), 7), (A0 + A1 + B0 + B1) / 4, atol=1e-5)


def test_no_perturbation_returns_the_controls(subtests, cells):
    for baseline in BASELINES:
        with subtests.test(baseline.__name__):
            controls = RNG.gamma(0.5, size=(5, 2)).astype(np.float32)
            predicted = baseline().fit(cells).sample(controls, np.zeros(2, dtype=np.float32), np.array([0]), rng=RNG)
            assert (predicted == controls).all()
            assert predicted is not controls


def test_zero_effect_returns_the_controls(subtests):
    for baseline in BASELINES:
        with subtests.test(baseline.__name__):
            x = np.repeat(RNG.gamma(0.5, size=(1, 3)), 6, axis=0)
            still = CellData(x, np.array([[0], [0], [0], [1], [1], [1]]), np.zeros((6, 0), dtype=int))
            controls = RNG.gamma(0.5, size=(5, 3)).astype(np.float32)
            predicted = baseline().fit(still).sample(controls, np.ones(1), np.zeros(0, dtype=int), rng=RNG)
            assert (predicted == controls).all()


def test_predictions_are_not_negative_and_inputs_unchanged(subtests, cells):
    for baseline in BASELINES:
        with subtests.test(baseline.__name__):
            controls = RNG.gamma(0.1, size=(50, 2)).astype(np.float32)
            before = controls.copy()
            predicted = baseline().fit(cells).sample(controls, np.array([0, 9.0]), np.array([0]), rng=RNG)
            assert predicted.dtype == np.float32
            assert predicted.shape == controls.shape
            assert predicted.min() >= 0
            assert (controls == before).all()


def test_order_of_cells_does_not_matter(subtests, cells):
    for baseline in BASELINES:
        with subtests.test(baseline.__name__):
            order = np.random.default_rng(2).permutation(len(cells))
            one, other = baseline().fit(cells), baseline().fit(cells.subset(order))
            np.testing.assert_allclose(shift_of(one, (1, 2), 1), shift_of(other, (1, 2), 1), atol=1e-6)


def test_an_empty_set_of_controls_gives_no_cells(subtests, cells):
    for baseline in BASELINES:
        with subtests.test(baseline.__name__):
            predicted = baseline().fit(cells).sample(np.zeros((0, 2)), np.ones(2), np.array([0]), rng=RNG)
            assert predicted.shape == (0, 2)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        pytest.param({"controls": np.zeros((4, 3))}, r"`controls` .* \(4, 2\), .*, found \(4, 3\)", id="genes"),
        pytest.param({"controls": np.zeros(2)}, r"`controls` .* \(2, 2\), .*, found \(2,\)", id="one_cell"),
        pytest.param({"perturbation": np.ones(3)}, r"`perturbation` .* \(2,\), .*, found \(3,\)", id="components"),
        pytest.param({"covariates": np.zeros(0, int)}, r"`covariates` .* \(1,\), .*, found \(0,\)", id="covariates"),
    ],
)
def test_shapes_are_checked(subtests, changed, message, cells):
    for baseline in BASELINES:
        with subtests.test(baseline.__name__):
            arguments = {
                "controls": np.zeros((4, 2)),
                "perturbation": np.ones(2),
                "covariates": np.array([0]),
            } | changed
            with pytest.raises(ValueError, match=message):
                baseline().fit(cells).sample(**arguments, rng=RNG)


def test_unfitted_baselines_say_so(subtests):
    for baseline in BASELINES:
        with subtests.test(baseline.__name__):
            with pytest.raises(RuntimeError, match=f"Expected a fitted {baseline.__name__}. Call `fit` first."):
                baseline().sample(np.zeros((1, 1)), np.ones(1), np.zeros(0, int), rng=RNG)


def test_baselines_are_samplers(cells):
    def fitted(sampler: Sampler) -> Sampler:
        return sampler.fit(cells)

    samplers: list[Sampler] = [baseline() for baseline in BASELINES]
    assert [fitted(sampler) for sampler in samplers] == samplers


@pytest.mark.parametrize("kind", [*BASELINES, AdditiveHurdle])
def test_names_that_cannot_be_compared_are_refused(kind):
    cells = CellData(np.ones((4, 2)), np.array([[0.0], [0.0], [1.0], [1.0]]), np.zeros((4, 0), dtype=int))
    baseline = kind().fit(cells)
    table = pd.DataFrame(np.ones((1, 2)), columns=["a", "b"])
    with pytest.raises(
        TypeError, match="`controls` to be an array in the order of the training cells, found DataFrame"
    ):
        baseline.sample(table, np.ones(1), np.zeros(0, dtype=int), rng=np.random.default_rng(0))
    with pytest.raises(TypeError, match="found AnnData"):
        baseline.sample(AnnData(table.to_numpy()), np.ones(1), np.zeros(0, dtype=int), rng=np.random.default_rng(0))


def test_features_with_names_are_refused():
    with pytest.raises(TypeError, match="`features` to be an array in the order of the columns of `perturbations`"):
        FeatureRidge(pd.DataFrame([[1.0], [2.0]], index=["A", "B"]))
