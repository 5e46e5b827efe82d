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
    """Groups and components that a fit is asked for: others, on which nothing else rests, need not be estimated.

    Parameters
    ----------
    groups
        Groups whose interactions are asked for (g,).
    components
        Components whose effects are asked for (P,).
    """

    groups: NDArray[np.bool_]
    components: NDArray[np.bool_]

    def levels(self, measured: Measurements, split: RidgeSplit) -> NDArray[np.intp]:
        """Levels whose effects are estimated.

        Those of components that are asked for or were ever combined with others; and of further ones, drawn at random,
        until there are 200.

        Parameters
        ----------
        measured
            Measured effects.
        split
            Which of the seen levels were together.

        Returns
        -------
        Numbers of levels.
        """
        component = measured.levels[measured.seen]
        together = np.bincount(component[~split.is_alone], minlength=measured.n_components) > 0
        wanted = measured.trained & (self.components | together)
        rest = np.flatnonzero(measured.trained & ~wanted)
        n_more = max(_FEWEST_COMPONENTS - int(wanted.sum()), 0)
        if len(rest) > n_more:
            rest = np.random.default_rng(0).choice(rest, n_more, replace=False)
        wanted[rest] = True
        return measured.seen[wanted[component]]
