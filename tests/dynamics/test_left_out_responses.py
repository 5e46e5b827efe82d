"""Responses by dynamics that saw no perturbation of the gene."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from perturbflow.dynamics import Snapshot, fit_standing, left_out_responses

EFFECT = 0.7  # of gene 0 on gene 1, in a star whose genes 0, 2, 3 and 4 drive gene 1


@pytest.fixture(scope="module")
def star():
    """Cells of a star, unperturbed and with each of its four regulators held two below its mean."""
    rng = np.random.default_rng(0)
    sources = [0, 2, 3, 4]
    levels, condition, held = [], [], np.zeros((5, 5), dtype=bool)
    for number in range(5):
        cells = rng.normal(size=(600, 5))
        if number:
            held[number, sources[number - 1]] = True
            cells[:, sources[number - 1]] = -2.0
        cells[:, 1] += cells[:, sources] @ [EFFECT, -0.5, 0.4, 0.0]
        levels.append(cells)
        condition += [number] * 600
    names = ("control", "0", "2", "3", "4")
    return Snapshot(
        np.concatenate(levels), np.array(condition), names, held, (0, 2, 3, 4), np.zeros(len(condition), dtype=int)
    )


def test_a_response_is_the_effect_of_the_gene_on_others(star):
    found = left_out_responses(star, [{0: -2.0}, {2: -2.0}, {4: -2.0}])
    expected = np.array([EFFECT * -2.0, 1.0, 0.0]) / star.scale[1]
    np.testing.assert_allclose(found[:, 1], expected, atol=0.25)
    assert np.abs(np.delete(found, 1, axis=1)).max() < 0.25
    assert (found[[0, 1, 2], [0, 2, 4]] == 0).all()  # the held genes themselves


def test_what_its_own_perturbation_did_does_not_count(star):
    changed = star.levels.copy()
    changed[star.condition == 1, 1] += 100.0
    other = Snapshot(changed, star.condition, star.names, star.held, star.regulators, star.context)
    np.testing.assert_array_equal(left_out_responses(other, [{0: -2.0}]), left_out_responses(star, [{0: -2.0}]))
    assert fit_standing(other).hold({0: -2.0})[0][1] > 50  # but it is what a fit to it reproduces


def test_genes_that_nothing_held_are_simulated_by_the_fit_to_everything(star):
    found = left_out_responses(star, [{1: 3.0}])
    model = replace(fit_standing(star), shared=np.zeros(5))
    expected = (model.hold({1: 3.0})[0] - model.centre) / model.scale
    expected[1] = 0.0
    np.testing.assert_array_equal(found[0], expected)


def test_several_genes_are_all_left_out(star):
    together = left_out_responses(star, [{0: -2.0, 2: -2.0}])[0]
    alone = left_out_responses(star, [{0: -2.0}, {2: -2.0}])
    assert together[1] == pytest.approx(alone[:, 1].sum(), abs=0.3)
    assert left_out_responses(star, []).shape == (0, 5)
