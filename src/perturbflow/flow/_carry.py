"""Carrying a change from contexts where it was measured to contexts where it was not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.optimize import nnls

from perturbflow.flow._shrinkage import shrink_apart

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray
    from scipy import sparse

    from perturbflow.flow._context_covariance import ContextCovariance
    from perturbflow.flow._measurements import Measurements

_LARGE_CHANGE = 1.0  # of an angle or a mean, at which half of a small difference of the bases is made up
_STANDARD_ERRORS = 2.0
_FEWEST_CONTEXTS = 3  # that tell one way from another
_CAUTION = 1.0  # contexts whose errors weigh as much as leaving the single way that is surely best
_MOST_LEVELS = 100  # by which ways are compared
_SMALLEST_ANGLE = 0.01  # of a share of 2.5e-5
_LEAST_SHARE = 0.01
_LEAST = 1e-12
_EXACTLY = 1e3  # weight of the sum of the shares beside errors relative to the usual ones


class Way(NamedTuple):
    """Way in which a change is carried.

    Parameters
    ----------
    reach
        Squared distance, in units of the median, over which a context counts less by 1 / e.
    scale
        How much of the average change is carried.
    ends
        Whether a large change ends where it ended elsewhere (1) or adds what it added there (0).
    odds
        Whether angles of shares change by their log-odds (1) or as they are (0): of a gene that nearly all cells express, or none, little
        changes then.
    share
        Share of the way where several are averaged.
    """

    reach: float
    scale: float = 1.0
    ends: float = 1.0
    odds: float = 0.0
    share: float = 1.0


# What is done unless training contexts, each left out, show that another is better.
_USUAL = Way(0.3)
_WAYS = (
    _USUAL,
    *(Way(reach) for reach in (0.1, 1.0, 1e3)),
    *(Way(reach, ends=0.0) for reach in (0.1, 0.3, 1.0, 1e3)),
    *(Way(0.3, scale) for scale in (0.5, 0.0)),
)
WAYS_OF_ANGLES = _WAYS + tuple(Way(reach, ends=ends, odds=1.0) for ends in (1.0, 0.0) for reach in (0.1, 0.3, 1.0, 1e3))


def carried(
    changes: NDArray[np.floating],
    bases: NDArray[np.floating],
    base: NDArray[np.floating],
    distances: NDArray[np.floating],
    ways: Sequence[Way],
) -> NDArray[np.float64]:
    r"""Change in a context where it was not measured, from those where it was.

    Contexts count by their resemblance, :math:`w_c \propto \exp(-D_c / \text{reach})`. A small change adds to what the
    context is; a large one ends where it ended elsewhere, whatever the gene was at before: with the average change
    :math:`\delta = \sum_c w_c \delta_c` and the difference :math:`\Delta` of the average base from the context's own, a
    part :math:`\delta^2 / (\delta^2 + \Delta^2 + 1)` of this difference is added. It is never more than half of the
    change: of a gene that marks what a context is, and differs by more than the change, little can be said. Several ways are averaged
    by their shares.

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
    ways
        How it is carried.

    Returns
    -------
    The change (..., G).

    Examples
    --------
    >>> import numpy as np
    >>> changes, bases = np.array([[2.0, 0.1], [0.0, 0.1]]), np.array([[1.0, 1.0], [0.0, 0.0]])
    >>> near_first = np.array([0.0, 9.0])
    >>> carried(changes, bases, np.zeros(2), near_first, [Way(reach=0.3)]).round(2)  # 2 from 1 ends at 3, or nearly
    array([2.67, 0.1 ])
    """
    each = _by_way(changes, bases, base, distances, ways)
    return sum((way.share * change for way, change in zip(ways, each, strict=True)), start=np.zeros(base.shape))


def _by_way(
    changes: NDArray[np.floating],
    bases: NDArray[np.floating],
    base: NDArray[np.floating],
    distances: NDArray[np.floating],
    ways: Sequence[Way],
) -> Iterator[NDArray[np.float64]]:
    """Change of every way; what ways have in common is computed once."""
    weights = {reach: _weights(distances, reach) for reach in {way.reach for way in ways}}
    if any(way.odds for way in ways):
        here, there = _half_log_odds(base), _half_log_odds(bases)
        of_odds, start = _half_log_odds(bases + changes) - there, np.arccos(-np.tanh(here))
    for way in ways:
        if way.odds:
            yield np.arccos(-np.tanh(here + _added(of_odds, there, here, weights[way.reach], way))) - start
        else:
            yield _added(changes, bases, base, weights[way.reach], way)


def _added(
    changes: NDArray[np.floating],
    bases: NDArray[np.floating],
    base: NDArray[np.floating],
    weights: NDArray[np.float64],
    way: Way,
) -> NDArray[np.float64]:
    change = way.scale * (weights @ changes)
    square, difference = np.square(change), weights @ bases - base
    return change + way.ends * square / (square + np.square(difference) + _LARGE_CHANGE**2) * difference


def _half_log_odds(angles: NDArray[np.floating]) -> NDArray[np.float64]:
    """Half of the log-odds of the shares at some angles: in the middle they change as angles do."""
    return np.arctanh(-np.cos(np.clip(angles, _SMALLEST_ANGLE, np.pi - _SMALLEST_ANGLE)))


def mean_weights(distances: NDArray[np.floating], ways: Sequence[Way]) -> NDArray[np.float64]:
    """Return how contexts count on average over ways, as far as changes are small.

    Parameters
    ----------
    distances
        Squared distances to the contexts (..., O), in units of their median.
    ways
        How changes are carried.

    Returns
    -------
    Weights (..., O).
    """
    found = np.zeros(distances.shape)
    for way in ways:
        found += way.share * way.scale * _weights(distances, way.reach)
    return found


def _weights(distances: NDArray[np.floating], reach: float) -> NDArray[np.float64]:
    weights = np.exp(-(distances - distances.min(axis=-1, keepdims=True)) / reach)
    weights /= weights.sum(axis=-1, keepdims=True)
    return weights


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
    ways
        How changes are carried.
    candidates
        How they might be.
    """

    distances: NDArray[np.float64]
    bases: NDArray[np.float64]
    measured: NDArray[np.intp]
    covariances: Sequence[ContextCovariance]
    weights: NDArray[np.float64]
    ways: tuple[Way, ...] = (_USUAL,)
    candidates: tuple[Way, ...] = _WAYS

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
        found[others] = carried(changes, self.bases[observed], self.bases[others], distances, self.ways)
        return found

    def errors(self, measured: Measurements, scales: Sequence[float]) -> NDArray[np.float64]:
        """Errors of all candidates in contexts that are left out and predicted from the others.

        Parameters
        ----------
        measured
            Measured changes, of which those of :func:`compared_groups` are looked at.
        scales
            Candidate standard deviations of true changes.

        Returns
        -------
        Products of the errors of every two candidates, summed over levels and genes (C, W, W); 0 of contexts where nothing was compared.
        """
        found = np.zeros((self.n_contexts, len(self.candidates), len(self.candidates)))
        root = np.sqrt(self.weights)
        for rows in _alone(measured.design, measured.which):
            contexts = measured.which[rows]
            changes = measured.effects[rows].astype(np.float64)
            shrunken = shrink_apart(changes, measured.variances[rows], scales, measured.strata)[0]
            bases, distances = self.bases[contexts], self.distances[np.ix_(contexts, contexts)]
            np.fill_diagonal(distances, np.inf)  # no context tells what is predicted in it
            predicted = np.stack(list(_by_way(shrunken, bases, bases, distances, self.candidates)), axis=1)
            errors = root * (changes[:, None] - predicted)
            found[contexts] += errors @ errors.swapaxes(1, 2)
        return found


def choose_ways(
    carries: tuple[Carry, Carry], errors: Sequence[NDArray[np.float64]] | NDArray[np.float64]
) -> tuple[tuple[Way, ...], tuple[Way, ...]]:
    r"""Return how angles and means are carried: averaged over ways as is best in contexts that were left out.

    First a single way of both: others than the usual one, the first, if the logarithm of the squared error of a context, of angles and
    means together, is lower by more than two standard errors over contexts; with one, some would be by chance. Of errors that are not
    the same, an average is smaller: with products :math:`E_c` of errors and the single way e of angles, or of means, shares w that are at
    least 0 and sum to 1 have the lowest

    .. math:: \sum_c \frac{w^T E_c w}{s_c} + |w - e|^2,

    where s is the squared error of angles and means together in the usual way: every context counts as much, and contexts have to agree
    before the single way is left.

    Parameters
    ----------
    carries
        How angles and means are carried, with their candidates, of which the first is the usual way.
    errors
        Products of errors of both (C, W, W), as parts of those of the mean expression, from :meth:`Carry.errors`.

    Returns
    -------
    Ways with their shares, of angles and of means; the usual one where fewer than three contexts tell.
    """
    usual = errors[0][:, 0, 0] + errors[1][:, 0, 0]
    known = usual > 0
    if known.sum() < _FEWEST_CONTEXTS:
        return (_USUAL,), (_USUAL,)
    of_angles, of_means = (each[known] / usual[known, None, None] for each in errors)
    best = _surely_best(np.diagonal(of_angles, axis1=1, axis2=2), np.diagonal(of_means, axis1=1, axis2=2))
    return (
        _averaged(of_angles.sum(axis=0), best[0], carries[0].candidates),
        _averaged(of_means.sum(axis=0), best[1], carries[1].candidates),
    )


def _surely_best(angles: NDArray[np.float64], means: NDArray[np.float64]) -> tuple[int, int]:
    """Ways of angles and of means whose squared errors (C, W) are together surely lowest."""
    together = angles[:, :, None] + means[:, None]  # of the usual ways 1
    beyond = np.log(np.maximum(together, _LEAST))
    surely = beyond.mean(axis=0) + _STANDARD_ERRORS * beyond.std(axis=0, ddof=1) / np.sqrt(len(beyond))
    of_angles, of_means = np.unravel_index(surely.argmin(), surely.shape)
    return int(of_angles), int(of_means)


def _averaged(errors: NDArray[np.float64], single: int, candidates: tuple[Way, ...]) -> tuple[Way, ...]:
    """Ways with the shares that are best by products of errors (W, W), near a single way."""
    values, vectors = np.linalg.eigh(errors)
    roots, caution = np.sqrt(np.maximum(values, 0))[:, None] * vectors.T, np.sqrt(_CAUTION)
    n_ways = len(candidates)
    left = np.concatenate([roots, caution * np.eye(n_ways), np.full((1, n_ways), _EXACTLY)])
    shares = nnls(left, np.concatenate([np.zeros(n_ways), caution * np.eye(n_ways)[single], [_EXACTLY]]))[0]
    shares[shares < _LEAST_SHARE * shares.sum()] = 0
    shares /= shares.sum()
    return tuple(way._replace(share=float(share)) for way, share in zip(candidates, shares, strict=True) if share > 0)


def as_array(ways: Sequence[Sequence[Way]]) -> NDArray[np.float64]:
    """Ways of angles and of means as numbers (2, ways, 5): those of which there are fewer have more, with shares of 0."""
    found = np.zeros((len(ways), max(len(each) for each in ways), len(Way._fields)))
    for place, each in enumerate(ways):
        found[place, :, 0] = _USUAL.reach
        found[place, : len(each)] = each
    return found


def from_array(numbers: NDArray[np.floating]) -> list[tuple[Way, ...]]:
    """Ways of angles and of means from :func:`as_array`."""
    return [tuple(Way(*way) for way in each.tolist() if way[-1] > 0) for each in numbers]


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
