"""Latents that cells of a condition share in their responses, and how they are carried to conditions without cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from perturbflow.flow._arrays import Arrays, pack, unpack
from perturbflow.flow._hurdle_distribution import Context, HurdleDistribution
from perturbflow.flow._joint_move import move_jointly
from perturbflow.flow._prior import AdditiveHurdlePrior
from perturbflow.flow._response_factor import LEAST_EVIDENCE, N_AMOUNTS, ResponseFactor
from perturbflow.flow._response_fit import Cells, ControlStates, control_cells, find_factors

_CONTEXT_SCALE = 0.5  # of squared distances between contexts, beside those of the prior
_LEAST_ALIKE = 0.3


@dataclass(frozen=True, eq=False)
class Responses(Arrays):
    """Latents of the responses of training conditions, which say who responds and what rises together.

    Cells drawn from the prior gene by gene, and control cells shifted gene by gene, have no responders and no programs
    beyond those of controls. What the cells of a condition have beside that is kept as a few latents
    (:class:`ResponseFactor`), found where cells of their own confirm them.

    A condition without cells has the latents of its components, each independent of the others: of the contexts where
    the component was seen those that resemble the asked one count most, and one in which cells were looked at in vain
    counts as none, as far as a latent of that size would have been found among so many. Shares and means of its genes
    are those of the distribution.

    Parameters
    ----------
    groups
        Training group of the prior of every latent (r,), ascending.
    loadings
        How shares and means follow the amounts (2, r, G).
    amounts
        Quantiles of the amounts (r, Q).
    couplings
        Weights of the states of control cells (r, K).
    evidence
        How well every latent is confirmed, in standard errors (r,).
    tested
        Whether a training group had cells enough to tell (g,).
    state_loadings, state_covariances
        States of control cells: see :class:`ControlStates` (K, G).

    Examples
    --------
    >>> import perturbflow as pf
    >>> rng = np.random.default_rng(0)
    >>> x = rng.poisson(0.3, (600, 20)).astype(np.float32)
    >>> x[300:450, :10] += rng.poisson(1.5, (150, 10))  # half of the perturbed cells respond
    >>> cells = pf.flow.CellData(np.log1p(x), np.repeat([[0.0], [1.0]], 300, axis=0), np.zeros((600, 0), dtype=int))
    >>> prior = pf.flow.AdditiveHurdlePrior.fit(cells)
    >>> responses = pf.flow.Responses.fit(prior, cells)
    >>> context = prior.context(np.zeros(0, dtype=int))
    >>> (latent,) = responses.of(prior, np.ones(1), context)
    >>> float((latent.amounts > 0).mean().round(1))  # the share of responders
    0.5
    """

    _packed = {"loadings": ("loading_codes", "loading_steps")}

    groups: NDArray[np.int64]
    loadings: NDArray[np.float32]
    amounts: NDArray[np.float32]
    couplings: NDArray[np.float32]
    evidence: NDArray[np.float64]
    tested: NDArray[np.bool_]
    state_loadings: NDArray[np.float32]
    state_covariances: NDArray[np.float32]

    @classmethod
    def none(cls, prior: AdditiveHurdlePrior) -> Self:
        """No latents: every gene moves for itself.

        Parameters
        ----------
        prior
            The prior.

        Returns
        -------
        Responses that leave what the prior moves as it is.
        """
        empty = ControlStates.none(prior.n_genes)
        return cls._of({}, np.zeros(len(prior.group_contexts), dtype=bool), empty)

    @classmethod
    def fit(cls, prior: AdditiveHurdlePrior, cells: Cells, *, seed: int = 0) -> Self:
        """Find the latents of the training conditions.

        Parameters
        ----------
        prior
            The prior, fitted to the cells.
        cells
            Training cells: :class:`CellData`, or anything else with ``x[rows]`` and ``grouping()``. At most some
            hundred of a condition are looked at.
        seed
            Of the choice of these cells and of what is random in moving controls.

        Returns
        -------
        The responses.
        """
        states = ControlStates.fit(control_cells(cells, seed=seed), prior.n_genes)
        return cls._of(*find_factors(prior, cells, states, seed=seed), states)

    @classmethod
    def _of(cls, found: dict[int, list[ResponseFactor]], tested: NDArray[np.bool_], states: ControlStates) -> Self:
        factors = [factor for group in sorted(found) for factor in found[group]]
        n_states, n_genes = states.loadings.shape
        loadings = np.array([[factor.share for factor in factors], [factor.value for factor in factors]])
        return cls(
            groups=np.array([group for group in sorted(found) for _ in found[group]], dtype=np.int64),
            loadings=unpack(*pack(loadings.reshape(2, len(factors), n_genes).astype(np.float32))),
            amounts=np.array([factor.amounts for factor in factors], dtype=np.float32).reshape(len(factors), N_AMOUNTS),
            couplings=np.array([factor.coupling for factor in factors], dtype=np.float32).reshape(
                len(factors), n_states
            ),
            evidence=np.array([factor.evidence for factor in factors], dtype=np.float64),
            tested=tested,
            state_loadings=states.loadings,
            state_covariances=states.covariances,
        )

    @cached_property
    def states(self) -> ControlStates:
        """States of control cells."""
        return ControlStates(self.state_loadings, self.state_covariances)

    def move(
        self,
        prior: AdditiveHurdlePrior,
        controls: NDArray[np.float32],
        distribution: HurdleDistribution,
        context: Context,
        factors: Sequence[ResponseFactor],
        *,
        rng: np.random.Generator,
    ) -> NDArray[np.float32]:
        """Move control cells to a distribution, with the latents of the condition.

        Parameters
        ----------
        prior
            The prior.
        controls
            Control cells (n, G).
        distribution, context, rng
            The distribution to reach, arrays (G,), the context of the control cells, and source of randomness.
        factors
            The latents, from :meth:`of`; without any this is the prior's own move.

        Returns
        -------
        Shifted cells (n, G), a new array.
        """
        return move_jointly(prior, controls, distribution, context, factors, self.states.of(controls), rng=rng)

    def of(
        self, prior: AdditiveHurdlePrior, perturbation: NDArray[np.floating], context: Context
    ) -> list[ResponseFactor]:
        """Latents of a condition.

        Parameters
        ----------
        prior
            The prior.
        perturbation, context
            Dose of every component (P,), all zero for control, which has none, and where it is applied.

        Returns
        -------
        The latents; none where cells were looked at and had none, or where nothing is known.
        """
        doses = prior.within(perturbation)
        if context.index is not None:
            (group,) = prior.groups.find(doses, np.array([context.index]))
            if group >= 0 and self.tested[group]:
                return self._own(int(group))
        found = []
        for component, dose in zip(doses.indices.tolist(), doses.data.tolist(), strict=True):
            found += self._carried(prior, component, dose, context)
        return found

    def _own(self, group: int) -> list[ResponseFactor]:
        first, last = np.searchsorted(self.groups, [group, group + 1])
        return [
            ResponseFactor(
                self.loadings[0, row].astype(np.float64),
                self.loadings[1, row].astype(np.float64),
                self.amounts[row].astype(np.float64),
                self.couplings[row].astype(np.float64),
                float(self.evidence[row]),
            )
            for row in range(int(first), int(last))
        ]

    def _carried(
        self, prior: AdditiveHurdlePrior, component: int, dose: float, context: Context
    ) -> list[ResponseFactor]:
        """Latents of a component from where it was seen."""
        groups = self._sources(prior, component, dose)
        if context.index is not None and (prior.group_contexts[groups] == context.index).any():
            groups = groups[prior.group_contexts[groups] == context.index]
        if not len(groups):
            return []
        distances = context.distances[prior.group_contexts[groups]]
        weights = np.exp(-(distances - distances.min()) / _CONTEXT_SCALE) * prior.group_cells[groups]
        weights /= weights.sum()
        latents = {int(group): self._own(int(group)) for group in groups}
        with_any = [i for i, group in enumerate(groups) if latents[int(group)]]
        if not with_any:
            return []
        first = max(with_any, key=lambda i: weights[i])
        return [
            _mean_of_alike(
                factor,
                [latents[int(group)] for group in groups],
                weights,
                prior.group_cells[groups] / prior.group_cells[groups[first]],
            )
            for factor in latents[int(groups[first])]
        ]

    def _sources(self, prior: AdditiveHurdlePrior, component: int, dose: float) -> NDArray[np.int64]:
        """Tested groups that have a component: alone if there are any, and of the doses next to the asked one."""
        groups = prior.groups.with_component(component).astype(np.int64)
        groups = groups[self.tested[groups]]
        alone = np.diff(prior.group_starts)[groups] == 1
        groups = groups[alone] if alone.any() else groups
        if not len(groups):
            return groups
        away = np.abs(np.log([self._dose(prior, group, component) / dose for group in groups.tolist()]))
        return groups[away <= away.min() + 1e-6]

    @staticmethod
    def _dose(prior: AdditiveHurdlePrior, group: int, component: int) -> float:
        own = slice(prior.group_starts[group], prior.group_starts[group + 1])
        return float(prior.group_amounts[own][prior.group_components[own] == component][0])


def _mean_of_alike(
    factor: ResponseFactor,
    others: Sequence[Sequence[ResponseFactor]],
    weights: NDArray[np.float64],
    cells: NDArray[np.float64],
) -> ResponseFactor:
    """Weighted mean of a latent and of those of other conditions that are most like it.

    A condition without one like it counts as zero, as far as it should have been found with ``cells`` times as many
    cells.
    """
    share, value = np.zeros((2, len(factor.share)))
    amounts, coupling = np.zeros_like(factor.amounts), np.zeros_like(factor.coupling)
    found, total = 0.0, 0.0
    for latents, weight, times in zip(others, weights, cells, strict=True):
        cosines = [_cosine(_loadings(factor), _loadings(each)) for each in latents]
        if not cosines or max(np.abs(cosines)) < _LEAST_ALIKE:
            total += weight * float(np.clip(factor.evidence * np.sqrt(times) / LEAST_EVIDENCE - 1, 0, 1))
            continue
        nearest = int(np.argmax(np.abs(cosines)))
        sign, other = float(np.sign(cosines[nearest])), latents[nearest]
        share, value = share + weight * sign * other.share, value + weight * sign * other.value
        amounts = amounts + weight * np.sort(sign * other.amounts)
        coupling = coupling + weight * sign * other.coupling
        found, total = found + weight, total + weight
    amounts = amounts / found
    # What a distribution lacks is known where there are cells; elsewhere means are those of the prior.
    amounts = amounts - amounts.mean()
    return replace(factor, share=share / total, value=value / total, amounts=amounts, coupling=coupling / found)


def _loadings(factor: ResponseFactor) -> NDArray[np.float64]:
    return np.concatenate([factor.share, factor.value])


def _cosine(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    size = float(np.linalg.norm(x) * np.linalg.norm(y))
    return float(x @ y) / size if size > 0 else 0.0
