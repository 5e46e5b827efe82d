"""Cells at rest: the Lyapunov equation, interventions, evidence, and what holding genes does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.linalg import solve_continuous_lyapunov

from perturbflow.dynamics import (
    Snapshot,
    StandingDynamics,
    edge_stability,
    evidence_ranks,
    fit_standing,
    lyapunov_path,
    lyapunov_residual,
    mean_rate_correlations,
    mean_rate_path,
    possible_edges,
    snapshot_evidence,
    total_effect_probability,
)
from perturbflow.dynamics._snapshot_evidence import partial_correlations
from perturbflow.dynamics._standing_fit import shrunken_effects

RATES = np.array([[-1.0, 0, 0, 0], [0.8, -1, 0, 0], [0, -0.7, -1, 0], [0, 0, 0, -1]])
EDGES = {(0, 1), (1, 2)}


def screen(*, n_cells=400, seed=0, regulators=(0, 1, 2, 3)):
    """Cells of a chain 0 -> 1 -| 2 beside a gene of its own, unperturbed and with each of the first three held."""
    rng = np.random.default_rng(seed)
    levels, condition, held = [], [], np.zeros((4, 4), dtype=bool)
    for number in range(4):
        rates, push, noise = RATES.copy(), np.zeros(4), np.full(4, 2.0)
        if number:
            gene = number - 1
            held[number, gene] = True
            rates[gene], push[gene], noise[gene] = -np.eye(4)[gene], -3.0, 0.02
        covariance = solve_continuous_lyapunov(rates, -np.diag(noise))
        levels.append(rng.multivariate_normal(-np.linalg.solve(rates, push), covariance, size=n_cells))
        condition += [number] * n_cells
    names = ("control", "0", "1", "2")
    return Snapshot(
        np.concatenate(levels), np.array(condition), names, held, regulators, np.zeros(4 * n_cells, dtype=int)
    )


def test_the_covariance_of_a_linear_system_leaves_no_residual():
    noise = np.array([2.0, 1.0, 0.5, 3.0])
    covariance = solve_continuous_lyapunov(RATES, -np.diag(noise))
    assert np.abs(lyapunov_residual(RATES, covariance, noise)).max() < 1e-12
    assert np.abs(lyapunov_residual(RATES, covariance, 2 * noise)).max() > 0.1


def test_the_path_goes_from_no_edge_to_rates_with_this_covariance():
    covariance = solve_continuous_lyapunov(RATES, -2 * np.eye(4))
    first, *_, last = lyapunov_path(covariance, range(4), [1.0, 0.1, 0.01, 1e-4])
    assert np.abs(first - np.diag(np.diag(first))).max() < 1e-9
    assert np.abs(lyapunov_residual(last, covariance)).max() < 1e-2
    assert last[3, :3].tolist() == [0, 0, 0]  # independent of all


def test_other_genes_than_regulators_regulate_none_and_solve_the_same_equation():
    covariance = solve_continuous_lyapunov(RATES, -2 * np.eye(4))
    path = lyapunov_path(covariance, [0, 1], [0.5, 0.01, 1e-4])
    assert all(np.abs((rates - np.diag(np.diag(rates)))[:, 2:]).max() == 0 for rates in path)
    residual = lyapunov_residual(path[-1], covariance)
    assert np.abs(residual[:, :2]).max() < 0.02
    assert path[-1][2, 1] < -0.5


def test_interventions_give_direct_edges_and_not_the_indirect_one():
    weights = np.abs(mean_rate_path(screen(), [0.2])[0])
    np.fill_diagonal(weights, 0.0)
    strongest = {(int(k % 4), int(k // 4)) for k in np.argsort(-weights.ravel())[:2]}
    assert strongest == EDGES
    assert weights[2, 0] < 0.2 * weights[2, 1]


def test_responses_of_a_regulator_enter_the_path_together():
    cells = screen()
    cells = replace(cells, levels=np.exp(0.3 * cells.levels))  # never negative: a level and a response that saturates
    none, first = mean_rate_path(cells, [1.001, 0.97])
    assert not none.any()
    assert (first != 0).sum(axis=1).tolist() == [1, 1, 1, 1]


def test_total_effects_are_seen_downstream_only():
    effect = total_effect_probability(screen(n_cells=2000))
    assert effect[1, 0] > 0.99
    assert effect[2, 0] > 0.99
    assert effect[0, 2] < 0.8
    assert effect[:, 3] == pytest.approx(effect[:, :3].mean())  # nothing held it


def test_where_genes_were_held_in_pairs_only_any_total_effect_is_possible():
    cells = screen(n_cells=50)
    held = cells.held.copy()
    held[1:, 3] = True
    pairs = Snapshot(cells.levels, cells.condition, cells.names, held, cells.regulators, cells.context)
    assert (total_effect_probability(pairs) == 1).all()
    assert snapshot_evidence(pairs).evidence.max() == 1


def residual_correlation(levels, target, regulator, others):
    """Correlations of what others leave of a target, or of all of it, with what they leave of a regulator."""
    design = np.column_stack([np.ones(len(levels)), levels[:, others]])
    left = levels - design @ np.linalg.lstsq(design, levels, rcond=None)[0]
    partial = np.corrcoef(left[:, target], left[:, regulator])[0, 1]
    return partial, np.corrcoef(levels[:, target], left[:, regulator])[0, 1]


def test_partial_correlations_are_of_residuals_and_point_from_regulators_to_targets():
    levels = screen(n_cells=200).levels
    correlation = np.corrcoef(levels.T)
    found = partial_correlations(correlation, [0, 2])
    assert found[1, 0] == pytest.approx(residual_correlation(levels, 1, 0, [2])[0])
    assert found[2, 0] == pytest.approx(residual_correlation(levels, 2, 0, [])[0])
    assert np.abs(found[:, [1, 3]]).max() == 0
    inverse = np.linalg.inv(correlation)
    whole = -inverse / np.sqrt(np.diag(inverse) * np.diag(inverse)[:, None])
    np.fill_diagonal(whole, 0.0)
    assert np.abs(partial_correlations(correlation, range(4)) - whole).max() < 1e-12


def test_without_perturbations_mean_rate_correlations_are_part_correlations():
    cells = screen(n_cells=500, regulators=(0, 1, 2)).taken(np.arange(500))
    cells = Snapshot(cells.levels, cells.condition, ("control",), cells.held[:1], (0, 1, 2), cells.context)
    found = mean_rate_correlations(cells)
    for target, regulator in ((3, 0), (2, 1), (1, 0)):
        others = [k for k in (0, 1, 2) if k not in (target, regulator)]
        assert found[target, regulator] == pytest.approx(
            residual_correlation(cells.levels, target, regulator, others)[1], abs=0.02
        )
    assert np.diag(found).tolist() == [0] * 4
    assert np.abs(found[:, 3]).max() == 0


def test_what_moved_two_genes_is_no_evidence_that_one_acts_on_the_other():
    rng = np.random.default_rng(0)
    held = np.zeros((2, 3), dtype=bool)
    held[1, 0] = True
    source = rng.normal(size=1000) + np.repeat([0.0, 10.0], 500)
    levels = np.column_stack([source, source + rng.normal(size=1000), rng.normal(size=1000) - source])
    levels[:, 0] += 0.5 * rng.normal(size=1000)  # as measured
    cells = Snapshot(levels, np.repeat([0, 1], 500), ("control", "A"), held, (0, 1, 2), np.zeros(1000, dtype=int))
    found = snapshot_evidence(cells)
    assert {tuple(map(int, pair)) for pair in np.argwhere(found.evidence > 0.7)} == {(0, 1), (0, 2)}
    assert (found.sign[0, 1], found.sign[0, 2]) == (1, -1)


def test_equal_evidence_shares_the_mean_of_its_ranks():
    possible = np.array([[False, True, True], [True, False, True], [False, False, False]])
    score = np.array([[9.0, 1.0, 2.0], [1.0, 9.0, 0.0], [9.0, 9.0, 9.0]])
    expected = np.array([[0.0, 0.625, 1.0], [0.625, 0.0, 0.0], [0.0, 0.0, 0.0]])
    np.testing.assert_allclose(evidence_ranks(score, possible), expected)


def test_evidence_ranks_all_pairs_with_signs_and_edges_first():
    found = snapshot_evidence(screen())
    order = np.argsort(-found.evidence.ravel())[:2]
    assert {(int(k // 4), int(k % 4)) for k in order} == EDGES
    assert (found.sign[0, 1], found.sign[1, 2]) == (1, -1)
    assert np.diag(found.evidence).tolist() == [0] * 4
    assert found.evidence.max() == 1


def test_evidence_depends_neither_on_units_nor_on_the_order_of_cells():
    cells = screen(n_cells=100)
    rng = np.random.default_rng(0)
    other = Snapshot(
        cells.levels * np.array([1.0, 10.0, 0.1, 5.0]) + 7.0,
        cells.condition,
        cells.names,
        cells.held,
        cells.regulators,
        cells.context,
    ).taken(rng.permutation(400))
    other = Snapshot(other.levels - 200.0, *(other.condition, other.names, other.held, other.regulators, other.context))
    found, expected = snapshot_evidence(other), snapshot_evidence(cells)
    assert np.abs(found.evidence - expected.evidence).max() < 0.1


def test_only_regulators_and_genes_that_vary_have_edges():
    cells = screen(n_cells=50, regulators=(0, 2))
    levels = cells.levels.copy()
    levels[:, 3] = 1.0
    cells = Snapshot(levels, cells.condition, cells.names, cells.held, (0, 2), cells.context)
    assert possible_edges(cells).sum(axis=1).tolist() == [2, 0, 2, 0]
    found = snapshot_evidence(cells).evidence
    assert found[[1, 3]].max() == 0
    assert found[:, 3].max() == 0


def test_contexts_are_compared_with_themselves():
    cells = screen(n_cells=100)
    context = np.arange(400) % 2
    shifted = Snapshot(
        cells.levels + 50.0 * context[:, None], cells.condition, cells.names, cells.held, cells.regulators, context
    )
    assert np.abs(snapshot_evidence(shifted).evidence[0, 1] - snapshot_evidence(cells).evidence[0, 1]) < 0.1
    assert shifted.scale == pytest.approx(cells.scale, rel=0.05)


def test_halves_keep_half_of_every_condition_and_scores_keep_ranks():
    cells = screen(n_cells=101)
    half = cells.resampled(np.random.default_rng(0))
    assert half.n_cells.tolist() == [51] * 4
    assert (np.argsort(cells.scored().levels[:, 0]) == np.argsort(cells.levels[:, 0])).all()


def test_stability_finds_edges_and_none_in_shuffled_cells():
    rng = np.random.default_rng(0)
    cells = screen()
    stable = edge_stability(cells, n_halves=10, rng=rng)
    assert {tuple(map(int, edge)) for edge in np.argwhere(stable >= 0.9)} <= {*EDGES}
    assert stable[0, 1] >= 0.9
    assert (edge_stability(cells.shuffled(rng), n_halves=20, rng=rng) >= 0.9).sum() == 0


@pytest.mark.parametrize(("regulators", "most"), [((0, 1), 2 / 3), ((0, 1, 2), 0.5)])
def test_edges_of_regulators_that_were_never_held_have_no_direction(regulators, most):
    cells = screen(regulators=regulators)
    cells = cells.taken(np.flatnonzero(cells.condition < 2))  # only gene 0 was held
    cells = replace(cells, names=cells.names[:2], held=cells.held[:2])
    stable = edge_stability(cells, n_halves=4, rng=np.random.default_rng(0), n_expected_false=4.0)
    assert stable[1, 2] == pytest.approx(most)  # from 1 to 2, which may or may not regulate it
    free = replace(cells, held=np.zeros_like(cells.held))
    free_share = edge_stability(free, n_halves=4, rng=np.random.default_rng(0))
    assert free_share.max() == pytest.approx(2 / 3)  # what all halves have in common is not known to be right


def test_measured_perturbations_are_reproduced():
    cells = screen()
    model = fit_standing(cells)
    for gene in range(3):
        condition = cells.levels[cells.condition == gene + 1]
        mean, spread = model.hold({gene: float(condition[:, gene].mean())})
        free = np.arange(4) != gene
        assert mean == pytest.approx(condition.mean(axis=0), abs=1.5 * np.sqrt(2 / 400))  # as well as it was measured
        assert spread[free] == pytest.approx(condition.std(axis=0)[free], rel=0.01)
        assert spread[gene] == 0


def test_offsets_are_what_weights_do_not_tell_of_genes_that_are_free():
    cells = screen()
    model = fit_standing(cells)
    assert model.held.tolist() == np.eye(4, dtype=bool)[:3].tolist()
    assert not model.offset[model.held].any()
    told = model.shared + model.shift[:, list(model.regulators)] @ model.weights.T
    left = model.shift - told - model.offset  # of free genes, what shrinkage takes of their effects
    free = ~model.held
    assert (np.abs(left[free]) < 0.1).all()
    assert np.abs(model.offset[free]).max() > 0.01


def test_a_perturbation_that_was_left_out_is_predicted():
    cells = screen(n_cells=1000)
    model = fit_standing(cells.taken(np.flatnonzero(cells.condition != 2)), seed=0)  # gene 1 was never held
    truth = cells.levels[cells.condition == 2].mean(axis=0)
    mean, _ = model.hold({1: float(truth[1])})
    assert np.sqrt(((mean - truth)[[0, 2, 3]] ** 2).mean()) < 0.7 * np.sqrt(
        ((truth - model.centre)[[0, 2, 3]] ** 2).mean()
    )


def chain(weights, noise):
    nothing = np.zeros((0, len(noise)))
    return StandingDynamics(
        weights=weights,
        regulators=tuple(range(weights.shape[1])),
        shared=np.zeros(len(noise)),
        held=nothing.astype(bool),
        shift=nothing,
        offset=nothing,
        noise=noise,
        stretch=nothing,
        shared_stretch=np.zeros(len(noise)),
        centre=np.zeros(len(noise)),
        scale=np.ones(len(noise)),
        strength=0.0,
    )


def test_holding_a_gene_solves_the_steady_state_and_the_lyapunov_equation():
    weights = np.array([[0.0, 0.3, 0.0], [0.5, 0.0, 0.2], [0.0, 0.4, 0.0], [0.7, 0.0, -0.2]])
    noise = np.array([2.0, 1.0, 1.5, 0.5])
    model = chain(weights, noise)
    mean, spread = model.hold({1: 2.0})
    assert mean == pytest.approx([0.6, 2.0, 0.8, 0.7 * 0.6 - 0.2 * 0.8])
    cut = model.rates.copy()
    cut[1], cut[:, 1] = 0.0, 0.0
    cut[1, 1] = -1.0
    before = np.diag(solve_continuous_lyapunov(model.rates, -np.diag(noise)))
    after = np.diag(solve_continuous_lyapunov(cut, -np.diag(noise)))
    assert spread[[0, 2, 3]] == pytest.approx(np.sqrt(after / before)[[0, 2, 3]])


def test_what_was_held_together_is_predicted_by_that_and_not_by_its_parts():
    nothing = np.zeros(4)
    held = np.array([[1, 1, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0]], dtype=bool)
    parts = replace(
        chain(np.zeros((4, 2)), np.full(4, 2.0)),
        held=held,
        shift=np.where(held, -2.0, 0.0),
        offset=np.array([[0, 0, 5.0, 0], [0, 0, 1.0, 0], [0, 0, 0, 3.0]]),
        stretch=np.array([[0, 0, 0.4, 0], [0, 0, 0.1, 0], [0, 0, 0, 0.2]]),
        shared=nothing,
    )
    mean, spread = parts.hold({0: -2.0, 1: -2.0})
    assert mean.tolist() == [-2, -2, 5, 0]
    assert np.log(spread[2:]) == pytest.approx([0.4, 0])
    # Half as far there is half of it; the other way there is nothing of it.
    assert parts.hold({0: -1.0, 1: -1.0})[0].tolist() == [-1, -1, 2.5, 0]
    assert parts.hold({0: 2.0, 1: 2.0})[0].tolist() == [2, 2, 0, 0]
    without = replace(parts, held=held[1:], shift=parts.shift[1:], offset=parts.offset[1:], stretch=parts.stretch[1:])
    assert without.hold({0: -2.0, 1: -2.0})[0].tolist() == [-2, -2, 1, 3]
    assert without.hold({0: -2.0})[0].tolist() == [-2, 0, 1, 0]


def test_nothing_held_changes_nothing():
    model = fit_standing(screen(n_cells=50))
    mean, spread = model.hold({})
    assert mean.tolist() == model.centre.tolist()
    assert spread == pytest.approx(model.scale)


def test_stored_dynamics_predict_the_same():
    model = fit_standing(screen(n_cells=50))
    again = StandingDynamics.from_dict(model.to_dict())
    for one, other in zip(model.hold({0: -2.0}), again.hold({0: -2.0}), strict=True):
        assert one.tolist() == other.tolist()


def test_moments_of_saturating_rates_that_balance_leave_no_residual():
    # Any antisymmetric part can be added to A S = -1 without a change of the second moments.
    turning = np.array([[0.0, 0.3, -0.2, 0.1], [-0.3, 0.0, 0.4, 0.0], [0.2, -0.4, 0.0, 0.5], [-0.1, 0.0, -0.5, 0.0]])
    moments = np.linalg.solve(RATES, turning - np.eye(4))
    assert np.abs(moments - moments.T).max() > 0.1
    assert np.abs(lyapunov_residual(RATES, moments)).max() < 1e-12
    path = lyapunov_path(moments, range(4), [1.0, 0.1, 0.01, 1e-4])
    assert np.abs(lyapunov_residual(path[-1], moments)).max() < 1e-2


def test_targets_alone_solve_the_equation_of_responses_too():
    rng = np.random.default_rng(0)
    levels = rng.gamma(2.0, size=(3000, 1))
    levels = np.column_stack([levels, 3 * levels**2 / (levels**2 + 4) + 0.3 * rng.gamma(2.0, size=(3000, 1))])
    none = np.zeros(3000, dtype=int)
    cells = Snapshot(levels, none, ("control",), np.zeros((1, 2), dtype=bool), (0,), none)
    moments = cells.response_covariance
    assert np.abs(moments - moments.T).max() > 0.01
    path = lyapunov_path(moments, [0], [1.0, 0.1, 1e-3])
    assert path[0][1, 0] == 0
    assert path[-1][1, 0] > 0.3
    negative = Snapshot(levels - 5.0, none, ("control",), np.zeros((1, 2), dtype=bool), (0,), none)
    assert negative.response_covariance.tolist() == negative.within.tolist()  # of levels that have no zero


def test_responses_are_compared_within_conditions_and_contexts():
    cells = screen(n_cells=100)
    levels = np.exp(cells.levels)
    context = np.arange(400) % 2
    held = (cells.condition, cells.names, cells.held, cells.regulators, context)
    # A gene whose response is the same for all cells of a condition covaries with none.
    levels[:, 3] = cells.condition
    assert np.abs(Snapshot(levels, *held).response_covariance[3]).max() < 1e-9


def test_effects_of_few_genes_lose_what_sampling_adds():
    rng = np.random.default_rng(0)
    truth = np.where(np.arange(2000) < 100, rng.normal(size=2000), 0.0)
    error = rng.uniform(0.005, 0.03, size=2000)
    measured = truth + np.sqrt(error) * rng.normal(size=2000)
    found = shrunken_effects(measured, error)
    assert ((found - truth) ** 2).mean() < 0.25 * ((measured - truth) ** 2).mean()
    everywhere = 3 * rng.normal(size=2000)
    assert shrunken_effects(everywhere, error) == pytest.approx(everywhere, abs=0.1)
    large = np.array([50.0, -60.0, 70.0])  # beyond doubt, all of them
    assert shrunken_effects(large, np.full(3, 0.01)) == pytest.approx(large, rel=1e-4)
    assert shrunken_effects(np.zeros(3), np.zeros(3)).tolist() == [0, 0, 0]
    assert shrunken_effects(np.array([1.0, 2.0]), np.zeros(2)).tolist() == [1, 2]  # known without error
