"""The additive hurdle prior: every gene's distribution in every condition, in closed form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from perturbflow.flow._data import CellData, Expression
from perturbflow.flow._feature_effects import nearest_distances
from perturbflow.flow._group_sums import GroupSums
from perturbflow.flow._hurdle_distribution import LOWEST_EXPRESSION, Context, HurdleDistribution, share_at
from perturbflow.flow._joint_move import stratified_uniforms
from perturbflow.flow._prior_arrays import PriorArrays
from perturbflow.flow._prior_fit import Pool, fit_hurdle, safe_divide, shrink_base, squared_distances
from perturbflow.flow._uncertainty import DistributionUncertainty, distribution_uncertainty

__all__ = ["AdditiveHurdlePrior", "Context", "HurdleDistribution"]

_LOWEST_PROBABILITY = 1e-4
_VALUES_AT_ONCE = 4_000_000


@dataclass(frozen=True, eq=False)
class AdditiveHurdlePrior(PriorArrays):
    r"""A hurdle model per gene, additive in context and perturbations on the scale of angles and means.

    In context c under weights w_l of dose levels l (:class:`DoseLevels`; 1 for a component at a measured dose), the
    share p of cells that express a gene is

    ``2 arcsin sqrt p = base_c + sum_l w_l (shared_c + effect_lc) + interaction``

    and the same for the mean m of its expressed values. ``base`` comes from the context's controls, ``shared`` is the
    mean effect of a perturbation, ``effect_lc`` what a component at a dose adds to it. Effects are shrunken towards
    what the features of the component say, or zero without any (:func:`regress_effects`), and borrowed between contexts
    whose controls resemble each other (:func:`posterior_effects`). Where a component was not measured its change is
    carried from the contexts most alike (:func:`carried`); interactions of perturbations and contexts are added where
    others were measured, or where controls alone tell what a context does (:class:`ControlFactors`), if these show that
    it is better. A component never seen in training has the effect that its features say, and without any the mean
    effect. ``interaction`` is what remains in a training condition; it is 0 in conditions never seen.

    Use :meth:`fit`; the fields are plain arrays, C contexts, K covariates, P components with F features, L dose levels,
    g training groups (a perturbation in a context), G genes. A leading axis of 2 is angle and mean.

    Parameters
    ----------
    contexts, n_controls
        Codes of the covariates of every context (C, K), and its number of control cells (C,).
    control_expressed, control_mean, control_profile
        Of the controls of every context: share that expresses a gene, mean of the expressed values, mean (C, G).
    distance_unit
        Median squared distance between profiles of contexts that have perturbed cells (1,).
    carry
        Ways in which changes of angles and means are carried to contexts without them (2, ways, 5): reach, scale,
        whether large changes end where they ended, whether log-odds of shares are added, and share in the average.
    pool_expressed
        Share of the controls of all contexts that expresses a gene (G,).
    all_expressed, all_mean
        Of all training cells: share that expresses a gene, and mean of the expressed values (G,).
    variance
        Variance s^2 of the expressed values of a gene, in every condition (G,).
    level_components, level_doses
        Component and dose of every dose level (L,).
    trained
        Whether a component has training cells (P,).
    shared, effects
        Mean effect of a perturbation (2, C, G), and what every level adds to it (2, L, C, G).
    group_starts, group_components, group_amounts
        Components of all training groups, one after the other, and their doses; where those of every group begin, and
        the end of the last (g + 1,).
    group_contexts, group_cells
        Of every training group: number of the context and of the cells (g,).
    interactions
        What remains in every training group (2, g, G).
    effect_variances, interaction_variances, context_variances
        Posterior variances of effects (2, L, G), and variances of interactions and of effects between contexts (2, G).
    told_variances
        How much of the latter the effects that were measured in a context tell of those that were not (2, C, G).
    base_precisions
        What the perturbed cells of a context add to the precision of its base (2, C, G).
    features, fraction
        Features of the components (P, F), and the share of the variance of effects that they explain (2, 1).
    level_factors, context_factors, gene_factors, slope, read_variances
        What controls tell of effects in contexts where none was measured: factors of levels (2, L, K'), contexts
        (2, C, K') and genes (2, K', G), the slope that leaving contexts out gives to it (2, 1), 0 where they say
        nothing, and how much of the variance between contexts is told (2, G).

    Notes
    -----
    The idea that what is known about zeros belongs into the model in closed form, and that effects which transfer
    should be additive in it, follows the additive baselines of Ahlmann-Eltze et al. (Nature Methods 2025).

    Examples
    --------
    >>> import perturbflow as pf
    >>> rng = np.random.default_rng(0)
    >>> x = np.log1p(rng.poisson([3.0, 1.0], (200, 2)))
    >>> x[100:, 0] = 0  # the perturbation of the last 100 cells silences gene 0
    >>> cells = pf.flow.CellData(x, np.repeat([[0.0], [1.0]], 100, axis=0), np.zeros((200, 0), dtype=int))
    >>> prior = pf.flow.AdditiveHurdlePrior.fit(cells)
    >>> context = prior.context(np.zeros(0, dtype=int))
    >>> prior.distribution(np.zeros(1), context).expressed.round(1)
    array([1. , 0.7], dtype=float32)
    >>> prior.distribution(np.ones(1), context).expressed.round(1)
    array([0. , 0.7], dtype=float32)
    """

    @classmethod
    def fit(cls, cells: CellData | GroupSums, *, features: NDArray[np.floating] | None = None) -> Self:
        """Estimate the prior from training cells.

        Parameters
        ----------
        cells
            Training cells, or sums over them; every context needs control cells.
        features
            Features of all components (P, F), also of those without cells, whose effects are then predicted from them.
            Rotations of the features make no difference, scales of its columns do.

        Returns
        -------
        The fitted prior.

        Raises
        ------
        ValueError
            If a context has no control cells, or features are not finite or not of as many components.
        """
        return cls(**fit_hurdle(cells if isinstance(cells, GroupSums) else GroupSums.of(cells), features))

    def context(self, covariates: NDArray[np.integer], controls: Expression | None = None) -> Context:
        """Look up a training context, or place a new one among them by its control cells.

        Parameters
        ----------
        covariates
            Codes of the covariates (K,).
        controls
            Control cells (n, G); needed only for a combination of covariates without training controls.

        Returns
        -------
        The context.

        Raises
        ------
        ValueError
            If the context is new and no control cells are given.
        """
        index = self._context_numbers.get(tuple(np.asarray(covariates).tolist()))
        if index is not None:
            n, expressed, mean = self.n_controls[index], self.control_expressed[index], self.control_mean[index]
            distances = self._distances(self.control_profile[[index]])
        else:
            if controls is None or controls.shape[0] == 0:
                msg = (
                    f"Expected control cells for the new context with covariate codes "
                    f"{np.asarray(covariates).tolist()}, found none. Pass the control cells to start from."
                )
                raise ValueError(msg)
            n = float(controls.shape[0])
            k = np.asarray((controls > 0).sum(axis=0), dtype=np.float64).reshape(1, -1)
            total = np.asarray(controls.sum(axis=0, dtype=np.float64)).reshape(1, -1)
            expressed, mean = k[0] / n, safe_divide(total, k)[0]
            distances = self._distances(total / n)
        expressed, mean = expressed.astype(np.float64), mean.astype(np.float64)
        pool = Pool(self.pool_expressed, self.all_expressed, self.all_mean, self.variance)
        base_angle, base_mean = shrink_base(float(n), expressed * n, expressed * n * mean, pool)
        return Context(index, distances, float(n), expressed, mean, base_angle, base_mean)

    def _distances(self, profile: NDArray[np.floating]) -> NDArray[np.float64]:
        known = self.control_profile.astype(np.float64)
        return squared_distances(profile.astype(np.float64), known)[0] / self.distance_unit[0]

    def distribution(self, perturbation: NDArray[np.floating], context: Context) -> HurdleDistribution:
        """Distribution of every gene under a perturbation.

        A dose between two training doses of a component has the effects of both in part; beyond the largest it counts
        as that: no extrapolation is invented.

        Parameters
        ----------
        perturbation, context
            Dose of every component (P,), all zero for control, and where it is applied, from :meth:`context`.

        Returns
        -------
        The distribution, arrays (G,).
        """
        doses = self.within(perturbation)
        if not doses.nnz:
            return self._control_distribution(context)
        design = self.levels.design(doses)
        change = np.zeros((2, self.n_genes))
        for level, weight in zip(design.indices, design.data, strict=True):
            change += weight * self.change(int(level), context)
        if context.index is not None:
            (group,) = self.groups.find(doses, np.array([context.index]))
            if group >= 0:
                change = change + self.interactions[:, group]
        return self._distribution(share_at(context.base_angle + change[0]), context.base_mean + change[1])

    def distributions(
        self, perturbations: NDArray[np.floating] | sparse.csr_matrix, covariates: NDArray[np.integer]
    ) -> HurdleDistribution:
        """Distributions of every gene in many conditions of training contexts at once, as :meth:`distribution` has each.

        Parameters
        ----------
        perturbations, covariates
            Of every condition: doses of all components (n, P), an array or a CSR matrix, and codes of covariates (n, K).

        Returns
        -------
        The distributions, shares and means (n, G) and variances (G,).

        Raises
        ------
        ValueError
            If a context is not one of training.
        """
        doses = self.within(perturbations)
        codes, which = np.unique(np.asarray(covariates), axis=0, return_inverse=True)
        contexts = [self.context(each) for each in codes]
        base = np.array([(context.base_angle, context.base_mean) for context in contexts]).reshape(-1, 2, self.n_genes)
        number = np.array([context.index for context in contexts], dtype=np.intp)[which.ravel()]
        controls = [self._control_distribution(context) for context in contexts]
        group, design = self.groups.find(doses, number), self.levels.design(doses)
        amount, is_control = np.asarray(design.sum(axis=1)).ravel(), np.diff(doses.indptr) == 0
        expressed, mean = np.empty((2, len(number), self.n_genes), dtype=np.float32)
        at_once = max(1, _VALUES_AT_ONCE // self.n_genes)
        for first in range(0, len(number), at_once):
            rows = np.arange(first, min(first + at_once, len(number)))
            change = amount[rows, None] * self.shared[:, number[rows]]
            starts, lengths = design.indptr[rows], np.diff(design.indptr)[rows]
            for place in range(int(lengths.max(initial=0))):
                more = np.flatnonzero(lengths > place)
                entry = starts[more] + place
                effects = self.effects[:, design.indices[entry], number[rows[more]]]
                change[:, more] += design.data[entry, None] * effects
            known = np.flatnonzero(group[rows] >= 0)
            change[:, known] += self.interactions[:, group[rows[known]]]
            change += base[which.ravel()[rows]].transpose(1, 0, 2)
            distribution = self._distribution(share_at(change[0]), change[1])
            expressed[rows], mean[rows] = distribution.expressed, distribution.mean
        for row in np.flatnonzero(is_control):
            distribution = controls[which.ravel()[row]]
            expressed[row], mean[row] = distribution.expressed, distribution.mean
        return HurdleDistribution(expressed, mean, self.variance)

    def _control_distribution(self, context: Context) -> HurdleDistribution:
        n = context.n_controls
        expressed = (context.expressed * n + share_at(context.base_angle)) / (n + 1)
        mean = (context.expressed * n * context.mean + 2 * context.base_mean) / (context.expressed * n + 2)
        return self._distribution(expressed, mean)

    def distribution_sd(self, perturbation: NDArray[np.floating], context: Context) -> DistributionUncertainty:
        """Return how well the distribution of a condition is known, gene by gene.

        The variances of these parts add up:

        - sampling of the base: of the controls, and of the perturbed cells of the context as far as they resemble them;
        - for every component with cells, what shrinkage leaves of the sampling of its effect;
        - at a dose that was not measured, the spread of the effects between the doses next to it;
        - for every component without, the spread of effects that neither the mean effect nor features explain;
        - in a context where a component was not seen, the variance of effects between contexts, the more the less the
          context resembles those where it was, and without what the effects measured there tell of it;
        - for a combination of k components, k - 1 times the variance of interactions, estimated where the training
          combinations tell, and otherwise a tenth of the mean square of an effect. A combination with cells is known
          from these as well.

        Doses enter as in :meth:`distribution`.

        Parameters
        ----------
        perturbation, context
            Dose of every component (P,), all zero for control, and where it is applied, from :meth:`context`.

        Returns
        -------
        Standard deviations, arrays (G,). They are the model's own and not calibrated on held-out conditions.
        """
        return distribution_uncertainty(self, perturbation, context, self.distribution(perturbation, context).expressed)

    def feature_distance(self, component: int) -> float:
        """Return how far a component is from the nearest other one with training cells, by its features.

        Parameters
        ----------
        component
            Number of the component.

        Returns
        -------
        Euclidean distance in units of its median over the components with training cells; NaN without features, or
        where fewer than two components have training cells.
        """
        return float(nearest_distances(self.features, self.trained)[component])

    def pooled_distribution(self) -> HurdleDistribution:
        """Distribution of every gene over all training cells: what is known when the condition is not.

        Returns
        -------
        The distribution, arrays (G,).
        """
        return self._distribution(self.all_expressed, self.all_mean)

    def _distribution(self, expressed: NDArray[np.floating], mean: NDArray[np.floating]) -> HurdleDistribution:
        return HurdleDistribution(
            np.clip(expressed, _LOWEST_PROBABILITY, 1 - _LOWEST_PROBABILITY).astype(np.float32),
            np.maximum(mean, LOWEST_EXPRESSION).astype(np.float32),
            self.variance,
        )

    def sample(
        self, distribution: HurdleDistribution, n_cells: int, *, rng: np.random.Generator
    ) -> NDArray[np.float32]:
        """Draw cells with independent genes.

        Parameters
        ----------
        distribution, n_cells, rng
            The distribution, arrays (G,), number of cells n, and source of randomness.

        Returns
        -------
        Cells (n, G).
        """
        shape = (n_cells, self.n_genes)
        expressed = rng.random(shape, dtype=np.float32) < distribution.expressed
        return np.where(expressed, distribution.expressed_values(shape, rng=rng), np.float32(0))

    def move(
        self,
        controls: NDArray[np.float32],
        distribution: HurdleDistribution,
        context: Context,
        *,
        rng: np.random.Generator,
    ) -> NDArray[np.float32]:
        """Move control cells to a distribution, changing as few entries as the marginals ask for.

        Expressed entries of a gene that becomes rarer are switched off with the probability that gives the new share;
        entries of one that becomes more frequent are switched on; expressed values move with the mean. The dependence
        between genes that the control cells carry stays, and their own distribution leaves them as they are. Which
        entries are switched is random, how many is not (but for rounding).

        Parameters
        ----------
        controls
            Control cells (n, G).
        distribution, context, rng
            The distribution to reach, arrays (G,), the context of the control cells, and source of randomness.

        Returns
        -------
        Shifted cells (n, G), a new array.
        """
        before = context.expressed
        n_expressing = before * context.n_controls
        keep = np.minimum(distribution.expressed / np.maximum(before, 1e-9), 1).astype(np.float32)
        switch_on = np.maximum((distribution.expressed - before) / np.maximum(1 - before, 1e-9), 0).astype(np.float32)
        # The mean of a handful of values says little about where they should move from.
        weight = n_expressing / (n_expressing + 1)
        shift = (weight * (distribution.mean - context.mean)).astype(np.float32)
        is_on = controls > 0
        uniform = stratified_uniforms(is_on, rng=rng)
        new = distribution.expressed_values(controls.shape, rng=rng)
        lowest = np.minimum(controls, np.float32(LOWEST_EXPRESSION))
        moved = np.where(uniform < keep, np.maximum(controls + shift, lowest), np.float32(0))
        return np.where(is_on, moved, np.where(uniform < switch_on, new, np.float32(0)))
