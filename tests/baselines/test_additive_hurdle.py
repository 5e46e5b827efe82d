from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from perturbflow.baselines import AdditiveHurdle, Sampler, ShiftedControls
from perturbflow.flow import AdditiveHurdlePrior, CellData

N_GENES, N_CELLS = 30, 3000
BOTH = [AdditiveHurdle, ShiftedControls]
SINGLES, PAIR, NONE = np.eye(2, dtype=np.float32), np.ones(2, dtype=np.float32), np.zeros(2, dtype=np.float32)
CODES = np.zeros(1, dtype=int)


def share_at(angle):
    return np.sin(np.clip(angle, 0, np.pi) / 2) ** 2


def hurdle_cells(rng, angle, mean, n=N_CELLS):
    expressed = rng.random((n, N_GENES)) < share_at(angle)
    return np.where(expressed, mean + 0.3 * rng.standard_normal((n, N_GENES)), 0).astype(np.float32)


class Screen:
    """Controls and two single perturbations with additive effects; in the controls genes 0 and 1 are one."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.angle, self.mean = rng.uniform(1.0, 2.1, N_GENES), rng.uniform(1.5, 3.0, N_GENES)
        self.effects, self.shifts = rng.normal(0, 0.25, (2, N_GENES)), rng.normal(0, 0.2, (2, N_GENES))
        self.controls = hurdle_cells(rng, self.angle, self.mean)
        self.controls[:, 1] = self.controls[:, 0]
        parts = [self.controls]
        parts += [
            hurdle_cells(rng, self.angle + e, self.mean + s) for e, s in zip(self.effects, self.shifts, strict=True)
        ]
        self.x = np.concatenate(parts)
        self.doses = np.repeat(np.stack([NONE, *SINGLES]), N_CELLS, axis=0)

    def data(self, container=np.asarray):
        return CellData(container(self.x), self.doses, np.zeros((len(self.x), 1), dtype=int))


SCREEN = Screen()


def predict(baseline, doses, controls=None, *, seed=0, codes=CODES):
    controls = SCREEN.controls if controls is None else controls
    return baseline.sample(controls, doses, codes, rng=np.random.default_rng(seed))


@pytest.mark.parametrize("baseline", BOTH)
def test_protocol(baseline):
    fitted: Sampler = baseline()
    assert fitted.fit(SCREEN.data()) is fitted
    before = SCREEN.controls.copy()
    cells = predict(fitted, SINGLES[0])
    assert cells.shape == SCREEN.controls.shape
    assert cells.dtype == np.float32
    assert (cells >= 0).all()
    assert (predict(fitted, SINGLES[0]) == cells).all()
    assert not np.array_equal(predict(fitted, SINGLES[0], seed=1), cells)
    assert (SCREEN.controls == before).all()
    assert predict(fitted, SINGLES[0], SCREEN.controls[:0]).shape == (0, N_GENES)


@pytest.mark.parametrize("baseline", BOTH)
@pytest.mark.parametrize("doses", [NONE, *SINGLES])
def test_marginals_of_training_conditions(baseline, doses):
    cells = predict(baseline().fit(SCREEN.data()), doses)
    real = SCREEN.x[(SCREEN.doses == doses).all(1)]
    p = (real > 0).mean(0)
    assert (np.abs((cells > 0).mean(0) - p) < 4 * np.sqrt(2 * p * (1 - p) / N_CELLS)).all()
    mean, real_mean = (a.sum(0) / (a > 0).sum(0) for a in (cells, real))
    assert (np.abs(mean - real_mean) < 4 * 0.45 * np.sqrt(2 / (N_CELLS * p))).all()  # pooled s.d. below 0.45


@pytest.mark.parametrize("baseline", BOTH)
def test_effects_of_a_combination_add_on_the_scale_of_angles(baseline):
    cells = predict(baseline().fit(SCREEN.data()), PAIR)[:, 2:]
    truth = share_at(SCREEN.angle + SCREEN.effects.sum(0))[2:]
    assert np.sqrt(np.mean(((cells > 0).mean(0) - truth) ** 2)) < 0.03
    mean = cells.sum(0) / (cells > 0).sum(0)
    assert np.sqrt(np.mean((mean - (SCREEN.mean + SCREEN.shifts.sum(0))[2:]) ** 2)) < 0.04


def test_only_moved_controls_carry_dependence():
    kept, drawn = (
        np.corrcoef(predict(b().fit(SCREEN.data()), NONE)[:, :2].T)[0, 1] for b in (ShiftedControls, AdditiveHurdle)
    )
    assert kept > 0.99
    assert abs(drawn) < 4 / np.sqrt(N_CELLS)


def test_moved_controls_without_a_perturbation_stay():
    moved = predict(ShiftedControls().fit(SCREEN.data()), NONE)
    np.testing.assert_allclose(moved.mean(0), SCREEN.controls.mean(0), atol=0.01)
    assert ((moved > 0) == (SCREEN.controls > 0)).mean() > 0.999
    both = (moved > 0) & (SCREEN.controls > 0)
    assert np.abs(moved - SCREEN.controls)[both].max() < 0.01


def test_genes_are_drawn_from_the_prior_of_the_flow():
    prior = AdditiveHurdlePrior.fit(SCREEN.data())
    distribution = prior.distribution(PAIR, prior.context(CODES))
    expected = prior.sample(distribution, N_CELLS, rng=np.random.default_rng(0))
    assert (predict(AdditiveHurdle().fit(SCREEN.data()), PAIR) == expected).all()


@pytest.mark.parametrize("baseline", BOTH)
@pytest.mark.parametrize("container", [sparse.csr_matrix, sparse.csr_array])
def test_sparse_cells(baseline, container):
    dense, other = (predict(baseline().fit(SCREEN.data(c)), PAIR) for c in (np.asarray, container))
    assert ((dense > 0) == (other > 0)).mean() > 0.9999  # a draw may fall between two roundings of a probability
    both = (dense > 0) & (other > 0)
    np.testing.assert_allclose(dense[both], other[both], atol=1e-4)


@pytest.mark.parametrize("baseline", BOTH)
def test_a_new_context_starts_from_its_own_controls(baseline):
    rng = np.random.default_rng(1)
    controls = hurdle_cells(rng, SCREEN.angle + 0.3, SCREEN.mean)
    cells = predict(baseline().fit(SCREEN.data()), SINGLES[0], controls, codes=np.array([7]))
    truth = share_at(SCREEN.angle + 0.3 + SCREEN.effects[0])
    assert np.sqrt(np.mean(((cells > 0).mean(0) - truth) ** 2)) < 0.045


@pytest.mark.parametrize("baseline", BOTH)
def test_unfitted(baseline):
    with pytest.raises(RuntimeError, match=f"fitted {baseline.__name__}. Call `fit` first"):
        predict(baseline(), PAIR)


@pytest.mark.parametrize("baseline", BOTH)
@pytest.mark.parametrize(
    ("controls", "doses"),
    [
        pytest.param(SCREEN.controls[:, :5], PAIR, id="genes"),
        pytest.param(SCREEN.controls[0], PAIR, id="one_dimension"),
        pytest.param(SCREEN.controls, np.ones(3, dtype=np.float32), id="components"),
    ],
)
def test_cells_of_another_kind(baseline, controls, doses):
    expected = r"Expected `(controls|perturbation)` to have shape .*, as in the training cells, found"
    with pytest.raises(ValueError, match=expected):
        predict(baseline().fit(SCREEN.data()), doses, controls)


@pytest.mark.parametrize("baseline", BOTH)
def test_a_context_without_controls(baseline):
    cells = SCREEN.data()
    lacking = CellData(cells.x, cells.perturbations, np.arange(len(cells))[:, None] // (2 * N_CELLS))
    with pytest.raises(ValueError, match=r"control cells in every context, found none with covariate codes \[1\]"):
        baseline().fit(lacking)
