"""Conditions side by side, for metrics that compare each with all others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from perturbflow.metrics._moments import Moments
from perturbflow.screen._named_arrays import aligned, names_of


@dataclass(frozen=True)
class Panel:
    """Predicted and observed cells of P conditions and the controls that serve them all.

    Parameters
    ----------
    predicted, observed
        Moments of the cells of every condition.
    control
        Moments of the control cells.
    targets
        Which genes the perturbation of a condition acts on itself, shape (P, G); None where that is not known.
    components
        Predicted and observed cells of every condition in principal components; empty where no metric needs them.

    Examples
    --------
    >>> import numpy as np
    >>> import perturbflow as pf
    >>> def cells(level):
    ...     return pf.metrics.Moments.of(np.full((5, 3), level))
    >>> panel = pf.metrics.Panel([cells(2.0), cells(4.0)], [cells(3.0), cells(5.0)], control=cells(1.0))
    >>> panel.predicted_effects.tolist(), panel.observed_effects.tolist()  # of two conditions on three genes
    ([[1.0, 1.0, 1.0], [3.0, 3.0, 3.0]], [[2.0, 2.0, 2.0], [4.0, 4.0, 4.0]])
    """

    predicted: Sequence[Moments]
    observed: Sequence[Moments]
    control: Moments
    targets: NDArray[np.bool_] | None = None
    components: tuple[Sequence[NDArray[np.float64]], ...] = ()

    def __post_init__(self) -> None:
        sides = {f"{side}[{i}]": one for side in ("predicted", "observed") for i, one in enumerate(getattr(self, side))}
        if names_of(self.control, *sides.values()) is None:
            return
        control, targets, *found = aligned("genes", control=self.control, targets=self.targets, **sides)
        values = (found[: len(self.predicted)], found[len(self.predicted) :], control, targets)
        for name, value in zip(("predicted", "observed", "control", "targets"), values, strict=True):
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.observed)

    @cached_property
    def predicted_means(self) -> NDArray[np.float64]:
        """Means of the predicted cells, shape (P, G)."""
        return np.stack([one.mean for one in self.predicted])

    @cached_property
    def observed_means(self) -> NDArray[np.float64]:
        """Means of the observed cells, shape (P, G)."""
        return np.stack([one.mean for one in self.observed])

    @cached_property
    def observed_sizes(self) -> NDArray[np.float64]:
        """Numbers of observed cells, shape (P,)."""
        return np.array([one.n_cells for one in self.observed], dtype=np.float64)

    @cached_property
    def predicted_effects(self) -> NDArray[np.float64]:
        """Means of the predicted cells minus that of the controls, shape (P, G)."""
        return self.predicted_means - self.control.mean

    @cached_property
    def observed_effects(self) -> NDArray[np.float64]:
        """Means of the observed cells minus that of the controls, shape (P, G)."""
        return self.observed_means - self.control.mean
