"""Carrying a change from contexts where it was measured to contexts where it was not."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from perturbflow.flow._shrinkage import shrink_apart

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Self

    from numpy.typing import NDArray

    from perturbflow.flow._context_covariance import ContextCovariance
    from perturbflow.flow._measurements import Measurements

_LARGE_CHANGE = 1.0  # of an angle or a mean, at which half of a small difference of the bases is made up
_STANDARD_ERRORS = 2.0
_FEWEST_CONTEXTS = 3  # that tell one way from another
_MOST_LEVELS = 100  # that are looked at


class Way(NamedTuple):
    """How a change is carried.

    Parameters
    ----------
    reach
        Squared distance, in units of the median, over which a context counts less by 1 / e.
    scale
        How much of the average change is carried.
    ends
        Whether a large change ends where it ended elsewhere (1) or adds what it added there (0).
    """

    reach: float
    scale: float = 1.0
    ends: float = 1.0


# What is done unless training contexts, each left out, show that another is better.
_USUAL = Way(0.3)
_OTHERS = (
    *(Way(reach) for reach in (0.1, 1.0, 1e3)),
    *(Way(reach, ends=0.0) for reach in (0.1, 0.3, 1.0, 1e3)),
    *(Way(0.3, scale) for scale in (0.5, 0.0)),
)


def carried(
    changes: NDArray[np.floating],
    bases: NDArray[np.floating],
    base: NDArray[np.floating],
    distances: NDArray[np.floating],
    way: Way,
) -> NDArray[np.float64]:
    r"""Change in a context where it was not measured, from those where it was.

    Contexts count by their resemblance, :math:`w_c \propto \exp(-D_c / \text{reach})`. A small change adds to what the
    context is; a large one ends where it ended elsewhere, whatever the gene was at before: with the average change
    :math:`\delta = \sum_c w_c \delta_c` and the difference :math:`\Delta` of the average base from the context's own, a
    part :math:`\delta^2 / (\delta^2 + \Delta^2 + 1)` of this difference is added. It is never more than half of the
    change: of a gene that marks what a context is, and differs by more than the change, little can be said.

    Parameters
    ----------
    changes
        Changes where they were measured (O, G).
    bases
        What they were added to (O, G).
    base
        What the carried change is added to (..., G), in one context or several.
    distances
        Squared distances to these contexts (..., O), in units of their median.
    way
        How it is carried.

    Returns
    -------
    The change (..., G).

    Examples
    --------
    >>> import numpy as np
    >>> changes, bases = np.array([[2.0, 0.1], [0.0, 0.1]]), np.array([[1.0, 1.0], [0.0, 0.0]])
    >>> near_first = np.array([0.0, 9.0])
    >>> carried(changes, bases, np.zeros(2), near_first, Way(reach=0.3)).round(2)  # 2 from 1 ends at 3, or nearly
    array([2.67, 0.1 ])
    """
    weights = np.exp(-(distances - distances.min(axis=-1, keepdims=True)) / way.reach)
    weights /= weights.sum(axis=-1, keepdims=True)
    change = way.scale * (weights @ changes)
    square, difference = np.square(change), weights @ bases - base
    return change + way.ends * square / (square + np.square(difference) + _LARGE_CHANGE**2) * difference


@dataclass(frozen=True, eq=False)
class Carry:
    """Training contexts, and how changes are carried between them.

    Parameters
    ----------
    distances
        Squared distances between contexts (C, C), in units of their median.
    bases
        What changes are added to in every context (C, G).
    measured
        Numbers of the contexts that have perturbed cells (M,), ascending.
    covariances
        Candidate covariances of an effect between these.
    weights
        How much a gene's error counts where ways are compared (G,).
    way
        How changes are carried.
    """

    distances: NDArray[np.float64]
    bases: NDArray[np.float64]
    measured: NDArray[np.intp]
    covariances: Sequence[ContextCovariance]
    weights: NDArray[np.float64]
    way: Way = _USUAL

    @property
    def n_contexts(self) -> int:
        """Number of contexts C."""
        return len(self.distances)

    def everywhere(self, observed: NDArray[np.integer], changes: NDArray[np.floating]) -> NDArray[np.float64]:
        """Changes in all contexts (C, G), measured in some (O, G): carried to those where they were not."""
        found = np.empty((self.n_contexts, changes.shape[1]))
        found[observed] = changes
        others = np.setdiff1d(np.arange(self.n_contexts), observed)
        distances = self.distances[np.ix_(others, observed)]
        found[others] = carried(changes, self.bases[observed], self.bases[others], distances, self.way)
        return found

    def chosen(self, measured: Measurements, scales: Sequence[float]) -> Self:
        """Carry as the training contexts say: each is left out, and predicted from the others.

        Another way than the usual one is taken if the logarithm of its squared error in a context is lower by more than
        two standard errors over contexts: with one, some would be by chance.

        Parameters
        ----------
        measured
            Measured changes, of which those of a single level are looked at.
        scales
            Candidate standard deviations of true changes.

        Returns
        -------
        The same with the way that was chosen.
        """
        if len(np.unique(measured.which)) < _FEWEST_CONTEXTS:
            return self
        ways = (_USUAL, *_OTHERS)
        errors = np.zeros((len(ways), self.n_contexts))
        for rows in _alone(measured):
            contexts = measured.which[rows]
            changes = measured.effects[rows].astype(np.float64)
            shrunken = shrink_apart(changes, measured.variances[rows], scales, measured.strata)[0]
            bases, distances = self.bases[contexts], self.distances[np.ix_(contexts, contexts)]
            np.fill_diagonal(distances, np.inf)  # no context tells what is predicted in it
            for number, way in enumerate(ways):
                predicted = carried(shrunken, bases, bases, distances, way)
                errors[number, contexts] += np.square(changes - predicted) @ self.weights
        known = (errors > 0).all(axis=0)
        if known.sum() < _FEWEST_CONTEXTS:
            return self
        beyond = np.log(errors[:, known] / errors[0, known])
        surely = beyond.mean(axis=1) + _STANDARD_ERRORS * beyond.std(axis=1, ddof=1) / np.sqrt(known.sum())
        return replace(self, way=ways[int(surely.argmin())])  # of the usual way it is 0


def _alone(measured: Measurements) -> Iterator[NDArray[np.intp]]:
    """Groups of one level and no other, for levels that several contexts have; at most a hundred levels."""
    is_alone = np.diff(measured.design.indptr) == 1
    found = []
    for level in measured.seen:
        rows, weight = measured.of_level(int(level))
        rows = rows[is_alone[rows] & (weight[:, 0] == 1)]
        contexts, firsts = np.unique(measured.which[rows], return_index=True)
        if len(contexts) > 1:
            found.append(rows[firsts])
    step = max(1, len(found) // _MOST_LEVELS)
    yield from found[::step][:_MOST_LEVELS]
