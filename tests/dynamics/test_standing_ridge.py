"""Regressions of cells at rest: closed forms, and what is chosen on genes that were never held."""

from __future__ import annotations

import numpy as np
import pytest

from perturbflow.dynamics import Snapshot
from perturbflow.dynamics._standing_fit import RIDGE_STRENGTHS, StandingRidge


def screen(*, n_cells=200, shift=0.0, n_held=5, seed=0):
    """Cells in which gene 0 is driven by genes 1 and 2 of six; genes 1 to `n_held` are held in turn, and all cells shifted."""
    rng = np.random.default_rng(seed)
    condition = np.repeat(np.arange(n_held + 1), n_cells)
    levels = rng.normal(size=(len(condition), 6))
    held = np.zeros((n_held + 1, 6), dtype=bool)
    for gene in range(1, n_held + 1):
        held[gene, gene] = True
        levels[condition == gene, gene] = 4.0 + 0.1 * rng.normal(size=n_cells)
    levels[:, 0] += 0.8 * levels[:, 1] - 0.6 * levels[:, 2] + shift * (condition > 0)
    names = ("control", *map(str, range(1, n_held + 1)))
    return Snapshot(levels, condition, names, held, (0, 1, 2, 3), np.zeros(len(condition), dtype=int))


def perturbed(cells):
    return np.arange(1, len(cells.names))


def test_without_a_penalty_it_is_least_squares_over_all_cells_that_leave_the_target_free():
    cells = screen()
    weights, shift = StandingRidge(cells).solve(perturbed(cells), strength=0.0, shared=False)
    levels = cells.standard
    expected = np.linalg.lstsq(levels[:, [0, 1, 2, 3]], levels[:, 4:], rcond=None)[0].T
    free = ~cells.held[cells.condition][:, 4]
    expected[0] = np.linalg.lstsq(levels[free][:, [0, 1, 2, 3]], levels[free, 4], rcond=None)[0]
    assert np.abs(weights[4] - expected[0]).max() < 1e-9
    driven = np.linalg.lstsq(levels[:, [1, 2, 3]], levels[:, 0], rcond=None)[0]
    assert np.abs(weights[0] - np.array([0.0, *driven])).max() < 1e-9  # it does not explain itself
    assert shift.tolist() == [0.0] * 6


def test_a_shared_shift_is_the_coefficient_of_being_perturbed():
    cells = screen(shift=2.0)
    weights, shift = StandingRidge(cells).solve(perturbed(cells), strength=0.0, shared=True)
    design = np.column_stack([cells.standard[:, [1, 2, 3]], cells.condition > 0])
    expected = np.linalg.lstsq(design, cells.standard[:, 0], rcond=None)[0]
    assert np.abs(weights[0, 1:] - expected[:3]).max() < 1e-9
    assert shift[0] == pytest.approx(expected[3])
    assert shift[0] * cells.scale[0] == pytest.approx(2.0, abs=0.3)


def test_penalties_shrink_and_left_out_conditions_do_not_count():
    cells = screen()
    ridge = StandingRidge(cells)
    sizes = [np.abs(ridge.solve(perturbed(cells), strength=each, shared=False)[0]).sum() for each in RIDGE_STRENGTHS]
    assert (np.diff(sizes) < 0).all()
    moved = cells.levels.copy()
    moved[cells.condition == 5, 0] += 100.0
    other = Snapshot(moved, cells.condition, cells.names, cells.held, cells.regulators, cells.context)
    some = perturbed(cells)[:-1]
    found = StandingRidge(other).solve(some, strength=1.0, shared=False)[0]
    assert np.abs(found - ridge.solve(some, strength=1.0, shared=False)[0]).max() < 1e-6


def test_a_shared_shift_is_chosen_where_perturbations_have_one():
    cells = screen(shift=3.0)
    assert StandingRidge(cells).best(perturbed(cells))[1]
    levels = screen().levels
    levels[cells.condition == 5, 4] += 8.0  # what one of them does misleads about the others
    alone = Snapshot(levels, cells.condition, cells.names, cells.held, cells.regulators, cells.context)
    assert not StandingRidge(alone).best(perturbed(alone))[1]


def test_where_genes_were_held_in_pairs_only_pairs_are_predicted():
    cells = screen()
    held = cells.held.copy()
    held[1:, 5] = True
    pairs = Snapshot(cells.levels, cells.condition, cells.names, held, cells.regulators, cells.context)
    strength, _ = StandingRidge(pairs).best(perturbed(pairs))
    assert strength in RIDGE_STRENGTHS
