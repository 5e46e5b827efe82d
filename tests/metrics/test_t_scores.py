from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import sparse, stats

from perturbflow.metrics import Moments, r2_of_scores
from perturbflow.metrics._t_scores import t_statistics


def scores(cells, control):
    return t_statistics(*(one if isinstance(one, Moments) else Moments.of(one) for one in (cells, control)))


def with_scores(*values):
    """Moments of 4 cells whose t-scores against `CONTROL` are these."""
    return Moments(4, np.array(values, dtype=float) / 2, np.zeros(len(values)))


CONTROL = Moments(9, np.zeros(3), np.ones(3))


def test_scores_are_those_of_welch_with_as_many_controls():
    rng = np.random.default_rng(0)
    cells, control = rng.gamma(1.0, size=(12, 30)), rng.gamma(1.3, size=(50, 30))
    expected = stats.ttest_ind_from_stats(
        cells.mean(0), cells.std(0, ddof=1), 12, control.mean(0), control.std(0, ddof=1), 12, equal_var=False
    )
    assert scores(cells, control) == pytest.approx(expected.statistic, rel=1e-10)


def test_genes_without_variance_have_no_score():
    cells, control = np.tile([0.0, 0.1, 0.7], (7, 1)), np.tile([0.0, 0.1, 0.3], (11, 1))
    assert scores(cells, control).tolist() == [0, 0, 0]


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
def test_what_rounding_leaves_of_a_constant_gene_is_no_variance_in_any_unit(unit):
    def moments(means, deviation):
        return Moments(4, unit * np.array(means), np.full(2, (unit * deviation) ** 2))

    assert scores(moments([3.0, 1.0], 1e-10), moments([1.0, 3.0], 1e-10)).tolist() == [0, 0]
    expected = 2 / (np.sqrt(2) * 1e-7) * np.sqrt(4)
    assert scores(moments([3.0, 1.0], 1e-7), moments([1.0, 3.0], 1e-7)) == pytest.approx([expected, -expected])


def test_a_prediction_without_spread_has_scores():
    control = np.random.default_rng(2).gamma(1.0, size=(20, 1))
    assert scores(np.tile(control.mean() + 1, (16, 1)), control) == pytest.approx(4 / control.std(ddof=1))


def test_r2_by_hand():
    predicted, observed = with_scores(0, 1, 3), with_scores(0, 1, 2)
    assert r2_of_scores(predicted, observed, CONTROL) == pytest.approx(1 - 1 / 2)
    assert r2_of_scores(predicted, observed, CONTROL, relative_to="predicted") == pytest.approx(1 - 1 / (14 / 3))
    assert r2_of_scores(with_scores(1, 1, 1), observed, CONTROL) == 0
    assert r2_of_scores(observed, observed, CONTROL) == 1


def test_exaggeration_is_punished_relative_to_the_observed_alone():
    wrong, observed = with_scores(1e3, 0, -1e3), with_scores(-1, 0, 1)
    assert r2_of_scores(wrong, observed, CONTROL) < -1e5
    assert abs(r2_of_scores(wrong, observed, CONTROL, relative_to="predicted")) < 0.01


def test_moments_serve_as_cells():
    rng = np.random.default_rng(1)
    x, y, control = (rng.poisson(rate, size=(n, 20)) * 1.0 for rate, n in ((0.5, 9), (0.6, 12), (0.7, 30)))
    expected = r2_of_scores(x, y, control)
    assert r2_of_scores(sparse.csr_matrix(x), Moments.of(y), Moments.of(control)) == pytest.approx(expected, rel=1e-9)


def test_r2_edge_cases():
    constant, varied = with_scores(2, 2, 2), with_scores(0, 1, 2)
    assert math.isnan(r2_of_scores(varied, constant, CONTROL))
    assert math.isnan(r2_of_scores(constant, varied, CONTROL, relative_to="predicted"))
    with pytest.raises(ValueError, match="relative_to"):
        r2_of_scores(varied, varied, CONTROL, relative_to="both")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="same genes"):
        r2_of_scores(varied, with_scores(0, 1), CONTROL)
    with pytest.raises(ValueError, match="at least 2 cells in `x`"):
        r2_of_scores(np.ones((1, 3)), varied, CONTROL)
