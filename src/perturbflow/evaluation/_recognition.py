"""Predictions that are the same cells as others: what is known of them is not computed again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from perturbflow.metrics._samples import Sample

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from perturbflow.evaluation._predictors import Draws

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
