"""Baselines by name, fitted on the same cells, with the features of perturbations where there are some."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from perturbflow.baselines import BASELINES, FeatureRidge

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from perturbflow.flow import CellData


def fitted_baselines(
    names: Sequence[str], cells: CellData, *, features: NDArray[np.float64] | None = None
) -> dict[str, Any]:
    """Fit baselines.

    Parameters
    ----------
    names
        Their names.
    cells
        Training cells, controls among them.
    features
        Features of the perturbation components (P, F), for those that use them.

    Returns
    -------
    The fitted baselines by name.
    """
    kinds = {name: BASELINES[name] for name in names}
    return {
        name: (kind(features) if issubclass(kind, FeatureRidge) else kind()).fit(cells) for name, kind in kinds.items()
    }
