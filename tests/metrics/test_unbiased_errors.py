from __future__ import annotations

import numpy as np
import pytest

from perturbflow.metrics import Moments, Panel, pooled_unbiased_mse, unbiased_mse

G = 30


def cells(rng, mean, n=6, scale=1.0):
    return mean + scale * rng.normal(size=(n, G))


def panel(rng, *, n_conditions=5, effect=0.5, predicted_scale=1.0, n=6, error=0.0, targets=None, predict_control=False):
    shifts = effect * rng.normal(size=(n_conditions, G))
    centres = np.zeros_like(shifts) if predict_control else shifts + error
    return Panel(
        predicted=[Moments.of(cells(rng, centre, n, predicted_scale)) for centre in centres],
        observed=[Moments.of(cells(rng, shift, n)) for shift in shifts],
        control=Moments.of(cells(rng, 0.0, 40)),
        targets=targets,
    )


def exact(predicted, observed, control, targets=None):
    """Moments without sampling noise."""

    def without(means):
        return [Moments(1, np.asarray(m, dtype=float), np.zeros(len(m))) for m in means]

    return Panel(without(predicted), without(observed), without([control])[0], targets)


def sizes_of(panel_):
    """Squared sizes of the effects of the conditions, which are the units of their pooled errors."""
    targets = [None] * len(panel_) if panel_.targets is None else panel_.targets[:, None]
    alone = [
        Panel([x], [y], panel_.control, own)
        for x, y, own in zip(panel_.predicted, panel_.observed, targets, strict=True)
    ]
    return [unbiased_mse(one)[0] / pooled_unbiased_mse(one, capped=False) for one in alone]


def of_one(x, y):
    """The error of a single condition."""
    x, y = (one if isinstance(one, Moments) else Moments.of(one) for one in (x, y))
    return float(unbiased_mse(Panel([x], [y], y))[0])


def test_definition():
    rng = np.random.default_rng(0)
    x, y = cells(rng, 1.0, 7), cells(rng, 0.0, 4)
    plain = np.mean((x.mean(axis=0) - y.mean(axis=0)) ** 2)
    noise = np.mean(x.var(axis=0, ddof=1) / 7 + y.var(axis=0, ddof=1) / 4)
    assert of_one(x, y) == pytest.approx(plain - noise, abs=1e-12)
    assert of_one(Moments.of(x), y) == pytest.approx(plain - noise, abs=1e-12)


@pytest.mark.parametrize("n", [2, 20])
@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_unbiased_whatever_the_number_of_cells(n, shift):
    rng = np.random.default_rng(1)
    values = [of_one(cells(rng, shift, n), cells(rng, 0.0, 5)) for _ in range(600)]
    assert np.mean(values) == pytest.approx(shift**2, abs=4 * np.std(values) / np.sqrt(600))
    if shift == 0:
        assert 0.3 < np.mean(np.array(values) < 0) < 0.7  # an unbiased estimate of 0 lies on both sides


def test_uncapped_panel_is_the_metric_of_each_condition():
    panel_ = panel(np.random.default_rng(3))
    expected = [of_one(*pair) for pair in zip(panel_.predicted, panel_.observed, strict=True)]
    np.testing.assert_allclose(unbiased_mse(panel_), expected, atol=1e-12)
    sizes = [of_one(observed, panel_.control) for observed in panel_.observed]
    np.testing.assert_allclose(sizes_of(panel_), sizes, rtol=1e-9)
    pooled = pooled_unbiased_mse(panel_, capped=False)
    assert pooled == pytest.approx(sum(expected) / sum(sizes), abs=1e-12)


def test_targets_are_left_out_of_error_and_noise():
    rng = np.random.default_rng(4)
    targets = np.zeros((5, G), dtype=bool)
    targets[np.arange(5), [3, 3, 8, 9, 10]] = True
    panel_ = panel(rng, targets=targets)

    def without(moments, p):
        return Moments(moments.n_cells, moments.mean[~targets[p]], moments.variance[~targets[p]])

    expected = [of_one(without(panel_.predicted[p], p), without(panel_.observed[p], p)) for p in range(5)]
    np.testing.assert_allclose(unbiased_mse(panel_), expected, atol=1e-12)
    sizes = [of_one(without(panel_.observed[p], p), without(panel_.control, p)) for p in range(5)]
    np.testing.assert_allclose(sizes_of(panel_), sizes, rtol=1e-9)


def test_targets_do_not_change_the_capped_error():
    rng = np.random.default_rng(5)
    targets = np.eye(5, G, dtype=bool)
    panel_ = panel(rng, effect=0.0, predicted_scale=3.0, targets=targets)
    moved = [
        Moments(m.n_cells, m.mean + 100 * row, m.variance + 7 * row)
        for m, row in zip(panel_.predicted, targets, strict=True)
    ]
    found = unbiased_mse(Panel(moved, panel_.observed, panel_.control, targets), capped=True)
    np.testing.assert_allclose(found, unbiased_mse(panel_, capped=True), atol=1e-12)


def test_dispersion_does_not_pay():
    rng = np.random.default_rng(6)
    panel_ = panel(rng, effect=2.0)
    spread = [Moments(m.n_cells, m.mean, 50 * m.variance) for m in panel_.predicted]
    wide = Panel(spread, panel_.observed, panel_.control)
    assert (unbiased_mse(wide) < unbiased_mse(panel_) - 1).all()
    observed_noise = [m.variance.mean() / m.n_cells for m in panel_.observed]
    expected = unbiased_mse(panel_) + [m.variance.mean() / m.n_cells for m in panel_.predicted] - observed_noise
    np.testing.assert_allclose(unbiased_mse(wide, capped=True), expected, atol=1e-12)


def test_one_prediction_for_all_conditions_earns_no_correction():
    rng = np.random.default_rng(7)
    panel_ = panel(rng)
    same = Panel([panel_.predicted[0]] * 5, panel_.observed, panel_.control)
    noise = panel_.predicted[0].variance.mean() / 6
    np.testing.assert_allclose(unbiased_mse(same, capped=True), unbiased_mse(same) + noise, atol=1e-12)


def test_conditions_weigh_by_their_scored_genes_where_the_correction_is_bounded():
    targets = np.zeros((5, G), dtype=bool)
    targets[0, :25] = True  # five genes are left
    panel_ = panel(np.random.default_rng(10), effect=0.0, predicted_scale=0.7, targets=targets)
    n_genes = (~targets).sum(axis=1)
    predicted, observed = (
        np.array([float((m.variance / m.n_cells)[~own].sum()) for m, own in zip(side, targets, strict=True)])
        for side in (panel_.predicted, panel_.observed)
    )
    lower = np.minimum(predicted, observed)
    spread = 0.0
    for gene in range(G):
        rows = np.flatnonzero(~targets[:, gene])
        means, weights = np.array([panel_.predicted[p].mean[gene] for p in rows]), 1 / n_genes[rows]
        spread += weights @ np.square(means - np.average(means, weights=weights))
    share = spread / (lower / n_genes).sum()
    assert share < 1
    expected = unbiased_mse(panel_) + (predicted - share * lower) / n_genes
    np.testing.assert_allclose(unbiased_mse(panel_, capped=True), expected, atol=1e-12)


def test_caps_do_not_bind_where_conditions_differ_and_cells_are_as_noisy_as_observed():
    panel_ = panel(np.random.default_rng(8), effect=3.0)
    quiet = [Moments(m.n_cells, m.mean, 0.1 * m.variance) for m in panel_.predicted]
    panel_ = Panel(quiet, panel_.observed, panel_.control)
    np.testing.assert_allclose(unbiased_mse(panel_, capped=True), unbiased_mse(panel_), atol=1e-12)


def test_pooled_error_of_known_predictions():
    rng = np.random.default_rng(9)
    right = panel(rng, n_conditions=40, n=20)
    silent = panel(rng, n_conditions=40, n=20, predict_control=True)
    assert pooled_unbiased_mse(right) == pytest.approx(0, abs=0.05)
    assert pooled_unbiased_mse(silent) == pytest.approx(1, abs=0.1)
    effects = [[1.0, 0.0], [0.0, 2.0]]
    exaggerated = exact([[2.0, 0.0], [0.0, 4.0]], effects, [0.0, 0.0])
    assert pooled_unbiased_mse(exaggerated) == 1.0
    assert pooled_unbiased_mse(exact(effects, effects, [0.0, 0.0])) == 0.0


def test_undefined_conditions_do_not_count():
    only_target = np.array([[True, True], [False, False]])
    panel_ = exact([[9.0, 9.0], [1.0, 0.0]], [[1.0, 1.0], [2.0, 0.0]], [0.0, 0.0], only_target)
    np.testing.assert_array_equal(unbiased_mse(panel_, capped=True), [np.nan, 0.5])
    assert pooled_unbiased_mse(panel_) == 0.25
    assert np.isnan(pooled_unbiased_mse(exact([[1.0]], [[0.0]], [0.0])))


def test_bad_input():
    rng = np.random.default_rng(10)
    with pytest.raises(
        ValueError, match="variance for every gene in `predicted`, found NaN with 1 cells. Pass at least 2"
    ):
        of_one(np.ones((1, 2)), np.ones((2, 2)))
    panel_ = panel(rng)
    with pytest.raises(ValueError, match="found 4 predicted conditions"):
        unbiased_mse(Panel(panel_.predicted[:4], panel_.observed, panel_.control))
    with pytest.raises(ValueError, match=r"boolean `targets` of shape \(5, 30\) .*, found bool of shape \(5, 2\)"):
        pooled_unbiased_mse(Panel(panel_.predicted, panel_.observed, panel_.control, np.zeros((5, 2), dtype=bool)))
