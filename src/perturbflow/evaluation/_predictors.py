"""Sources of predicted cells: samplers, which predict twice, given cells, and fitted baselines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from perturbflow.baselines import BASELINES, AdditiveHurdle, ControlCells, FeatureRidge
from perturbflow.baselines._control_shift import ControlShift, GroupEffects, group_effects
from perturbflow.evaluation._conditions import Cells, Condition, dense, draw, groups_of, identity
from perturbflow.evaluation._metrics import check_names
from perturbflow.evaluation._tables import FLOOR
from perturbflow.flow import AdditiveHurdlePrior, CellData, GroupSums
from perturbflow.metrics._samples import Sample
from perturbflow.screen._named_arrays import check_unnamed
from perturbflow.screen._screen import Screen

MIN_CELLS = 4
Draws = tuple["NDArray[np.float32]", "NDArray[np.float32] | None"]


class Predictor(Protocol):
    """Gives the cells that a model predicts for a condition."""

    def predict(self, condition: Condition, controls: NDArray[np.float32], *, rng: np.random.Generator) -> Draws | None:
        """Return a prediction (n, G), and a second one from the same controls if there is one; None if there is none."""
        ...


@dataclass(frozen=True)
class Asked:
    """A sampler, asked twice for cells from the same controls, or once if it would say the same again.

    Distances between two predictions are those between independent cells, so that a model gains nothing from making the
    cells of one prediction depend on each other.
    """

    name: str
    sampler: Any
    is_constant: bool = False

    def predict(self, condition: Condition, controls: NDArray[np.float32], *, rng: np.random.Generator) -> Draws:
        """Sample."""
        draws = []
        for _ in range(1 if self.is_constant else 2):
            predicted = self.sampler.sample(controls, condition.perturbation, condition.covariates, rng=rng)
            check_prediction(predicted, controls.shape[1], model=self.name, labels=condition.labels)
            draws.append(predicted)
        return draws[0], draws[-1]


class TheControls:
    """The control cells as they are, without a copy."""

    def predict(self, condition: Condition, controls: NDArray[np.float32], *, rng: np.random.Generator) -> Draws:
        """Return the controls."""
        return controls, controls


class GivenCells:
    """Cells that were predicted before, encoded as the observed ones are; at most ``n_cells`` of a condition are used."""

    def __init__(self, cells: Cells, *, n_cells: int | None) -> None:
        self._cells, self._n_cells = cells, n_cells
        everything = np.arange(len(cells))
        self._rows = {
            identity(group.perturbation, group.covariates): rows for group, rows in groups_of(cells, everything)
        }

    @property
    def identities(self) -> set[tuple[bytes, bytes]]:
        """The perturbed conditions that were predicted."""
        return {one for one in self._rows if np.frombuffer(one[0], np.float32).any()}

    def n_predicted(self, condition: Condition) -> int:
        """Return how many cells were predicted for a condition."""
        return len(self._rows.get(condition.identity, ()))

    def predict(self, condition: Condition, controls: NDArray[np.float32], *, rng: np.random.Generator) -> Draws | None:
        """Return the cells of the condition, or None where there are fewer than four, the least that all metrics take."""
        rows = self._rows.get(condition.identity, np.empty(0, dtype=np.intp))
        return (dense(self._cells, draw(rows, self._n_cells, rng)), None) if len(rows) >= MIN_CELLS else None


def asked(name: str, sampler: Any) -> Predictor:
    """Return a predictor that asks a sampler as often as chance has a part in what it says."""
    if type(sampler) is ControlCells:
        return TheControls()
    # A subclass may sample in a way of its own, with chance.
    return Asked(name, sampler, is_constant=getattr(type(sampler), "sample", None) is ControlShift.sample)


def check_prediction(predicted: Any, n_genes: int, *, model: str, labels: Mapping[str, str]) -> None:
    """Refuse what is not a matrix of finite values with the right genes."""
    check_unnamed(predicted, name=f"cells of {model}", order="the genes of `controls`")
    shape = np.shape(predicted)
    if len(shape) != 2 or shape[0] < 2 or shape[1] != n_genes:
        msg = (
            f"Expected {model!r} to return at least 2 cells of {n_genes} genes for {dict(labels)}, found shape {shape}."
        )
        raise ValueError(msg)
    if not np.isfinite(predicted).all():
        msg = f"Expected {model!r} to return finite values, found NaN or infinity for {dict(labels)}."
        raise ValueError(msg)


Samples = tuple[Sample, "Sample | None"]


class Recognition:
    """Makes samples of predicted cells; equal cells, also those of the controls, are one sample.

    Baselines that know nothing of a condition predict the same cells for all of a context, and several of them the same
    as each other; deterministic ones predict the same twice.
    """

    def __init__(self, controls: Sample) -> None:
        self._controls = controls
        self._constant: dict[str, Sample] | None = None

    def samples(self, predicted: Mapping[str, Draws]) -> dict[str, Samples]:
        """Make samples of the predictions for one condition, by model."""
        known = [self._controls, *(self._constant or {}).values()]
        found: dict[str, Samples] = {}
        for name, (x, again) in predicted.items():
            found[name] = self._sample(x, known), None if again is None else self._sample(again, known)
        # Kept are the cells of models that had no others so far.
        firsts = {name: first for name, (first, _) in found.items()}
        if self._constant is None:
            self._constant = firsts
        self._constant = {name: one for name, one in self._constant.items() if firsts.get(name, one) is one}
        return found

    def _sample(self, cells: NDArray[np.floating], known: list[Sample]) -> Sample:
        for sample in known:
            if _are_equal(sample.cells, cells):
                return sample
        known.append(Sample(cells, self._controls.space))
        return known[-1]


def _are_equal(one: NDArray[np.floating], other: NDArray[np.floating]) -> bool:
    if one is other:
        return True
    alike = one.shape == other.shape and one.dtype == other.dtype
    return alike and np.array_equal(one[0], other[0]) and np.array_equal(one, other)


def fitted_baselines(
    names: Sequence[str], cells: CellData | GroupSums, *, features: NDArray[np.float64] | None = None
) -> dict[str, Any]:
    """Fit baselines; what several of them need is estimated once.

    Parameters
    ----------
    names
        Their names.
    cells
        Training cells, controls among them, or the sums over every group of them.
    features
        Features of the perturbation components (P, F), for those that use them.

    Returns
    -------
    The fitted baselines by name.

    Raises
    ------
    ValueError
        If a name is unknown.

    Examples
    --------
    >>> cells = CellData(np.array([[0.0], [0.0], [2.0]]), np.array([[0.0], [0.0], [1.0]]), np.zeros((3, 0), dtype=int))
    >>> fitted = fitted_baselines(["mean effect"], cells)
    >>> controls, dose, context = np.zeros((2, 1), np.float32), np.ones(1, np.float32), np.zeros(0, int)
    >>> fitted["mean effect"].sample(controls, dose, context, rng=np.random.default_rng(0)).tolist()
    [[2.0], [2.0]]
    """
    check_names(names, BASELINES, name="names")
    sums = cells if isinstance(cells, GroupSums) else GroupSums.of(cells)
    effects: GroupEffects | None = None
    prior: AdditiveHurdlePrior | None = None
    fitted: dict[str, Any] = {}
    for name in names:
        kind = BASELINES[name]
        if issubclass(kind, AdditiveHurdle):
            prior = prior or AdditiveHurdlePrior.fit(sums)
            fitted[name] = kind(prior)
        elif name != FLOOR and issubclass(kind, ControlShift):
            effects = effects or group_effects(sums)
            fitted[name] = (FeatureRidge(features) if kind is FeatureRidge else kind()).fit(effects)
        else:
            fitted[name] = kind().fit(sums)
    return fitted


def sums_of(screen: Screen, rows: NDArray[np.intp]) -> GroupSums:
    """Sums over every group of some rows of a screen, controls first, of which a chunk is read at a time."""
    sums = GroupSums.empty(screen.n_genes, screen.distinct.shape[1], screen.covariates.shape[1])
    for chunk in screen.chunks(rows):
        sums.add(chunk.x, chunk.perturbations, chunk.covariates)
    return sums.ordered()
