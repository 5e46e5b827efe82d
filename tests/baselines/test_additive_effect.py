from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import sparse

from perturbflow.baselines import AdditiveEffect
from perturbflow.flow import CellData

RNG = np.random.default_rng(0)
N_GENES = 4
SLOPES = np.random.default_rng(1).normal(0, 1, (5, N_GENES))  # effect of five components per unit of dose
CONTROL = 20.0


def training(groups, *, container=np.asarray):
    """Two identical cells per group and per context; ``groups`` maps (doses, context) to an effect."""
    contexts = sorted({context for _, context in groups})
    rows = [((0,) * 5, context, np.zeros(N_GENES)) for context in contexts]
    rows += [(doses, context, effect) for (doses, context), effect in groups.items()]
    x = np.repeat([CONTROL + context + effect for _, context, effect in rows], 2, axis=0)
    perturbations = np.repeat([doses for doses, *_ in rows], 2, axis=0)
    covariates = np.repeat([[context] for _, context, _ in rows], 2, axis=0)
    return CellData(container(x), perturbations, covariates)


def additive(*groups):
    return {(doses, context): np.array(doses) @ SLOPES for doses, context in groups}


def shift_of(cells, doses, context=0):
    controls = np.full((1, N_GENES), CONTROL, dtype=np.float32)
    baseline = AdditiveEffect().fit(cells)
    return baseline.sample(controls, np.array(doses, dtype=np.float32), np.array([context]), rng=RNG)[0] - CONTROL


def unit(component, dose=1):
    doses = [0] * 5
    doses[component] = dose
    return tuple(doses)


SINGLES = [(unit(component), 0) for component in range(5)]


@pytest.mark.parametrize("container", [np.asarray, sparse.csr_matrix])
@pytest.mark.parametrize(
    "groups",
    [
        pytest.param(SINGLES, id="singles"),
        pytest.param([*SINGLES, ((1, 1, 0, 0, 0), 0)], id="singles_and_a_combination"),
        pytest.param([*SINGLES[1:], ((1, 1, 0, 0, 0), 0)], id="one_only_in_a_combination"),
        pytest.param(
            [*SINGLES[2:], ((1, 1, 0, 0, 0), 0), ((1, 2, 1, 0, 0), 0)], id="two_only_in_combinations_with_doses"
        ),
        pytest.param([(doses, 0) for doses in itertools.product((0, 1), repeat=5) if sum(doses) == 2], id="pairs_only"),
        pytest.param([(unit(component, 1 + component), component % 2) for component in range(5)], id="doses_contexts"),
    ],
)
def test_additive_effects_are_recovered(groups, container):
    cells = training(additive(*groups), container=container)
    for doses in itertools.product((0, 0.5, 2), repeat=5):
        np.testing.assert_allclose(shift_of(cells, doses), np.array(doses) @ SLOPES, atol=2e-5)


def test_order_of_groups_does_not_matter():
    groups = additive(*SINGLES[2:], ((1, 1, 0, 0, 0), 0), ((0, 1, 1, 0, 0), 0))
    backwards = dict(reversed(groups.items()))
    np.testing.assert_allclose(
        shift_of(training(groups), (1, 1, 1, 1, 1)), shift_of(training(backwards), (1, 1, 1, 1, 1)), atol=1e-6
    )


def test_combinations_do_not_change_singles():
    groups = additive(*SINGLES)
    interaction = groups | {((1, 1, 0, 0, 0), 0): np.full(N_GENES, -3.0)}
    np.testing.assert_allclose(
        shift_of(training(interaction), (1, 1, 0, 0, 0)), shift_of(training(groups), (1, 1, 0, 0, 0)), atol=1e-6
    )


def test_own_context_goes_before_the_mean_of_contexts():
    one, two, three = np.full(N_GENES, 1.0), np.full(N_GENES, 2.0), np.full(N_GENES, 6.0)
    groups = {(unit(0), 0): one, (unit(0), 1): two, (unit(0), 2): three, (unit(1), 3): one}
    cells = training(groups)
    assert [shift_of(cells, unit(0), context)[0] for context in (0, 1, 2)] == pytest.approx([1.0, 2.0, 6.0])
    # Context 3 has seen component 1 only, context 9 nothing.
    assert shift_of(cells, unit(0), 3)[0] == pytest.approx(3.0)
    assert shift_of(cells, (1, 1, 0, 0, 0), 3)[0] == pytest.approx(4.0)
    assert shift_of(cells, unit(0), 9)[0] == pytest.approx(3.0)


def test_slope_is_a_regression_through_the_origin():
    groups = {(unit(0, 1), 0): np.full(N_GENES, 2.0), (unit(0, 3), 0): np.full(N_GENES, 3.0)}
    assert shift_of(training(groups), unit(0, 2))[0] == pytest.approx(2 * (1 * 2 + 3 * 3) / (1 + 9))


def test_singles_of_the_context_are_subtracted_from_its_combinations():
    groups = {
        (unit(0), 0): np.full(N_GENES, 1.0),
        (unit(0), 1): np.full(N_GENES, 3.0),
        ((1, 1, 0, 0, 0), 1): np.full(N_GENES, 8.0),
    }
    assert shift_of(training(groups), unit(1), 0)[0] == pytest.approx(5.0)


def test_inseparable_components_share_their_effect():
    cells = training({((1, 1, 0, 0, 0), 0): np.full(N_GENES, 2.0)})
    assert shift_of(cells, (1, 1, 0, 0, 0))[0] == pytest.approx(2.0)
    assert shift_of(cells, unit(0))[0] == pytest.approx(1.0)


def test_unseen_component_has_the_mean_effect():
    groups = {(unit(0), 0): np.full(N_GENES, 1.0), (unit(1), 0): np.full(N_GENES, 4.0)}
    cells = training(groups)
    for dose in (1, 7):
        assert shift_of(cells, unit(4, dose))[0] == pytest.approx(2.5)
    assert shift_of(cells, (1, 0, 0, 1, 1))[0] == pytest.approx(1.0 + 2 * 2.5)
