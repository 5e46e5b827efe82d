"""Mean effect of every group of perturbed training cells."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from perturbflow._warnings import warn

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from perturbflow.flow import CellData, GroupSums

_SAME_DISTANCE = 1e-6  # of log doses, above the rounding of float32


@dataclass(frozen=True)
class GroupEffects:
    """Effects (g, G) of the perturbed groups: the group's mean minus the mean of the controls of its context.

    With them the dose of every component (g, P) and the covariate codes of every group.
    """

    doses: NDArray[np.float64]
    contexts: list[tuple[int, ...]]
    effects: NDArray[np.float64]

    @cached_property
    def _rows_of(self) -> dict[tuple[int, ...], list[int]]:
        """Rows of every set of components."""
        rows = defaultdict(list)
        for row, doses in enumerate(self.doses):
            rows[tuple(np.flatnonzero(doses).tolist())].append(row)
        return dict(rows)

    def of_perturbation(
        self, doses: NDArray[np.float64], *, within: Callable[[tuple[int, ...]], bool]
    ) -> NDArray[np.float64] | None:
        """Mean effect (G,) of the groups with exactly these components, at the doses nearest to those asked for (P,), or None.

        Nearest is the smallest sum over components of ``|log(dose / asked)|``; equally near groups count alike.
        """
        components = np.flatnonzero(doses)
        same = self._rows_of.get(tuple(components.tolist()), [])
        rows = np.array([row for row in same if within(self.contexts[row])], dtype=np.intp)
        if not len(rows):
            return None
        distances = np.abs(np.log(self.doses[np.ix_(rows, components)] / doses[components])).sum(axis=1)
        nearest = rows[distances <= distances.min() + _SAME_DISTANCE]
        return self.effects[nearest].mean(axis=0)


def group_effects(cells: CellData | GroupSums) -> GroupEffects:
    """Compute the effects of all perturbed groups; time is linear in the stored values.

    Groups of contexts without control cells have no effect to measure: they are left out, with a warning.
    """
    from perturbflow.flow import GroupSums  # here, because it loads torch

    sums = (cells if isinstance(cells, GroupSums) else GroupSums.of(cells)).ordered()
    contexts = list(map(tuple, sums.covariates.tolist()))
    control_of = {contexts[row]: row for row in np.flatnonzero(sums.is_control).tolist()}
    perturbed = np.flatnonzero(~sums.is_control).tolist()
    usable = [row for row in perturbed if contexts[row] in control_of]
    if not usable:
        msg = (
            "Expected perturbed cells and control cells of the same context, "
            f"found {len(perturbed)} perturbed groups and controls in {len(control_of)} contexts, none in common. "
            "Add training cells or leave out covariates."
        )
        raise ValueError(msg)
    if len(usable) < len(perturbed):
        msg = (
            f"Left out {len(perturbed) - len(usable)} of {len(perturbed)} perturbed groups, "
            "whose contexts (combinations of covariates) have no control cells."
        )
        warn(msg)

    effects = sums.total[usable] / sums.n_cells[usable, None]
    for effect, row in zip(effects, usable, strict=True):
        control = control_of[contexts[row]]
        effect -= sums.total[control] / sums.n_cells[control]
    return GroupEffects(
        doses=sums.doses[usable].toarray().astype(np.float64),
        contexts=[contexts[row] for row in usable],
        effects=effects,
    )
