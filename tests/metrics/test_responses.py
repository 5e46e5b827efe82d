"""Metrics of who responds and what rises together."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from perturbflow.metrics import (
    classifier_auroc,
    energy_distance,
    energy_in_programs,
    error_of_responders,
    error_of_response_correlation,
)

RESPONSES = [error_of_responders, error_of_response_correlation, energy_in_programs]
N_GENES = 12


def mixture(n, fraction, *, seed, shift=4.0, n_responding=6):
    """Cells of which a fraction is shifted in some genes."""
    rng = np.random.default_rng(seed)
    cells = rng.normal(size=(n, N_GENES))
    cells[: round(fraction * n), :n_responding] += shift
    return cells[rng.permutation(n)]


def shuffled(cells, seed=0):
    """The same values of every gene, in an order of its own."""
    rng = np.random.default_rng(seed)
    return np.column_stack([rng.permutation(values) for values in cells.T])


CONTROL = mixture(800, 0.0, seed=0)


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.9])
def test_error_is_the_difference_of_the_fractions_of_the_mixtures(fraction):
    real = mixture(1000, fraction, seed=1)
    assert error_of_responders(real, real, CONTROL) == 0
    assert error_of_responders(CONTROL, real, CONTROL) == pytest.approx(fraction, abs=0.02)
    # Other cells are scored along the direction of the real ones.
    found = error_of_responders(mixture(1000, 0.3, seed=2), real, CONTROL)
    assert found == pytest.approx(abs(fraction - 0.3), abs=0.03)


def test_correlation_of_a_mixture_is_that_of_its_means():
    real = mixture(4000, 0.5, seed=1)
    # Between genes with a variance of 1 in both halves and means 4 apart: 4 / (4 + 1).
    assert error_of_response_correlation(real, real, CONTROL, n_top=6) == 0
    assert error_of_response_correlation(shuffled(real), real, CONTROL, n_top=6) == pytest.approx(0.8, abs=0.02)


def test_genes_that_fall_respond_together_with_those_that_rise():
    real = mixture(1000, 0.5, seed=1)
    flipped = np.where(np.arange(N_GENES) < 3, -1.0, 1.0)
    found = error_of_response_correlation(shuffled(real) * flipped, real * flipped, CONTROL * flipped, n_top=6)
    assert found == pytest.approx(error_of_response_correlation(shuffled(real), real, CONTROL, n_top=6))


def test_energy_in_programs_sees_what_marginals_hide():
    real, again = mixture(500, 0.4, seed=1), mixture(500, 0.4, seed=2)
    assert abs(energy_in_programs(again, real, CONTROL)) < 0.01
    assert energy_in_programs(shuffled(real), real, CONTROL) > 0.1
    assert energy_in_programs(CONTROL, real, CONTROL) > 0.3


def test_energy_in_programs_does_not_depend_on_the_units_of_genes():
    real, predicted = mixture(200, 0.4, seed=1), mixture(150, 0.6, seed=2)
    units = np.random.default_rng(0).uniform(0.5, 2, N_GENES)
    expected = energy_in_programs(predicted, real, CONTROL)
    assert energy_in_programs(predicted * units, real * units, CONTROL * units) == pytest.approx(expected)


def welch(real, control):
    """t and standard deviation of every gene; t is 0 where a gene varies on neither side."""
    sides = [one.var(axis=0, ddof=1) for one in (real, control)]
    error = np.sqrt(sides[0] / len(real) + sides[1] / len(control))
    change = real.mean(axis=0) - control.mean(axis=0)
    varies = error > 1e-12
    return np.where(varies, change / np.where(varies, error, 1), 0), np.sqrt(sum(sides) / 2), change


def fisher(real, control):
    """Weights of genes: the change over the variance, of those with a t beyond 2, or of the five most changed ones."""
    t, deviation, change = welch(real, control)
    fifth = np.sort(np.abs(t))[-min(5, len(t))]
    counts = (np.abs(t) >= min(2.0, fifth)) & (t != 0)
    weights = np.where(counts, change / np.where(counts, deviation, 1) ** 2, 0)
    return weights / (weights @ change)


def skewed(n, n_genes, *, seed, shift=0.0):
    """Cells whose genes have scales of their own; the last never varies."""
    rng = np.random.default_rng(seed)
    cells = rng.gamma(1.0, np.linspace(0.2, 3, n_genes), size=(n, n_genes)) + shift * (np.arange(n_genes) % 3 - 1)
    cells[:, -1] = 0.3
    return cells


@pytest.mark.parametrize("level", [0.95, 0.8])
@pytest.mark.parametrize(("n_genes", "shift"), [(20, 0.5), (20, 0.02), (4, 0.02), (20, -0.3)])
def test_fractions_of_responders_by_their_definition(n_genes, shift, level):
    control, real = skewed(60, n_genes, seed=0), skewed(45, n_genes, seed=1, shift=shift)
    predicted = skewed(50, n_genes, seed=2, shift=2 * shift)
    weights = fisher(real, control)

    def fraction(cells):
        above = (cells @ weights > np.quantile(control @ weights, level)).mean()
        return max((above - (1 - level)) / level, 0)

    expected = abs(fraction(predicted) - fraction(real))
    assert error_of_responders(predicted, real, control, level=level) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("n_top", [2, 3, 7, 30])
def test_mean_correlation_by_its_definition(n_top):
    control, real, predicted = (skewed(40, 12, seed=seed, shift=0.4 * (seed > 0)) for seed in range(3))
    predicted[:, 2] = 1.7  # uncorrelated, as it never varies
    t, *_ = welch(real, control)
    genes = [gene for gene in np.argsort(-np.abs(t)) if t[gene] != 0][:n_top]

    def mean_correlation(cells):
        pairs = [(g, h) for g in genes for h in genes if g < h]
        values = [
            0
            if 0 in cells[:, [g, h]].std(axis=0).round(9)
            else np.corrcoef(cells[:, g], cells[:, h])[0, 1] * np.sign(t[g] * t[h])
            for g, h in pairs
        ]
        return np.mean(values)

    expected = abs(mean_correlation(predicted) - mean_correlation(real))
    assert error_of_response_correlation(predicted, real, control, n_top=n_top) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("n_genes", "n_programs", "noise"), [(130, 7, 1.0), (40, 2, 1.0), (40, 0, 1.0), (12, 1, 0.1)])
def test_the_space_of_programs_by_its_definition(n_genes, n_programs, noise):
    """Distances along the change and along components that vary more than those of independent genes."""
    rng = np.random.default_rng(3)
    genes, scale = rng.normal(size=(n_programs, n_genes)), rng.uniform(0.5, 2, n_genes)

    def cells(n, shift):
        levels = rng.normal(size=(n, n_programs)) * np.linspace(1.5, 0.5, n_programs)
        return scale * (levels @ genes + noise * rng.normal(size=(n, n_genes)) + shift * np.sin(np.arange(n_genes)))

    control, real, predicted = cells(90, 0.0), cells(150, 1.0), cells(110, 0.8)
    t, deviation, _ = welch(real, control)
    top = np.argsort(-np.abs(t))[:100]
    scaled = real[:, top] / deviation[top]
    variances, components = np.linalg.eigh(np.cov(scaled.T, ddof=0))
    most = np.argsort(-variances)[:5]
    kept = most[variances[most] > (1 + np.sqrt(len(top) / len(real))) ** 2]
    axis = fisher(real, control)[top] * deviation[top]
    directions = np.column_stack([axis, components[:, kept]])
    assert len(kept) == min(n_programs, 5)
    x, y = (side[:, top] / deviation[top] @ directions for side in (predicted, real))
    expected = energy_distance(x / y.std(axis=0), y / y.std(axis=0))
    assert energy_in_programs(predicted, real, control) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("metric", RESPONSES)
def test_without_a_difference_there_is_no_response(metric):
    constant = np.ones((5, 3))
    assert np.isnan(metric(mixture(5, 0.5, seed=0)[:, :3], constant, constant))


def test_a_classifier_tells_what_is_different():
    real, again = mixture(400, 0.4, seed=1), mixture(300, 0.4, seed=2)
    assert classifier_auroc(again, real) == pytest.approx(0.5, abs=0.05)
    assert classifier_auroc(shuffled(real), real) > 0.6
    assert classifier_auroc(real + 20, real) == 1
    assert classifier_auroc(np.concatenate([real, real]), real) < 0.5
    assert np.isnan(classifier_auroc(np.ones((3, 2)), np.ones((4, 2))))


def test_a_classifier_takes_some_of_many_cells():
    many = np.random.default_rng(0).normal(size=(2500, 3))
    assert classifier_auroc(many, many[:100] + 9) == 1


@pytest.mark.parametrize("metric", RESPONSES)
def test_control_cells_are_checked(metric):
    real = mixture(20, 0.5, seed=0)
    with pytest.raises(ValueError, match="finite values in `control`"):
        metric(real, real, np.full((3, N_GENES), np.nan))
    with pytest.raises(ValueError, match="Expected the same genes in .*'control': 2"):
        metric(real, real, real[:, :2])
    with pytest.raises(ValueError, match="Expected at least 2 cells and 1 gene in `control`"):
        metric(real, real, real[:1])


@pytest.mark.parametrize("metric", RESPONSES)
def test_sparse_cells_are_the_same(metric):
    real, predicted, control = (
        np.maximum(cells, 0) for cells in (mixture(60, 0.5, seed=0), mixture(50, 0.2, seed=1), CONTROL)
    )
    expected = metric(predicted, real, control)
    found = metric(*(sparse.csr_matrix(cells) for cells in (predicted, real, control)))
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("level", [0, 1, -0.5])
def test_bad_level(level):
    with pytest.raises(ValueError, match="Expected `level` between 0 and 1"):
        error_of_responders(CONTROL, CONTROL, CONTROL, level=level)


def test_too_few_genes():
    with pytest.raises(ValueError, match="Expected `n_top` to be at least 2, found 1"):
        error_of_response_correlation(CONTROL, CONTROL, CONTROL, n_top=1)
