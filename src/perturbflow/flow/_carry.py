"""Carrying a change from contexts where it was measured to contexts where it was not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from perturbflow.flow._shrinkage import shrink_apart

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from scipy import sparse

    from perturbflow.flow._context_covariance import ContextCovariance
    from perturbflow.flow._measurements import Measurements

_LARGE_CHANGE = 1.0  # of an angle or a mean, at which half of a small difference of the bases is made up
_STANDARD_ERRORS = 2.0
_FEWEST_CONTEXTS = 3  # that tell one way from another
_MOST_LEVELS = 100  # by which ways are compared


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
_WAYS = (
    _USUAL,
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

    def errors(self, measured: Measurements, scales: Sequence[float]) -> NDArray[np.float64]:
        """Squared errors of all ways in contexts that are left out and predicted from the others.

        Parameters
        ----------
        measured
            Measured changes, of which those of :func:`compared_groups` are looked at.
        scales
            Candidate standard deviations of true changes.

        Returns
        -------
        Sums over levels and genes (W, C); 0 of contexts where nothing was compared.
        """
        found = np.zeros((len(_WAYS), self.n_contexts))
        for rows in _alone(measured.design, measured.which):
            contexts = measured.which[rows]
            changes = measured.effects[rows].astype(np.float64)
            shrunken = shrink_apart(changes, measured.variances[rows], scales, measured.strata)[0]
            bases, distances = self.bases[contexts], self.distances[np.ix_(contexts, contexts)]
            np.fill_diagonal(distances, np.inf)  # no context tells what is predicted in it
            for number, way in enumerate(_WAYS):
                predicted = carried(shrunken, bases, bases, distances, way)
                found[number, contexts] += np.square(changes - predicted) @ self.weights
        return found


def choose_ways(errors: NDArray[np.float64]) -> tuple[Way, Way]:
    """How angles and means are carried: as is best for both together in contexts that were left out.

    Other ways than the usual one are taken if the logarithm of the squared error of a context, of angles and means
    together, is lower by more than two standard errors over contexts: with one, some would be by chance.

    Parameters
    ----------
    errors
        Squared errors of all ways for angles and for means (2, W, C), as parts of that of the mean expression, from
        :meth:`Carry.errors`.

    Returns
    -------
    The ways of both.
    """
    known = (errors > 0).all(axis=(0, 1))
    if known.sum() < _FEWEST_CONTEXTS:
        return _USUAL, _USUAL
    of_halves = errors[:, :, known]
    together = of_halves[0, :, None] + of_halves[1]  # (W, W, C)
    beyond = np.log(together / together[0, 0])
    surely = beyond.mean(axis=-1) + _STANDARD_ERRORS * beyond.std(axis=-1, ddof=1) / np.sqrt(known.sum())
    of_angles, of_means = np.unravel_index(surely.argmin(), surely.shape)  # of the usual way of both it is 0
    return _WAYS[of_angles], _WAYS[of_means]


def compared_groups(design: sparse.csr_matrix, which: NDArray[np.integer]) -> NDArray[np.intp]:
    """Groups by which ways are compared, ascending: of one level and no other, of at most a hundred levels.

    Parameters
    ----------
    design
        Weight of every dose level in every group (g, L).
    which
        Context of every group (g,).
    """
    return np.sort(np.concatenate([np.zeros(0, dtype=np.intp), *_alone(design, which)]))


def _alone(design: sparse.csr_matrix, which: NDArray[np.integer]) -> list[NDArray[np.intp]]:
    """Groups of one level and no other, for levels that several contexts have."""
    alone = np.flatnonzero(np.diff(design.indptr) == 1)
    alone = alone[design.data[design.indptr[alone]] == 1]
    level = design.indices[design.indptr[alone]]
    alone, counts = alone[np.argsort(level, kind="stable")], np.bincount(level, minlength=1)
    found = []
    for own in np.split(alone, np.cumsum(counts)[:-1]):
        contexts, firsts = np.unique(which[own], return_index=True)
        if len(contexts) > 1:
            found.append(own[firsts])
    return found[:: max(1, len(found) // _MOST_LEVELS)][:_MOST_LEVELS]
