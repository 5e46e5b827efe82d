"""Baselines by name, fitted on the same cells, with the features of perturbations where there are some."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perturbflow.baselines import BASELINES, AdditiveHurdle, FeatureRidge
from perturbflow.baselines._control_shift import ControlShift, GroupEffects, group_effects
from perturbflow.evaluation._metrics import check_names
from perturbflow.evaluation._tables import FLOOR
from perturbflow.flow import AdditiveHurdlePrior, CellData, GroupSums
from perturbflow.screen._screen import Screen


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
