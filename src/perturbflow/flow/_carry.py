"""Carrying a change from contexts where it was measured to contexts where it was not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import nnls

from perturbflow.flow._context_covariance import ContextCovariance
from perturbflow.flow._measurements import Measurements, alone
from perturbflow.flow._shrinkage import shrink_apart

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
    """Way in which a change is carried."""

    reach: float  # squared distance, in units of the median, over which a context counts less by 1 / e
    scale: float = 1.0  # how much of the average change is carried
    ends: float = 1.0  # whether a large change ends where it ended elsewhere (1) or adds what it added there (0)
    odds: float = 0.0  # whether angles change by their log-odds (1), little near shares of 0 and 1, or as they are (0)
    share: float = 1.0  # of the way where several are averaged


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
    r"""Change (..., G) in a context where it was not measured, from the changes (O, G) and bases (O, G) where it was.

    Contexts count by their resemblance, :math:`w_c \propto \exp(-D_c / \text{reach})`, with distances (..., O). A small
    change adds to the base (..., G); of a large one, :math:`\delta = \sum_c w_c \delta_c`, a part
    :math:`\delta^2 / (\delta^2 + \Delta^2 + 1)` of the difference :math:`\Delta` of the average base from the context's own
    is added, so that it ends where it ended elsewhere. Several ways are averaged by their shares.
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
    """Return how contexts count on average over ways (..., O), as far as changes are small."""
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
    """Training contexts, and how changes are carried between them."""

    distances: NDArray[np.float64]  # squared, between contexts (C, C), in units of their median
    bases: NDArray[np.float64]  # what changes are added to in every context (C, G)
    measured: NDArray[np.intp]  # contexts that have perturbed cells (M,), ascending
    covariances: Sequence[ContextCovariance]  # candidates, of an effect between these
    weights: NDArray[np.float64]  # how much a gene's error counts where ways are compared (G,)
    ways: tuple[Way, ...] = (_USUAL,)  # how changes are carried
    candidates: tuple[Way, ...] = _WAYS  # how they might be

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

    def errors(self, measured: Measurements) -> NDArray[np.float64]:
        """Products of the errors of every two candidates in contexts left out, summed over levels and genes (C, W, W).

        Levels are those of :func:`compared_groups`; contexts where nothing was compared have 0.
        """
        found = np.zeros((self.n_contexts, len(self.candidates), len(self.candidates)))
        root = np.sqrt(self.weights)
        for rows in _alone(measured.design, measured.which):
            contexts = measured.which[rows]
            changes = measured.effects[rows].astype(np.float64)
            shrunken = shrink_apart(changes, measured.variances[rows], measured.scales, measured.strata)[0]
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

    First a single way of both, e: other than the usual one if the log squared error of a context is lower by more than two
    standard errors. Shares w then minimise :math:`\sum_c w^T E_c w / s_c + |w - e|^2`, with products of errors
    :math:`E_c` (C, W, W) from :meth:`Carry.errors` and the squared error s in the usual way, which stays where fewer than
    three contexts tell.
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
    """Groups by which ways are compared, ascending: of one level and no other, of at most a hundred levels."""
    return np.sort(np.concatenate([np.zeros(0, dtype=np.intp), *_alone(design, which)]))


def _alone(design: sparse.csr_matrix, which: NDArray[np.integer]) -> list[NDArray[np.intp]]:
    """Groups of one level and no other, for levels that several contexts have."""
    groups, level = alone(design)
    found = []
    for own in np.split(groups[np.argsort(level, kind="stable")], np.cumsum(np.bincount(level, minlength=1))[:-1]):
        contexts, firsts = np.unique(which[own], return_index=True)
        if len(contexts) > 1:
            found.append(own[firsts])
    return found[:: max(1, len(found) // _MOST_LEVELS)][:_MOST_LEVELS]
