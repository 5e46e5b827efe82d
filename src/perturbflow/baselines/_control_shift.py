"""The common form of the baselines: control cells, moved."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import numpy as np

from perturbflow.baselines._group_effects import GroupEffects, group_effects
from perturbflow.baselines._sampler import of_fit, of_sample
from perturbflow.screen._named_arrays import check_unnamed

if TYPE_CHECKING:
    from typing import Self

    from numpy.typing import NDArray

    from perturbflow.flow import CellData, GroupSums


class ControlShift(ABC):
    """Control cells plus one shift per gene and condition, cut off at zero.

    ``predicted = max(controls + shift(perturbation, covariates), 0)``; the shift of no perturbation is 0. Subclasses
    implement :meth:`_fit` and :meth:`_shift`. The cells keep the spread and the gene-gene dependence of the controls
    (but for the cut), so a shift up turns all zeros of a gene into small values.
    """

    _shape: tuple[int, int, int] | None = None

    @of_fit
    def fit(self, cells: CellData | GroupSums | GroupEffects) -> Self:
        """Learn the shifts."""
        groups = cells if isinstance(cells, GroupEffects) else group_effects(cells)
        self._fit(groups)
        self._shape = (groups.effects.shape[1], groups.doses.shape[1], len(groups.contexts[0]))
        return self

    @of_sample
    def sample(
        self,
        controls: NDArray[np.float32],
        perturbation: NDArray[np.float32],
        covariates: NDArray[np.int64],
        *,
        rng: np.random.Generator,
    ) -> NDArray[np.float32]:
        """Predict perturbed cells of one condition, row by row for the control cells, without chance."""
        if self._shape is None:
            msg = f"Expected a fitted {type(self).__name__}. Call `fit` first."
            raise RuntimeError(msg)
        for name, value in (("controls", controls), ("perturbation", perturbation), ("covariates", covariates)):
            check_unnamed(value, name=name, order="the training cells")
        controls = np.asarray(controls, dtype=np.float32)
        perturbation = np.asarray(perturbation)
        covariates = np.asarray(covariates)
        n_genes, n_components, n_covariates = self._shape
        for name, array, expected in (
            ("controls", controls, (len(controls) if controls.ndim else 0, n_genes)),
            ("perturbation", perturbation, (n_components,)),
            ("covariates", covariates, (n_covariates,)),
        ):
            if array.shape != expected:
                msg = f"Expected `{name}` to have shape {expected}, as in the training cells, found {array.shape}."
                raise ValueError(msg)
        if not perturbation.any():
            return np.maximum(controls, 0)
        shift = self._shift(perturbation.astype(np.float64), tuple(covariates.tolist()))
        predicted = controls + shift.astype(np.float32)
        return np.maximum(predicted, 0, out=predicted)

    @abstractmethod
    def _fit(self, groups: GroupEffects) -> None:
        """Learn from measured effects whatever :meth:`_shift` needs."""

    @abstractmethod
    def _shift(self, perturbation: NDArray[np.float64], context: tuple[int, ...]) -> NDArray[np.float64]:
        """Shift (G,) of a perturbation with at least one dose that is not 0."""
