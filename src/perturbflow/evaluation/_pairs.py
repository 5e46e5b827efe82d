"""Metrics of a predicted and a real sample that need what others need too, and are not computed from cells alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from perturbflow.metrics._correlations import agreement_of_pairs, correlations_of_pairs, error_of_pairs
from perturbflow.metrics._distances import pair_sum
from perturbflow.metrics._marginals import error_of_variances
from perturbflow.metrics._perturbench_energy import SHORTEST
from perturbflow.metrics._samples import Sample, once
from perturbflow.metrics._wasserstein import root_mean_square_distance, sum_of_distances

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Pair:
    """A predicted sample and a real one."""

    def __init__(self, predicted: Sample, real: Sample) -> None:
        self.predicted, self.real = predicted, real

    @once
    def correlations(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Correlations of pairs of genes, predicted and real."""
        x, y = self.predicted, self.real
        return correlations_of_pairs(x.cells, x.moments, y.most_variable), y.correlations


def _energy_loss_in_components(pair: Pair) -> float:
    x, y = pair.predicted, pair.real
    total = pair_sum(_distance, x.components, y.components, centre=np.zeros(x.components.shape[1]))
    return total / (len(x) * len(y)) - x.spread_in_components / 2 - y.spread_in_components / 2


def _distance(squared: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.sqrt(np.maximum(squared, SHORTEST**2, out=squared), out=squared)


OF_PAIRS: Mapping[str, Callable[[Pair], float]] = MappingProxyType(
    {
        "wasserstein_of_genes": lambda pair: (
            sum_of_distances(pair.predicted.by_gene, pair.real.by_gene) / pair.real.cells.shape[1]
        ),
        "sliced_wasserstein": lambda pair: root_mean_square_distance(
            pair.predicted.sorted_projections, pair.real.sorted_projections
        ),
        "error_of_zero_fractions": lambda pair: float(np.abs(pair.predicted.expressed - pair.real.expressed).mean()),
        "error_of_variances": lambda pair: error_of_variances(pair.predicted.moments, pair.real.moments),
        "agreement_of_correlations": lambda pair: agreement_of_pairs(*pair.correlations),
        "error_of_correlations": lambda pair: error_of_pairs(*pair.correlations),
        "energy_loss_in_components": _energy_loss_in_components,
    }
)
"""By name, with the values of the functions in the table of metrics."""
