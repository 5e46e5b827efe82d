from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from perturbflow.baselines import (
    BASELINES,
    AdditiveEffect,
    ControlCells,
    CovariateMean,
    CrossContextEffect,
    FeatureRidge,
    MatchingMean,
    MeanEffect,
)
from perturbflow.baselines._control_shift import group_effects
from perturbflow.flow import CellData, GroupSums

#               controls           A        controls  A+B
X = np.array([[1, 0, 2], [3, 0, 2], [5, 1, 2], [1, 1, 1], [2, 1, 4], [4, 1, 4]], dtype=np.float32)
PERTURBATIONS = np.array([[0, 0], [0, 0], [1, 0], [0, 0], [2, 1], [2, 1]])
CONTEXTS = np.array([[0], [0], [0], [1], [1], [1]])


@pytest.mark.parametrize("container", [np.asarray, sparse.csr_matrix, sparse.csr_array])
def test_effects_are_against_controls_of_the_context(container):
    groups = group_effects(CellData(container(X), PERTURBATIONS, CONTEXTS))
    assert groups.contexts == [(0,), (1,)]
    assert groups.doses.tolist() == [[1, 0], [2, 1]]
    assert groups.effects.tolist() == [[3, 1, 0], [2, 0, 3]]


def test_sparse_cells_are_not_made_dense_whole(monkeypatch):
    rng = np.random.default_rng(0)
    x = sparse.csr_matrix(rng.poisson(0.1, (60, 40)))
    cells = CellData(x, np.arange(60)[:, None] % 3, np.zeros((60, 0), dtype=int))
    expected = group_effects(CellData(x.toarray(), cells.perturbations, cells.covariates)).effects
    toarray = sparse.csr_matrix.toarray

    def only_doses(self, *args, **kwargs):
        assert self.shape[1] == 1
        return toarray(self, *args, **kwargs)

    monkeypatch.setattr(sparse.csr_matrix, "toarray", only_doses)
    np.testing.assert_allclose(group_effects(cells).effects, expected, atol=1e-12)


def test_effects_are_means_of_groups_less_those_of_their_controls():
    rng = np.random.default_rng(1)
    cells = CellData(rng.gamma(2, 1, (80, 5)), rng.integers(0, 2, (80, 2)), rng.integers(0, 2, (80, 1)))
    groups = group_effects(cells)
    means = {(*one.perturbation, *one.covariates): cells.x[one.rows].astype(float).mean(0) for one in cells.groups()}
    for doses, context, effect in zip(groups.doses, groups.contexts, groups.effects, strict=True):
        np.testing.assert_allclose(effect, means[*doses, *context] - means[0, 0, *context], rtol=1e-12)
    assert len(groups.effects) == 6


@pytest.mark.parametrize("name", list(BASELINES))
def test_sums_over_groups_are_all_that_is_needed_of_cells(name):
    rng = np.random.default_rng(2)
    x = np.log1p(rng.poisson(rng.gamma(2, 1, 6), (150, 6)))
    cells = CellData(x, rng.integers(0, 2, (150, 2)), rng.integers(0, 2, (150, 1)))
    streamed = GroupSums.empty(6, 2, 1)
    for rows in np.array_split(rng.permutation(150), 4):
        streamed.add(cells.x[rows], cells.perturbations[rows], cells.covariates[rows])
    before = streamed.total.copy()
    for doses in ([1, 0], [1, 1]):
        asked = cells.x[:20], np.array(doses, dtype=np.float32), np.array([1])
        found, expected = (
            BASELINES[name]().fit(given).sample(*asked, rng=np.random.default_rng(0)) for given in (streamed, cells)
        )
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(streamed.total, before)


@pytest.mark.parametrize(
    "baseline", [MeanEffect, CovariateMean, MatchingMean, CrossContextEffect, AdditiveEffect, FeatureRidge]
)
@pytest.mark.parametrize(
    ("rows", "message"),
    [
        pytest.param([0, 1, 3], "found 0 perturbed groups and controls in 2 contexts", id="controls_only"),
        pytest.param([2, 4, 5], "found 2 perturbed groups and controls in 0 contexts", id="no_controls"),
        pytest.param([0, 4], "found 1 perturbed groups and controls in 1 contexts, none in common", id="other_context"),
    ],
)
def test_effects_need_perturbed_and_control_cells(baseline, rows, message):
    cells = CellData(X, PERTURBATIONS, CONTEXTS).subset(np.array(rows))
    with pytest.raises(ValueError, match=message):
        baseline().fit(cells)


def test_groups_without_controls_are_left_out_with_a_warning():
    cells = CellData(X, PERTURBATIONS, CONTEXTS).subset(np.array([0, 1, 2, 4, 5]))
    with pytest.warns(UserWarning, match="Left out 1 of 2 perturbed groups, whose contexts .* have no control cells"):
        groups = group_effects(cells)
    assert groups.effects.tolist() == [[3, 1, 0]]


def test_control_cells_need_no_perturbed_cells():
    cells = CellData(X, PERTURBATIONS, CONTEXTS).subset(np.array([0, 1]))
    baseline = ControlCells().fit(cells)
    predicted = baseline.sample(X[:2], np.ones(2, dtype=np.float32), np.array([0]), rng=np.random.default_rng(0))
    assert (predicted == X[:2]).all()


def test_effects_of_a_perturbation_are_those_of_the_nearest_dose():
    perturbations = np.array([[0, 0], [1, 0], [4, 0], [1, 1], [0, 0], [4, 0]])
    x = np.array([[0.0], [1.0], [2.0], [3.0], [5.0], [9.0]])
    groups = group_effects(CellData(x, perturbations, np.array([[0]] * 4 + [[1]] * 2)))
    asked = {(1, 0): 1.0, (1.9, 0): 1.0, (2, 0): (1 + 2 + 4) / 3, (9, 0): 3.0, (7, 7): 3.0}
    for doses, expected in asked.items():
        effect = groups.of_perturbation(np.array(doses, dtype=float), within=lambda _: True)
        assert effect == pytest.approx([expected])
    assert groups.of_perturbation(np.array([1.0, 0.0]), within=lambda context: context == (1,)) == pytest.approx([4.0])
    assert groups.of_perturbation(np.array([0.0, 1.0]), within=lambda _: True) is None
    assert groups.of_perturbation(np.array([1.0, 1.0]), within=lambda context: context == (1,)) is None
