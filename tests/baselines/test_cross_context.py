from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from perturbflow.baselines import CovariateMean, CrossContextEffect
from perturbflow.flow import CellData

RNG = np.random.default_rng(0)
N_GENES, CONTROL = 3, 20.0
EFFECTS = np.random.default_rng(1).normal(0, 1, (8, N_GENES))


def training(groups, *, container=np.asarray):
    """Cells of every group, as many as its place in the list, and two controls of every context."""
    rows = [((0, 0), context, np.zeros(N_GENES), 2) for context in sorted({context for _, context in groups})]
    rows += [(doses, context, effect, 1 + n) for n, ((doses, context), effect) in enumerate(groups.items())]
    repeats = [n for *_, n in rows]
    x = np.repeat([CONTROL + 5 * context + effect for _, context, effect, _ in rows], repeats, axis=0)
    covariates = np.repeat([[context] for _, context, *_ in rows], repeats, axis=0)
    return CellData(container(x), np.repeat([doses for doses, *_ in rows], repeats, axis=0), covariates)


def shift_of(cells, doses, context, *, baseline=CrossContextEffect):
    controls = np.full((1, N_GENES), CONTROL, dtype=np.float32)
    fitted = baseline().fit(cells)
    return fitted.sample(controls, np.array(doses, dtype=np.float32), np.array([context]), rng=RNG)[0] - CONTROL


def groups_of(*keys):
    return dict(zip(keys, EFFECTS, strict=False))


@pytest.mark.parametrize("container", [np.asarray, sparse.csr_matrix])
def test_every_other_context_counts_once_and_the_own_not(container):
    groups = groups_of(((1, 0), 0), ((1, 0), 1), ((1, 0), 2), ((0, 1), 0), ((1, 1), 1))
    cells = training(groups, container=container)
    np.testing.assert_allclose(shift_of(cells, (1, 0), 0), (EFFECTS[1] + EFFECTS[2]) / 2, atol=1e-5)
    np.testing.assert_allclose(shift_of(cells, (1, 0), 2), (EFFECTS[0] + EFFECTS[1]) / 2, atol=1e-5)
    np.testing.assert_allclose(shift_of(cells, (1, 0), 9), EFFECTS[:3].mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(shift_of(cells, (0, 1), 1), EFFECTS[3], atol=1e-5)


def test_own_cells_do_not_matter():
    keys = [((1, 0), 0), ((1, 0), 1), ((1, 0), 2)]
    changed = groups_of(*keys) | {keys[0]: np.full(N_GENES, 9.0)}
    assert (shift_of(training(groups_of(*keys)), (1, 0), 0) == shift_of(training(changed), (1, 0), 0)).all()
    assert (shift_of(training(groups_of(*keys)), (1, 0), 1) != shift_of(training(changed), (1, 0), 1)).all()


def test_combinations_need_the_same_combination():
    cells = training(groups_of(((1, 0), 0), ((0, 1), 0), ((1, 1), 0), ((1, 0), 1)))
    np.testing.assert_allclose(shift_of(cells, (1, 1), 1), EFFECTS[2], atol=1e-5)


@pytest.mark.parametrize("doses", [(0, 1), (1, 1), (3, 0)])
def test_what_no_other_context_saw_has_the_covariate_mean(doses):
    cells = training(groups_of(((1, 0), 0), ((2, 0), 0), ((0, 1), 1)))
    expected = shift_of(cells, doses, 0 if doses[0] == 3 else 1, baseline=CovariateMean)
    assert (shift_of(cells, doses, 0 if doses[0] == 3 else 1) == expected).all()


def test_the_dose_asked_for_goes_before_others():
    cells = training(groups_of(((1, 0), 1), ((10, 0), 1), ((10, 0), 2), ((100, 0), 2)))
    np.testing.assert_allclose(shift_of(cells, (10, 0), 0), (EFFECTS[1] + EFFECTS[2]) / 2, atol=1e-5)
    np.testing.assert_allclose(shift_of(cells, (1, 0), 0), EFFECTS[0], atol=1e-5)
    # Context 2 has no cells of dose 1, so that of context 1, which is its own, leaves dose 10.
    np.testing.assert_allclose(shift_of(cells, (1, 0), 1), EFFECTS[2], atol=1e-5)


def test_the_nearest_dose_is_that_of_the_smallest_ratio():
    cells = training(groups_of(((0.1, 0), 1), ((10, 0), 1)))
    for dose, expected in ((0.01, EFFECTS[0]), (0.9, EFFECTS[0]), (1.1, EFFECTS[1]), (50, EFFECTS[1])):
        np.testing.assert_allclose(shift_of(cells, (dose, 0), 0), expected, atol=1e-5)
    np.testing.assert_allclose(shift_of(cells, (1, 0), 0), (EFFECTS[0] + EFFECTS[1]) / 2, atol=1e-5)
    two = training(groups_of(((1, 100), 1), ((5, 5), 1)))  # ratios of 2 * 4 and of 2.5 * 5
    np.testing.assert_allclose(shift_of(two, (2, 25), 0), EFFECTS[0], atol=1e-5)
