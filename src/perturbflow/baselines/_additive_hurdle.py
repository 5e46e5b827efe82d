"""The flow's own prior as baselines: what is left of the flow when its network says nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from perturbflow.baselines._sampler import of_fit, of_sample
from perturbflow.screen._named_arrays import check_unnamed

if TYPE_CHECKING:
    from typing import Self

    from numpy.typing import NDArray

    from perturbflow.flow import AdditiveHurdlePrior, CellData, Context, GroupSums, HurdleDistribution


class AdditiveHurdle:
    """Cells drawn gene by gene from the additive hurdle prior (:class:`perturbflow.flow.AdditiveHurdlePrior`).

    Right in every marginal that is additive in context and perturbations, without any dependence between genes: the
    flow from noise with its network at zero.

    Parameters
    ----------
    prior
        A prior that is estimated already; None where :meth:`fit` is to do so.

    Examples
    --------
    >>> import numpy as np
    >>> import perturbflow as pf
    >>> rng = np.random.default_rng(0)
    >>> x = np.log1p(rng.poisson([3.0, 1.0], (200, 2)))
    >>> x[100:, 0] = 0  # the perturbation of the last 100 cells silences gene 0
    >>> cells = pf.flow.CellData(x, np.repeat([[0.0], [1.0]], 100, axis=0), np.zeros((200, 0), dtype=int))
    >>> baseline = pf.baselines.AdditiveHurdle().fit(cells)
    >>> predicted = baseline.sample(cells.x[:100], np.ones(1), np.zeros(0, dtype=int), rng=rng)
    >>> (predicted > 0).mean(axis=0).round(1).tolist(), (x[100:] > 0).mean(axis=0).round(1).tolist()
    ([0.0, 0.6], [0.0, 0.6])
    """

    def __init__(self, prior: AdditiveHurdlePrior | None = None) -> None:
        self._prior = prior

    @of_fit
    def fit(self, cells: CellData | GroupSums) -> Self:
        """Estimate the prior."""
        from perturbflow.flow import AdditiveHurdlePrior  # here, because it loads torch

        self._prior = AdditiveHurdlePrior.fit(cells)
        return self

    @of_sample
    def sample(
        self,
        controls: NDArray[np.float32],
        perturbation: NDArray[np.float32],
        covariates: NDArray[np.int64],
        *,
        rng: np.random.Generator,
    ) -> NDArray[np.float32]:
        """Predict perturbed cells of one condition."""
        if self._prior is None:
            msg = f"Expected a fitted {type(self).__name__}. Call `fit` first."
            raise RuntimeError(msg)
        for name, value in (("controls", controls), ("perturbation", perturbation), ("covariates", covariates)):
            check_unnamed(value, name=name, order="the training cells")
        controls = np.asarray(controls, dtype=np.float32)
        expected = (self._prior.n_genes, len(self._prior.trained))
        if controls.ndim != 2 or (controls.shape[1], np.size(perturbation)) != expected:
            msg = (
                f"Expected controls of {expected[0]} genes and {expected[1]} components, as in the training cells, "
                f"found shapes {controls.shape} and {np.shape(perturbation)}."
            )
            raise ValueError(msg)
        context = self._prior.context(covariates, controls)
        return self._draw(self._prior, controls, self._prior.distribution(perturbation, context), context, rng)

    @staticmethod
    def _draw(
        prior: AdditiveHurdlePrior,
        controls: NDArray[np.float32],
        distribution: HurdleDistribution,
        context: Context,
        rng: np.random.Generator,
    ) -> NDArray[np.float32]:
        del context
        return prior.sample(distribution, len(controls), rng=rng)


class ShiftedControls(AdditiveHurdle):
    """Control cells shifted to the additive hurdle prior (:meth:`perturbflow.flow.AdditiveHurdlePrior.move`).

    The same marginals, and the dependence between genes of real cells: the control source of the flow with its
    network at zero. The hardest of the baselines where effects are additive.

    Parameters
    ----------
    prior
        A prior that is estimated already; None where :meth:`fit` is to do so.

    Examples
    --------
    >>> import numpy as np
    >>> import perturbflow as pf
    >>> rng = np.random.default_rng(0)
    >>> x = np.log1p(rng.poisson([3.0, 1.0], (200, 2)))
    >>> x[100:, 0] = 0  # the perturbation of the last 100 cells silences gene 0
    >>> cells = pf.flow.CellData(x, np.repeat([[0.0], [1.0]], 100, axis=0), np.zeros((200, 0), dtype=int))
    >>> baseline = pf.baselines.ShiftedControls().fit(cells)
    >>> predicted = baseline.sample(cells.x[:100], np.ones(1), np.zeros(0, dtype=int), rng=rng)
    >>> bool((predicted[:, 0] > 0).mean() < 0.05)  # gene 0 is silenced
    True
    >>> bool(((predicted[:, 1] > 0) == (x[:100, 1] > 0)).mean() > 0.8)  # where gene 1 was on, it still is
    True
    """

    @staticmethod
    def _draw(
        prior: AdditiveHurdlePrior,
        controls: NDArray[np.float32],
        distribution: HurdleDistribution,
        context: Context,
        rng: np.random.Generator,
    ) -> NDArray[np.float32]:
        return prior.move(controls, distribution, context, rng=rng)
