"""Predicted and real cells of one condition, with what several metrics need of both computed once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from perturbflow.metrics._correlations import correlations_of_pairs
from perturbflow.metrics._distances import pair_sum
from perturbflow.metrics._samples import Sample, at_least_shortest, once

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from perturbflow.metrics._clouds import CloudScores
    from perturbflow.metrics._differential_expression import DifferentialExpression
    from perturbflow.metrics._moments import Moments


class Pair:
    """A predicted sample and a real one."""

    def __init__(self, predicted: Sample, real: Sample) -> None:
        self.predicted, self.real = predicted, real

    @once
    def correlations(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Correlations of pairs of genes, predicted and real."""
        x, y = self.predicted, self.real
        return correlations_of_pairs(x.cells, x.moments, y.most_variable), y.correlations

    def energy_loss_in_components(self) -> float:
        """Return the :func:`energy_loss` in principal components."""
        x, y = self.predicted, self.real
        total = pair_sum(at_least_shortest, x.components, y.components, centre=np.zeros(x.components.shape[1]))
        return total / (len(x) * len(y)) - x.spread_in_components / 2 - y.spread_in_components / 2


@dataclass(frozen=True, eq=False)
class Comparison:
    """Data that metrics of one condition are computed from; None where no metric asks for it.

    Moments are of the predicted cells, of the real ones and of the controls, tests of predicted and of real cells. There is a
    pair for the prediction, or for two from the same controls; the cloud is what one pass over all pairs of cells gives.
    """

    moments: tuple[Moments, Moments, Moments]
    control: NDArray[np.floating] | None = None
    pairs: Sequence[Pair] = ()
    tests: tuple[DifferentialExpression, DifferentialExpression] | None = None
    cloud: CloudScores | None = None
