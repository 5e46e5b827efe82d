"""Questions that a prior which is fitted to be judged will be asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from perturbflow.flow._measurements import Measurements
    from perturbflow.flow._ridge_split import RidgeSplit

_FEWEST_COMPONENTS = 200  # that are fitted, so that what is an average over components is known


@dataclass(frozen=True, eq=False)
class Asked:
    """Groups (g,) and components (P,) that a fit is asked for: others that nothing else rests on are not estimated."""

    groups: NDArray[np.bool_]
    components: NDArray[np.bool_]

    def levels(self, measured: Measurements, split: RidgeSplit) -> NDArray[np.intp]:
        """Numbers of the levels to estimate: of components asked for or ever combined, and random others up to 200."""
        component = measured.levels[measured.seen]
        together = np.bincount(component[~split.is_alone], minlength=measured.n_components) > 0
        wanted = measured.trained & (self.components | together)
        rest = np.flatnonzero(measured.trained & ~wanted)
        n_more = max(_FEWEST_COMPONENTS - int(wanted.sum()), 0)
        if len(rest) > n_more:
            rest = np.random.default_rng(0).choice(rest, n_more, replace=False)
        wanted[rest] = True
        return measured.seen[wanted[component]]
