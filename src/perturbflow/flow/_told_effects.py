"""Effects of perturbations whose interactions with contexts follow from a few factors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from perturbflow.flow._context_covariance import FactorCovariance
from perturbflow.flow._shrinkage import posterior_effects, shrink_apart

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from perturbflow.flow._interaction_factors import InteractionFactors, PerturbationFactors, Rows
    from perturbflow.flow._measurements import Measurements

# Shares of an effect beyond its interactions that all contexts may have in common: without these no two are more alike.
_COMMON_SHARES = (0.1, 0.7)
_FEWEST_FOR_OFFSETS = 3  # effects of a context
_PERTURBATIONS_AT_ONCE = 16
_LEAST = 1e-9


@dataclass(frozen=True, eq=False)
class Interactions:
    """Interactions in all genes, as predicted by factors."""

    factors: InteractionFactors
    known: PerturbationFactors  # what rows tell of the perturbations
    genes: NDArray[np.float64]  # what the factors do to genes (K, G)

    def of(self, number: int) -> NDArray[np.float64]:
        """Interactions of a perturbation in all contexts (C, G)."""
        return (self.known.factors[number] * self.factors.contexts) @ self.genes

    def unknown(self, numbers: NDArray[np.intp], contexts: NDArray[np.intp]) -> NDArray[np.float64]:
        """Variance of what is not known of the interactions of some pairs, on average over them (G,)."""
        known = self.known
        apart = self.factors.contexts[contexts] - known.centre[numbers]
        unknown = known.covariances[numbers] * apart[:, :, None] * apart[:, None]
        unknown += known.squares[numbers] * self.factors.context_covariances[contexts]
        return quadratic(unknown.mean(axis=0), self.genes)


def quadratic(matrix: NDArray[np.float64], genes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Value of a quadratic form (K, K) for every gene (K, G)."""
    return (genes * (matrix @ genes)).sum(axis=0)


class Effect(NamedTuple):
    """Effect of a perturbation in all contexts (C, G), in which it was measured (n,), its variance there (G,)."""

    everywhere: NDArray[np.float64]
    observed: NDArray[np.intp]
    variance: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ToldEffects:
    """Measured effects :math:`e_p + i_{pc} + o_c + r_{pc}` with interactions i that are known.

    What is left without them, e, is the same in all contexts but for a rest r, and for an offset o that all effects of
    a context share: the errors of its controls above all, for which the effects of few other perturbations are enough.
    """

    measured: Measurements
    shared: NDArray[np.float64]  # mean effect of a perturbation (C, G), which is taken from the measured
    groups: NDArray[np.intp]  # of a single perturbation (N,)
    rows: Rows  # which perturbation and context these are of
    interactions: Interactions  # of these
    scales: Sequence[float]  # candidate standard deviations of true effects
    rest: NDArray[np.float64]  # variance of r (G,)
    offsets: NDArray[np.float64]  # o (C, G)

    @classmethod
    def fit(
        cls,
        measured: Measurements,
        shared: NDArray[np.float64],
        groups: NDArray[np.intp],
        rows: Rows,
        interactions: Interactions,
        scales: Sequence[float],
    ) -> ToldEffects:
        """Estimate the variance of the rest, then the offsets."""
        nothing = np.zeros(shared.shape)
        found = cls(measured, shared, groups, rows, interactions, scales, nothing[0], nothing)
        found = cls(measured, shared, groups, rows, interactions, scales, found._variance_of_rest(), nothing)
        return cls(measured, shared, groups, rows, interactions, scales, found.rest, found._offsets())

    def _of(self, number: int) -> tuple[NDArray[np.intp], NDArray[np.float64], NDArray[np.float64]]:
        """Contexts where a perturbation was measured (n,), effects there without what is known, and their noise (n, G)."""
        members = self.rows.by_perturbation
        own = members.indices[slice(*members.indptr[number : number + 2])]
        contexts, groups = self.rows.contexts[own], self.groups[own]
        changes = self.measured.effects[groups] - (self.shared + self.interactions.of(number) + self.offsets)[contexts]
        return contexts, changes, self.measured.variances[groups].astype(np.float64)

    @property
    def _several(self) -> NDArray[np.intp]:
        """Perturbations that were measured in several contexts."""
        return np.flatnonzero(np.diff(self.rows.by_perturbation.indptr) > 1)

    def _variance_of_rest(self) -> NDArray[np.float64]:
        """Return what effects vary by between contexts beyond their noise (G,)."""
        total, freedom = np.zeros(self.shared.shape[1]), 0
        for number in self._several:
            contexts, changes, noise = self._of(int(number))
            n = len(contexts)
            total += np.square(changes - changes.mean(axis=0)).sum(axis=0) - (1 - 1 / n) * noise.sum(axis=0)
            freedom += n - 1
        return np.maximum(total / max(freedom, 1), 0)

    def _offsets(self) -> NDArray[np.float64]:
        """Return how far the effects of a context are from what others say of the same perturbations (C, G), shrunken."""
        total, precision = np.zeros((2, *self.shared.shape))
        number_of = np.zeros(len(self.shared), dtype=np.intp)
        for number in self._several:
            contexts, changes, noise = self._of(int(number))
            weights = 1 / (noise + self.rest)
            of_others = np.maximum(weights.sum(axis=0) - weights, _LEAST)
            others = ((weights * changes).sum(axis=0) - weights * changes) / of_others
            certain = 1 / (1 / weights + 1 / of_others)
            total[contexts] += certain * (changes - others)
            precision[contexts] += certain
            number_of[contexts] += 1
        enough = number_of >= _FEWEST_FOR_OFFSETS
        found = np.zeros(self.shared.shape)
        if enough.any():
            offsets, noise = total[enough] / precision[enough], 1 / precision[enough]
            variance = np.maximum((np.square(offsets) - noise).mean(axis=0), 0)
            found[enough] = offsets * variance / (variance + noise)
        return found

    def effects(self, numbers: NDArray[np.intp], expected: NDArray[np.float64]) -> Iterator[Effect]:
        """Effects of perturbations (n,) beyond the shared part, one by one, shrunken towards ``expected`` (n, G).

        Where they were measured the rest is kept as far as it stands out of the noise; elsewhere there is none.
        """
        for first in range(0, len(numbers), _PERTURBATIONS_AT_ONCE):
            block = slice(first, first + _PERTURBATIONS_AT_ONCE)
            found = [self._of(int(number)) for number in numbers[block]]
            weights = [1 / (noise + self.rest) for _, _, noise in found]
            precision = np.array([each.sum(axis=0) for each in weights])
            mean = np.array([(w * changes).sum(axis=0) for w, (_, changes, _) in zip(weights, found, strict=True)])
            mean = mean / precision - expected[block]
            conserved = shrink_apart(mean, 1 / precision, self.scales, self.measured.strata)[0] + expected[block]
            for number, parts, what, centre in zip(numbers[block], found, conserved, expected[block], strict=True):
                yield self._effect(int(number), *parts, what, centre)

    def _effect(
        self,
        number: int,
        observed: NDArray[np.intp],
        changes: NDArray[np.float64],
        noise: NDArray[np.float64],
        conserved: NDArray[np.float64],
        expected: NDArray[np.float64],
    ) -> Effect:
        """Effect of which the conserved part is known."""
        known = self.interactions.of(number) + self.offsets
        everywhere = known + conserved
        n_contexts = len(self.shared)
        own, spread = posterior_effects(
            (changes - expected).T,
            noise.T,
            observed=observed.tolist(),
            covariances=[
                FactorCovariance(np.full((n_contexts, 1), np.sqrt(share)), np.full(n_contexts, 1 - share))
                for share in _COMMON_SHARES
            ],
            scales=self.scales,
            strata=self.measured.strata,
        )
        everywhere[observed] = own.T + known[observed] + expected
        # An error of the interactions counts as far as the measured effect does not make up for it.
        unknown = self.interactions.unknown(np.full(len(observed), number), observed)
        kept = np.clip(spread.T / noise, 0, 1)
        return Effect(everywhere, observed, (spread.T + np.square(1 - kept) * unknown).mean(axis=0))
