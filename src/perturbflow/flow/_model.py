"""Conditional flow matching from noise, or from shifted control cells, to perturbed cells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from perturbflow.flow._batches import ConditionEncoder
from perturbflow.flow._config import NETWORKS, FlowConfig
from perturbflow.flow._joint_move import stratified_normals
from perturbflow.flow._objective import point_on_path
from perturbflow.flow._parametrisation import PARAMETRISATIONS, GeneDistribution
from perturbflow.flow._prior import AdditiveHurdlePrior, Context, HurdleDistribution
from perturbflow.flow._response_factor import ResponseFactor
from perturbflow.flow._responses import Responses
from perturbflow.flow._solver import integrate
from perturbflow.flow._support import GeneSupport

PREDICTION_SETTINGS = frozenset(
    {"source", "entry_time", "correction_scale", "guidance", "stratified", "method", "n_steps"}
)
_CELLS_AT_ONCE = 2048


class ConditionalFlow(nn.Module):
    """A flow that turns noise into cells of a condition.

    One network is trained on the path from noise to cells, as in PRiMeFlow. With ``source="noise"`` a prediction
    follows the whole path. With ``source="control"`` the path is entered at time ``entry_time`` from
    ``(1 - entry_time) noise + entry_time * (control cell moved by the prior)``: the flow then corrects a first guess,
    each prediction belongs to a control cell, and the dependence between genes is kept as far as ``entry_time`` asks
    (the idea of SDEdit, Meng et al. 2022, arXiv 2108.01073, with the additive prior as the guide). Control cells are
    moved with what cells of the condition share in their response (:class:`Responses`).

    Parameters
    ----------
    config
        Shape and settings.
    prior
        The fitted prior.
    responses
        What cells of conditions share, fitted with this prior; by default control cells move gene by gene.
    support
        Which values genes have, within which predictions are; by default any.
    seed
        Seed of the initial weights; the global generator is left alone.

    Raises
    ------
    ValueError
        If the prior is of other genes or components than the configuration.

    Examples
    --------
    >>> import perturbflow as pf
    >>> rng = np.random.default_rng(0)
    >>> x = np.log1p(rng.poisson([3.0, 1.0], (200, 2)))
    >>> x[100:, 0] = 0  # the perturbation of the last 100 cells silences gene 0
    >>> cells = pf.flow.CellData(x, np.repeat([[0.0], [1.0]], 100, axis=0), np.zeros((200, 0), dtype=int))
    >>> prior = pf.flow.AdditiveHurdlePrior.fit(cells)
    >>> flow = pf.flow.ConditionalFlow(pf.flow.FlowConfig(n_genes=2, n_components=1, n_categories=()), prior)
    >>> predicted = flow.sample(cells.x[:100], np.ones(1), np.zeros(0, dtype=int), rng=rng, source="noise")
    >>> predicted.shape, (predicted > 0).mean(axis=0).round(1).tolist()  # untrained: the distribution of the prior
    ((100, 2), [0.0, 0.7])
    """

    mixed_precision: bool = False
    """True if the network's matrix products are in bfloat16."""

    @torch.inference_mode(mode=False)  # else the weights could never be trained
    def __init__(
        self,
        config: FlowConfig,
        prior: AdditiveHurdlePrior,
        *,
        responses: Responses | None = None,
        support: GeneSupport | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if (config.n_genes, config.n_components) != (prior.n_genes, len(prior.trained)):
            msg = (
                f"Expected a prior of {config.n_genes} genes and {config.n_components} components, found one of "
                f"{prior.n_genes} and {len(prior.trained)}. Fit both to the same cells."
            )
            raise ValueError(msg)
        self.config = config
        self.prior = prior
        if responses is not None:
            self.responses = responses
        self.support = GeneSupport.unknown(prior.n_genes) if support is None else support
        self.parametrisation = PARAMETRISATIONS[config.parametrisation]
        features = prior.features if prior.features.shape[1] else None
        self.encoder = ConditionEncoder(config.n_components, config.n_categories, features)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = NETWORKS[config.network](
                config.n_genes,
                self.parametrisation.n_outputs,
                self.encoder.size,
                **config.network_settings,
            ).float()  # also where another type is the default

    @property
    def prior(self) -> AdditiveHurdlePrior:
        """The prior. A new one is without latents of responses, which belong to the groups that it was fitted to."""
        return self._prior

    @prior.setter
    def prior(self, prior: AdditiveHurdlePrior) -> None:
        self._prior = prior
        self.responses = Responses.none(prior)

    @property
    def device(self) -> torch.device:
        """Return where the weights are."""
        return next(self.parameters()).device

    def configure(self, **changes: Any) -> Self:
        """Change settings of prediction.

        Parameters
        ----------
        **changes
            New values of ``source``, ``entry_time``, ``correction_scale``, ``guidance``, ``stratified``, ``method`` or
            ``n_steps``; see :class:`FlowConfig`.

        Returns
        -------
        The flow itself.

        Raises
        ------
        TypeError
            If a setting is none of prediction.
        ValueError
            If a value is out of its range.
        """
        self.config = self._changed(changes)
        return self

    def _changed(self, changes: dict[str, Any]) -> FlowConfig:
        fixed = sorted(changes.keys() - PREDICTION_SETTINGS)
        if fixed:
            msg = f"Expected settings of prediction, {sorted(PREDICTION_SETTINGS)}, found {fixed}. Fit a new flow."
            raise TypeError(msg)
        return replace(self.config, **changes)

    def encode(self, perturbations: NDArray[np.floating], covariates: NDArray[np.integer]) -> Tensor:
        """Encode conditions for the network.

        Parameters
        ----------
        perturbations
            Doses (n, P); the network gets their positions among those in training (:meth:`DoseLevels.positions`).
        covariates
            Codes of the covariates (n, K).

        Returns
        -------
        Encoded conditions (n, size).
        """
        positions = self.prior.levels.positions(np.asarray(perturbations, dtype=np.float32))
        return self.encoder.encode(
            torch.as_tensor(positions, device=self.device), torch.as_tensor(np.asarray(covariates), device=self.device)
        )

    def velocity(
        self, x: Tensor, t: Tensor, distribution: GeneDistribution, condition: Tensor, *, correction_scale: float = 1.0
    ) -> Tensor:
        """Velocity of the flow; all arguments broadcast.

        Parameters
        ----------
        x, t
            Points (..., n, G) and times (..., n, 1).
        distribution, condition
            Distribution of every gene (..., n, G), and encoded conditions (..., n, size).
        correction_scale
            Factor on the network's output.

        Returns
        -------
        Velocities (..., n, G).
        """
        return self.parametrisation.velocity(
            x, t, distribution, self._outputs(x, t, distribution, condition, correction_scale)
        )

    def _outputs(
        self, x: Tensor, t: Tensor, distribution: GeneDistribution, condition: Tensor, correction_scale: float
    ) -> Tensor:
        inputs = self.parametrisation.inputs(x, t, distribution)
        with torch.autocast(inputs.device.type, dtype=torch.bfloat16, enabled=self.mixed_precision):
            output = self.network(inputs, t, condition)
        output = output.to(inputs.dtype)
        return output if correction_scale == 1 else correction_scale * output

    def gene_distribution(self, distribution: HurdleDistribution) -> GeneDistribution:
        """A prior's distribution as tensors on the device.

        Parameters
        ----------
        distribution
            The distribution, arrays (..., G).

        Returns
        -------
        The distribution, tensors (..., G).
        """
        return GeneDistribution(
            *(
                torch.as_tensor(a, device=self.device)
                for a in (distribution.expressed, distribution.mean, distribution.variance)
            )
        )

    @torch.inference_mode()
    def sample(
        self,
        controls: NDArray[np.float32],
        perturbation: NDArray[np.floating],
        covariates: NDArray[np.integer],
        *,
        rng: np.random.Generator,
        **changes: Any,
    ) -> NDArray[np.float32]:
        """Predict perturbed cells of one condition.

        Parameters
        ----------
        controls
            Control cells (n, G) of the context; with the noise source only their number and context matter.
        perturbation, covariates
            Dose of every component (P,), and codes of the covariates (K,).
        rng
            Source of randomness.
        **changes
            Settings that differ from the configuration, as in :meth:`configure`. Guidance is ``v = v(null) + w
            (v(condition) - v(null))``.

        Returns
        -------
        Predicted cells (n, G), row by row for the control cells.

        Raises
        ------
        ValueError
            If a setting is out of its range, or the context is new and there is no control cell.
        """
        controls = np.asarray(controls, dtype=np.float32)
        covariates = np.asarray(covariates, dtype=np.int64)
        config = self._changed(changes)
        context = self.prior.context(covariates, controls)
        distribution = self.prior.distribution(perturbation, context)
        factors = self.responses.of(self.prior, perturbation, context)
        gene_distribution = self.gene_distribution(distribution)
        condition = self.encode(np.asarray(perturbation)[None], covariates[None])
        field = self._guided(gene_distribution, condition, config.guidance, config.correction_scale)

        predicted = np.empty_like(controls)
        for first in range(0, len(controls), _CELLS_AT_ONCE):
            chunk = controls[first : first + _CELLS_AT_ONCE]
            x = self._entry(chunk, distribution, context, factors, config, rng)
            if config.entry < 1:
                x = self._follow(x, field, gene_distribution, condition, config)
            predicted[first : first + _CELLS_AT_ONCE] = x
        return self.support.within(predicted, controls)

    def _entry(
        self,
        controls: NDArray[np.float32],
        distribution: HurdleDistribution,
        context: Context,
        factors: Sequence[ResponseFactor],
        config: FlowConfig,
        rng: np.random.Generator,
    ) -> NDArray[np.float32]:
        """Points of the path where cells (n, G) enter it."""
        if config.entry == 1:
            return self.responses.move(self.prior, controls, distribution, context, factors, rng=rng)
        if config.stratified:
            noise = stratified_normals(controls.shape, rng=rng)
        else:
            noise = rng.standard_normal(controls.shape, dtype=np.float32)
        if config.entry == 0:
            return noise
        moved = self.responses.move(self.prior, controls, distribution, context, factors, rng=rng)
        return point_on_path(noise, moved, np.float32(config.entry))

    def _follow(
        self,
        x: NDArray[np.float32],
        field: Callable[[float, Tensor], Tensor],
        distribution: GeneDistribution,
        condition: Tensor,
        config: FlowConfig,
    ) -> NDArray[np.float32]:
        """Cells (n, G) at the end of the path from their points of entry."""
        stop = self.parametrisation.last_time
        state = torch.as_tensor(x, dtype=torch.float32, device=self.device)
        if config.entry < stop:
            state = integrate(
                field,
                state,
                start=config.entry,
                stop=stop,
                n_steps=config.solver_steps,
                method=config.method,
                spacing="sine",
            )
        time = state.new_full((1, 1), stop)
        output = self._outputs(state, time, distribution, condition, config.correction_scale) if stop < 1 else state
        return self.parametrisation.finish(state, time, distribution, output).cpu().numpy()

    def _guided(
        self, distribution: GeneDistribution, condition: Tensor, guidance: float, correction_scale: float
    ) -> Callable[[float, Tensor], Tensor]:
        """The velocity field (t, x) -> v of one condition; both halves of the guidance go through in one batch."""
        if guidance == 1:
            return lambda t, x: self.velocity(
                x, x.new_full((1, 1), t), distribution, condition, correction_scale=correction_scale
            )
        null = self.gene_distribution(self.prior.pooled_distribution())
        both = GeneDistribution(
            torch.stack([null.expressed, distribution.expressed])[:, None],
            torch.stack([null.mean, distribution.mean])[:, None],
            distribution.variance,
        )
        conditions = torch.stack([torch.zeros_like(condition), condition])

        def field(t: float, x: Tensor) -> Tensor:
            time = x.new_full((1, 1, 1), t)
            without, with_condition = self.velocity(x[None], time, both, conditions, correction_scale=correction_scale)
            return without + guidance * (with_condition - without)

        return field
