from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm, t

from perturbflow.datasets import simulated_perturb_seq
from perturbflow.evaluation import registered_cells
from perturbflow.flow import (
    KINDS,
    AdditiveHurdlePrior,
    Calibration,
    CellData,
    GroupSums,
    condition_kind,
    mean_expression,
)
from perturbflow.flow import _cross_validation as cross_validation
from perturbflow.flow._calibration import _DEGREES, _SCALES, _WIDTHS, _estimate, _quantiles, _t_mixtures
from perturbflow.flow._cross_validation import HeldOutPrediction, cross_validate, parts_that_tell
from perturbflow.flow._prior_fit import fit_hurdle
from perturbflow.pp import setup_perturbation

LEVELS = (0.5, 0.8, 0.9)
FEW = {"n_genes": 30, "n_perturbations": 6, "n_combinations": 8}


def screen(seed, n_cells, **options):
    settings = {"n_genes": 100, "n_perturbations": 16, "n_combinations": 20, "control_fraction": 0.15} | options
    adata = simulated_perturb_seq(n_cells=n_cells, seed=seed, **settings)
    setup_perturbation(adata, perturbation_key="perturbation", control="control", covariate_keys=["cell_type"])
    return registered_cells(adata)


def predictions(n, *, scale, rng, noise=1.0, offset=0.0, n_genes=400):
    """Errors that are normal with ``scale`` times the stated deviation around ``offset``, seen through noise."""
    made = []
    for condition in range(n):
        sd = rng.uniform(0.5, 2.0, n_genes)
        predicted = rng.uniform(5, 6, n_genes)
        truth = predicted + sd * (offset + scale * rng.standard_normal(n_genes))
        observed = truth + np.sqrt(noise) * rng.standard_normal(n_genes)
        made.append(HeldOutPrediction("unseen", condition, 0, observed, np.full(n_genes, noise), predicted, sd))
    return made


def calibration(made):
    by_kind = {kind: [each for each in made if each.kind == kind] for kind in KINDS}
    return Calibration(**_estimate(by_kind, np.random.default_rng(0)))


@pytest.mark.parametrize(("scale", "offset"), [(1.0, 0.0), (0.4, 0.0), (3.0, 0.0), (1.0, 1.0)])
def test_size_of_errors_is_found_through_the_noise(scale, offset):
    found = calibration(predictions(20, scale=scale, offset=offset, rng=np.random.default_rng(0)))
    sd = np.array([0.6, 1.0, 1.9])
    # Errors far below the noise of the observed means hardly show: there the prior is believed in part.
    tolerance = 0.15 if scale >= 1 else 0.3
    np.testing.assert_allclose(found.factor("unseen", sd), np.hypot(scale, offset), rtol=tolerance)
    lower, upper = found.interval(np.full(3, 50.0), sd, kind="unseen", level=0.9)
    np.testing.assert_allclose((lower + upper) / 2, 50 + offset * sd, atol=0.2 * max(scale, 1) * sd.max())
    np.testing.assert_allclose(upper - lower, 2 * norm.ppf(0.95) * scale * sd, rtol=tolerance + 0.05)


def test_a_single_gene_says_nothing_of_the_mean_error():
    """Its errors go together, whatever the number of conditions: sizes are learned, an offset is not."""
    rng, sd = np.random.default_rng(0), np.ones(1)
    found = calibration(predictions(300, scale=2, offset=1, noise=0.01, n_genes=1, rng=rng))
    lower, upper = found.interval(np.full(1, 50.0), sd, kind="unseen", level=0.9)
    np.testing.assert_allclose((lower + upper) / 2, 50, rtol=1e-6)
    assert np.isfinite(found.factor("unseen", sd)).all()


def test_errors_that_noise_hides_are_believed_to_be_as_stated():
    """Genes with the same error in every condition, and noise far above it: no width can be read from them."""
    rng, made = np.random.default_rng(0), []
    sd, error = np.full(200, 0.05), 0.05 * rng.standard_normal(200)
    for condition in range(12):
        observed = 2 + error + 0.5 * rng.standard_normal(200)
        made.append(HeldOutPrediction("seen", condition, 0, observed, np.full(200, 0.25), np.full(200, 2.0), sd))
    lower, upper = calibration(made).interval(np.full(200, 2.0), sd, kind="seen", level=0.9)
    np.testing.assert_allclose(upper - lower, 2 * norm.ppf(0.95) * sd, rtol=0.3)
    assert ((lower <= 2 + error) & (2 + error <= upper)).mean() == pytest.approx(0.9, abs=0.07)


def test_independent_errors_have_no_codependence_and_common_ones_have():
    rng = np.random.default_rng(1)
    made = predictions(30, scale=1.0, rng=rng)
    assert calibration(made).codependence[KINDS.index("unseen")] < 1.5
    common = []
    for each in made:
        shift = each.sd * rng.standard_normal() * np.sign(each.predicted - 5.5)  # one error for all genes
        observed = each.predicted + shift + 0.1 * rng.standard_normal(len(each.sd))
        noise = np.full(len(each.sd), 0.01)
        common.append(HeldOutPrediction("unseen", each.condition, 0, observed, noise, each.predicted, each.sd))
    assert calibration(common).codependence[KINDS.index("unseen")] > 5


def test_without_conditions_the_prior_is_believed():
    mean, sd = np.full(3, 10.0), np.array([0.1, 0.5, 1.0])
    for kind in KINDS:
        lower, upper = Calibration.uncalibrated().interval(mean, sd, kind=kind, level=0.95)
        np.testing.assert_allclose(upper - mean, norm.ppf(0.975) * sd, rtol=1e-6)
        np.testing.assert_allclose(mean - lower, norm.ppf(0.975) * sd, rtol=1e-6)


def test_a_kind_without_conditions_takes_the_next_harder_one():
    made = predictions(10, scale=3.0, rng=np.random.default_rng(0))
    found = calibration(made)
    assert found.n_conditions.tolist() == [0, 0, 0, 0, 10]
    np.testing.assert_array_equal(found.weights[0], found.weights[4])
    easier = [HeldOutPrediction("seen", e.condition, 0, e.observed, e.noise, e.predicted, e.sd) for e in made]
    np.testing.assert_array_equal(calibration(easier).weights[4], calibration(easier).weights[0])


def test_mixtures_are_t_distributions():
    families = _t_mixtures().reshape(len(_WIDTHS), len(_DEGREES), -1)
    np.testing.assert_allclose(families.sum(axis=-1), 1)
    for level in LEVELS:
        found = _quantiles(families[len(_WIDTHS) // 2], _SCALES, level)  # width 1
        np.testing.assert_allclose(found[1:], t.ppf((1 + level) / 2, _DEGREES)[1:], rtol=0.03)


def test_quantiles_are_those_of_the_mixture():
    weights, scales = np.array([[1.0, 0.0], [0.5, 0.5]]), np.array([1.0, 3.0])
    found = _quantiles(weights, scales, 0.8)
    assert found[0] == pytest.approx(norm.ppf(0.9))
    assert 0.5 * (norm.cdf(found[1]) + norm.cdf(found[1] / 3)) == pytest.approx(0.9)


def test_bounds_are_ordered_nested_and_not_negative():
    found = calibration(predictions(10, scale=1.0, rng=np.random.default_rng(0)))
    mean, sd = np.array([0.0, 1.0, 5.0]), np.array([0.5, 1.0, 2.0])
    narrow, wide = (found.interval(mean, sd, kind="unseen", level=level) for level in (0.5, 0.95))
    assert (wide[0] <= narrow[0]).all()
    assert (narrow[0] <= narrow[1]).all()
    assert (narrow[1] < wide[1]).all()
    assert (wide[0] >= 0).all()


@pytest.mark.parametrize("level", [0.0, 1.0, 1.5])
def test_level_must_be_a_probability(level):
    with pytest.raises(ValueError, match=r"Expected `level` to be between 0 and 1"):
        Calibration.uncalibrated().interval(np.ones(2), np.ones(2), kind="seen", level=level)


def test_at_least_two_folds():
    with pytest.raises(ValueError, match=r"Expected `n_folds` to be at least 2, found 1"):
        Calibration.fit(screen(0, 600, **FEW), n_folds=1)


def test_arrays_and_back():
    found = Calibration.fit(screen(0, 600, **FEW), n_folds=2)
    arrays = found.to_arrays()
    again = Calibration.from_arrays(arrays)
    assert all(np.array_equal(array, again.to_arrays()[name]) for name, array in arrays.items())
    assert dict(zip(KINDS, found.n_conditions > 0, strict=True)) == dict.fromkeys(KINDS, True) | {"new dose": False}


def test_cross_validation_judges_every_condition_and_leaves_no_cell_of_it_in_the_fit():
    cells = screen(0, 600, **FEW)
    n_conditions = sum(group.perturbation.any() for group in cells.groups())
    made = list(cross_validate(cells, features=None, n_folds=3, rng=np.random.default_rng(0)))
    assert {each.kind for each in made} == set(KINDS) - {"new dose"}
    assert {each.condition for each in made if each.kind == "seen"} == set(range(n_conditions))
    assert {each.condition for each in made if each.kind == "unseen"} == set(range(n_conditions))
    assert all((each.noise > 0).all() for each in made)


def test_one_part_of_many_conditions_says_enough(monkeypatch):
    """A limit of two predictions is reached with the first part of every way of leaving out."""
    cells, fits = screen(0, 800, n_genes=50, n_perturbations=8, n_combinations=0), []

    def counted(*given, **options):
        fits.append(1)
        return fit_hurdle(*given, **options)

    monkeypatch.setattr(cross_validation, "fit_hurdle", counted)

    def made():
        fits.clear()
        return [each.kind for each in cross_validate(cells, features=None, n_folds=4, rng=np.random.default_rng(0))]

    everything = made()
    assert len(fits) == 3 * 4  # components, contexts, cells
    assert {kind: everything.count(kind) for kind in set(everything)}["unseen"] > 12
    monkeypatch.setattr(cross_validation, "_VALUES_JUDGED", 100)
    monkeypatch.setattr(cross_validation, "_FEWEST_JUDGED", 1)
    few = made()
    assert len(fits) == 3
    assert set(few) == set(everything)
    assert len(few) == 3 * 2


@pytest.mark.parametrize(
    ("n_cells", "n_genes", "expected"),
    [
        pytest.param([16] * 1000, 2000, 0, id="no part has five cells of a condition"),
        pytest.param([17] * 1000, 2000, 4, id="some have, by chance"),
        pytest.param([20] * 500, 2000, 1, id="a part has 500 conditions"),
        pytest.param([20] * 250, 2000, 2, id="a part has half of them"),
        pytest.param([20] * 10, 2000, 4, id="few conditions"),
        pytest.param([20] * 500, 100, 4, id="few genes"),
        pytest.param([], 2000, 0, id="no conditions"),
    ],
)
def test_as_many_parts_are_needed_as_have_a_million_values(n_cells, n_genes, expected):
    assert parts_that_tell(np.array(n_cells, dtype=int), n_genes, 4) == expected


def test_a_single_part_is_not_left_out():
    cells = screen(0, 800, n_genes=50, n_perturbations=8, n_combinations=0)
    kinds = {
        each.kind
        for each in cross_validate([GroupSums.of(cells)], features=None, n_folds=2, rng=np.random.default_rng(0))
    }
    assert kinds == {"new context", "unseen"}


def test_parts_without_a_condition_to_judge_are_not_fitted_to(monkeypatch):
    """Four cells of every condition are too few to be judged, whole or in parts."""
    rng = np.random.default_rng(0)
    doses = np.repeat(np.eye(6)[:, 1:], [40, 4, 4, 4, 4, 4], axis=0)
    cells = CellData(np.log1p(rng.poisson(1.0, (60, 10))), doses, np.zeros((60, 0), dtype=int))
    monkeypatch.setattr(cross_validation, "fit_hurdle", lambda *given, **options: pytest.fail("was fitted"))
    assert not list(cross_validate(cells, features=None, n_folds=4, rng=rng))


@pytest.fixture(scope="module")
def coverage():
    """Share of genes and left-out conditions whose true mean is within the interval, and mean relative widths."""
    inside: dict = {}
    widths: dict = {}
    for seed in range(6):  # between screens the share varies by .08
        cells, many = screen(seed, 3500), screen(seed, 30_000)
        truth = {
            (g.perturbation.tobytes(), g.covariates.tobytes()): np.asarray(many.x[g.rows].mean(axis=0)).ravel()
            for g in many.groups()
        }
        rng = np.random.default_rng(seed)
        perturbed = [group for group in cells.groups() if group.perturbation.any()]
        pairs = sorted({g.perturbation.tobytes() for g in perturbed if (g.perturbation > 0).sum() == 2})
        unseen = rng.permutation(16)[:3]
        left_out = {pairs[i] for i in rng.permutation(len(pairs))[:5]}
        keep = np.ones(len(cells), dtype=bool)
        for group in perturbed:
            if group.perturbation.tobytes() in left_out or group.perturbation[unseen].any():
                keep[group.rows] = False
        training = cells.subset(keep)
        prior, found = AdditiveHurdlePrior.fit(training), Calibration.fit(training, n_folds=2, seed=seed)
        for group in perturbed:
            context = prior.context(group.covariates)
            kind = condition_kind(prior, group.perturbation, context)
            mean, sd = mean_expression(prior, group.perturbation, context)
            true = truth[group.perturbation.tobytes(), group.covariates.tobytes()]
            for level in LEVELS:
                lower, upper = found.interval(mean, sd, kind=kind, level=level)
                inside.setdefault((kind, level), []).append(((lower <= true) & (true <= upper)).mean())
            widths.setdefault(kind, []).append(np.sqrt(np.mean((found.factor(kind, sd) * sd) ** 2)))
    return {pair: np.mean(each) for pair, each in inside.items()}, {kind: np.mean(w) for kind, w in widths.items()}


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("kind", ["combination", "unseen"])
def test_intervals_hold_as_often_as_they_say(coverage, kind, level):
    assert coverage[0][kind, level] == pytest.approx(level, abs=0.05)


def test_what_is_less_known_is_stated_so(coverage):
    widths = coverage[1]
    assert widths["seen"] < widths["combination"] < 0.7 * widths["unseen"]
