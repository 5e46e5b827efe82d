"""Doses of components as weights of the doses that were measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from typing import Self

    from numpy.typing import NDArray

_MOST_LEVELS = 8  # of a component; more doses share levels
_DECADE = 10.0  # doses that span it are compared by their logarithms


@dataclass(frozen=True, eq=False)
class DoseLevels:
    """The measured doses of every component, and where other doses lie between them.

    Every measured dose is a level with an effect of its own. A dose between two levels has both in part, by where it
    lies between them, on a logarithmic scale where the doses of its component span a decade; below the lowest level
    it has that level in part and no effect for the rest; above the highest it is the highest.

    Parameters
    ----------
    components
        Component of every level (L,), ascending.
    doses
        Dose of every level (L,), ascending within a component.

    Examples
    --------
    >>> import numpy as np
    >>> levels = DoseLevels.of(np.array([[10.0, 0.0], [1000.0, 0.0], [0.0, 1.0]]))
    >>> levels.components.tolist(), levels.doses.tolist()
    ([0, 0, 1], [10.0, 1000.0, 1.0])
    >>> levels.weights(np.array([[100.0, 0.0], [5.0, 1.0], [3000.0, 0.5]]))
    array([[0.5, 0.5, 0. ],
           [0.5, 0. , 1. ],
           [0. , 1. , 0.5]])
    """

    components: NDArray[np.int64]
    doses: NDArray[np.float64]

    @classmethod
    def of(cls, doses: NDArray[np.floating]) -> Self:
        """Collect the levels of groups of cells.

        Parameters
        ----------
        doses
            Dose of every component in every group (g, P).

        Returns
        -------
        The levels: one a measured dose, but at most 8 a component, spread over its doses; of a component that no group
        has, the dose 1.
        """
        components: list[int] = []
        levels: list[float] = []
        for j, column in enumerate(np.asarray(doses, dtype=np.float64).T):
            own = np.unique(column[column > 0])
            if len(own) > _MOST_LEVELS:
                own = own[np.rint(np.linspace(0, len(own) - 1, _MOST_LEVELS)).astype(int)]
            own = own if len(own) else np.ones(1)
            components += [j] * len(own)
            levels += own.tolist()
        return cls(np.array(components, dtype=np.int64), np.array(levels, dtype=np.float64))

    def of_component(self, component: int) -> slice:
        """Where the levels of a component are."""
        first, last = np.searchsorted(self.components, [component, component + 1])
        return slice(int(first), int(last))

    def weights(self, doses: NDArray[np.floating]) -> NDArray[np.float64]:
        """Weight of every level in doses of the components.

        Parameters
        ----------
        doses
            Doses (n, P), at least 0.

        Returns
        -------
        Weights (n, L), those of a component from 0 to 1 together.
        """
        found = np.zeros((len(doses), len(self.doses)))
        for j in np.flatnonzero(np.asarray(doses).any(axis=0)):
            own = self.of_component(int(j))
            levels = self.doses[own]
            rows = np.flatnonzero(doses[:, j])
            asked = np.clip(doses[rows, j].astype(np.float64), levels[0], levels[-1])
            scale = np.log if levels[-1] >= _DECADE * levels[0] else np.asarray
            upper = np.clip(np.searchsorted(levels, asked), min(1, len(levels) - 1), len(levels) - 1)
            lower = np.maximum(upper - 1, 0)
            width = np.where(upper > lower, scale(levels[upper]) - scale(levels[lower]), 1.0)
            share = (scale(asked) - scale(levels[lower])) / width
            below = np.minimum(doses[rows, j] / levels[0], 1.0)
            np.add.at(found, (rows, own.start + upper), below * share)
            np.add.at(found, (rows, own.start + lower), below * (1 - share))
        return found

    def positions(self, doses: NDArray[np.floating]) -> NDArray[np.float32]:
        """Doses on a scale on which the levels of a component are evenly spaced up to 1.

        Parameters
        ----------
        doses
            Doses (n, P).

        Returns
        -------
        Positions (n, P), from 0 to 1.
        """
        starts = np.searchsorted(self.components, self.components)
        counts = np.bincount(self.components)
        rank = (np.arange(len(self.components)) - starts + 1) / counts[self.components]
        weighted = self.weights(doses) * rank
        firsts = np.searchsorted(self.components, np.arange(len(counts)))
        return np.add.reduceat(weighted, firsts, axis=1).astype(np.float32) if len(firsts) else weighted.astype("f4")

    def factor_from(self, earlier: DoseLevels, before: int, after: int) -> float:
        """Factor with which positions of a component are nearest to those among other levels, at doses that both know.

        Parameters
        ----------
        earlier
            The other levels.
        before, after
            Number of the component there, and here.

        Returns
        -------
        The factor.
        """
        pairs = ((earlier, before), (self, after))
        measured = [levels.doses[levels.of_component(number)] for levels, number in pairs]
        doses = np.unique(np.concatenate(measured))
        doses = doses[doses <= min(own[-1] for own in measured)]
        old, new = (
            levels.positions(np.outer(doses, np.arange(levels.components[-1] + 1) == number))[:, number]
            for levels, number in pairs
        )
        return float(old @ new / (new @ new))
