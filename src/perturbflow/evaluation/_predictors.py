"""Sources of predicted cells: a sampler that is asked twice, or cells that were predicted elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from perturbflow.baselines import ControlCells
from perturbflow.baselines._control_shift import ControlShift
from perturbflow.evaluation._conditions import Cells, Condition, dense, draw, groups_of, identity
from perturbflow.screen._named_arrays import check_unnamed

if TYPE_CHECKING:
    from numpy.typing import NDArray

MIN_CELLS = 4
Draws = tuple["NDArray[np.float32]", "NDArray[np.float32] | None"]


class Predictor(Protocol):
    """Gives the cells that a model predicts for a condition."""

    def predict(self, condition: Condition, controls: NDArray[np.float32], *, rng: np.random.Generator) -> Draws | None:
        """Return a prediction (n, G), and a second one from the same controls if there is one; None if there is none."""
        ...


@dataclass(frozen=True)
class AskedTwice:
    """A sampler, asked twice for cells from the same controls.

    Distances between the two predictions are those between independent cells, so that a model gains nothing from making
    the cells of one prediction depend on each other.
    """

    name: str
    sampler: Any

    def predict(self, condition: Condition, controls: NDArray[np.float32], *, rng: np.random.Generator) -> Draws:
        """Sample twice."""
        first, second = (
            self.sampler.sample(controls, condition.perturbation, condition.covariates, rng=rng) for _ in range(2)
        )
        for predicted in (first, second):
            check_prediction(predicted, controls.shape[1], model=self.name, labels=condition.labels)
        return first, second


@dataclass(frozen=True)
class AskedOnce:
    """A deterministic sampler: what it says once it would say again."""

    name: str
    sampler: Any

    def predict(self, condition: Condition, controls: NDArray[np.float32], *, rng: np.random.Generator) -> Draws:
        """Sample."""
        predicted = self.sampler.sample(controls, condition.perturbation, condition.covariates, rng=rng)
        check_prediction(predicted, controls.shape[1], model=self.name, labels=condition.labels)
        return predicted, predicted


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
    is_constant = getattr(type(sampler), "sample", None) is ControlShift.sample
    return (AskedOnce if is_constant else AskedTwice)(name, sampler)


def check_prediction(predicted: Any, n_genes: int, *, model: str, labels: Mapping[str, str]) -> None:
    """Refuse what is not a matrix of finite values with the right genes."""
    check_unnamed(predicted, name=f"cells of {model}", order="the genes of `controls`")
    shape = np.shape(predicted)
    if len(shape) != 2 or shape[0] < 2 or shape[1] != n_genes:
        msg = f"Expected {model!r} to return at least 2 cells of {n_genes} genes for {dict(labels)}, found {shape}."
        raise ValueError(msg)
    if not np.isfinite(predicted).all():
        msg = f"Expected {model!r} to return finite values, found NaN or infinity for {dict(labels)}."
        raise ValueError(msg)
