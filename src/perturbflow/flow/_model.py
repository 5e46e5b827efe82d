"""Conditional flow matching from noise, or from moved control cells, to perturbed cells."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import nn

from perturbflow.flow._condition import ConditionEncoder
from perturbflow.flow._network import NETWORKS
from perturbflow.flow._parametrisation import PARAMETRISATIONS, GeneLaw
from perturbflow.flow._solver import integrate

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from numpy.typing import NDArray
    from torch import Tensor

    from perturbflow.flow._prior import AdditiveHurdlePrior, HurdleLaw

Source = Literal["control", "noise"]

_STEPS_FROM_NOISE = 10
_FEWEST_STEPS = 2
_CELLS_AT_ONCE = 2048


@dataclass(frozen=True)
class FlowConfig:
    """Everything that shapes a flow, as plain values.

    Parameters
    ----------
    n_genes
        Number of genes G.
    n_components
        Number of perturbation components P.
    n_categories
        Number of categories of every covariate (K,).
    parametrisation
        What the network's output means: ``"zero_inflated"``, ``"gaussian"`` or ``"velocity"``.
    network
        Name of the velocity network.
    width
        Hidden width.
    n_blocks
        Number of residual blocks.
    source
        What a prediction starts from: control cells moved by the prior, or noise.
    start
        Time at which a moved control cell enters the path, between 0 (nothing of it is kept) and 1.
    trust
        Factor on the network's output, between 0 (the prior alone) and 1.

    Raises
    ------
    ValueError
        If a setting is unknown or out of its range.
    """

    n_genes: int
    n_components: int
    n_categories: tuple[int, ...]
    parametrisation: str = "zero_inflated"
    network: str = "mlp"
    width: int = 256
    n_blocks: int = 2
    source: Source = "control"
    start: float = 0.7
    trust: float = 1.0

    def __post_init__(self) -> None:
        for name, options in (("parametrisation", PARAMETRISATIONS), ("network", NETWORKS)):
            if getattr(self, name) not in options:
                msg = f"Expected `{name}` to be one of {sorted(options)}, found {getattr(self, name)!r}."
                raise ValueError(msg)
        if self.source not in ("control", "noise"):
            msg = f"Expected `source` to be 'control' or 'noise', found {self.source!r}."
            raise ValueError(msg)
        for name, low, high in (("start", 0.0, 0.99), ("trust", 0.0, 1.0)):
            if not low <= getattr(self, name) <= high:
                msg = f"Expected `{name}` between {low:g} and {high:g}, found {getattr(self, name)!r}."
                raise ValueError(msg)
        object.__setattr__(self, "n_categories", tuple(int(n) for n in self.n_categories))

    def to_dict(self) -> dict[str, int | float | str | list[int]]:
        """Plain values, for JSON and ``uns``.

        Returns
        -------
        Every setting by name.
        """
        return asdict(self) | {"n_categories": list(self.n_categories)}


class ConditionalFlow(nn.Module):
    """A flow that turns noise into cells of a condition.

    One network is trained on the path from noise to cells, as in PRiMeFlow. With ``source="noise"`` a prediction
    follows the whole path. With ``source="control"`` the path is entered at time ``start`` from
    ``(1 - start) noise + start * (control cell moved by the prior)``: the flow then corrects a first guess instead of
    inventing a cell, each prediction belongs to a control cell, and the dependence between genes that real cells carry
    is kept as far as ``start`` asks (the idea of SDEdit, Meng et al. 2022, arXiv 2108.01073, with the additive prior
    as the guide).

    Parameters
    ----------
    config
        Shape and settings.
    prior
        The fitted prior.
    seed
        Seed of the initial weights; the global generator is left alone.

    Raises
    ------
    ValueError
        If the prior is of other genes or components than the configuration.
    """

    def __init__(self, config: FlowConfig, prior: AdditiveHurdlePrior, *, seed: int = 0) -> None:
        super().__init__()
        if (config.n_genes, config.n_components) != (prior.n_genes, len(prior.dose_unit)):
            msg = (
                f"Expected a prior of {config.n_genes} genes and {config.n_components} components, found one of "
                f"{prior.n_genes} and {len(prior.dose_unit)}. Fit both to the same cells."
            )
            raise ValueError(msg)
        self.config = config
        self.prior = prior
        self.parametrisation = PARAMETRISATIONS[config.parametrisation]
        self.encoder = ConditionEncoder(config.n_components, config.n_categories)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = NETWORKS[config.network](
                config.n_genes,
                self.parametrisation.n_outputs,
                self.encoder.size,
                width=config.width,
                n_blocks=config.n_blocks,
            )

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def configure(
        self, *, source: Source | None = None, start: float | None = None, trust: float | None = None
    ) -> Self:
        """Change settings of prediction.

        Parameters
        ----------
        source
            As in :class:`FlowConfig`, as for all that follow; left as it is if None.
        start
            Time at which a moved control cell enters the path.
        trust
            Factor on the network's output.

        Returns
        -------
        The flow itself.
        """
        self.config = self._changed(source, start, trust)
        return self

    def _changed(self, source: Source | None, start: float | None, trust: float | None) -> FlowConfig:
        return replace(
            self.config,
            source=self.config.source if source is None else source,
            start=self.config.start if start is None else start,
            trust=self.config.trust if trust is None else trust,
        )

    def encode(self, perturbations: NDArray[np.floating], covariates: NDArray[np.integer]) -> Tensor:
        """Encode conditions for the network.

        Parameters
        ----------
        perturbations
            Doses (n, P); they are taken relative to the largest in training.
        covariates
            Codes of the covariates (n, K).

        Returns
        -------
        Encoded conditions (n, size).
        """
        relative = np.minimum(np.asarray(perturbations, dtype=np.float32) / self.prior.dose_unit, 1)
        return self.encoder.encode(
            torch.as_tensor(relative, device=self.device), torch.as_tensor(np.asarray(covariates), device=self.device)
        )

    def velocity(self, x: Tensor, t: Tensor, law: GeneLaw, condition: Tensor, *, trust: float = 1.0) -> Tensor:
        """Velocity of the flow; all arguments broadcast.

        Parameters
        ----------
        x
            Points (..., n, G).
        t
            Times (..., n, 1).
        law
            Law of every gene (..., n, G).
        condition
            Encoded conditions (..., n, size).
        trust
            Factor on the network's output.

        Returns
        -------
        Velocities (..., n, G).
        """
        return self.parametrisation.velocity(x, t, law, self._outputs(x, t, law, condition, trust))

    def _outputs(self, x: Tensor, t: Tensor, law: GeneLaw, condition: Tensor, trust: float) -> Tensor:
        output = self.network(self.parametrisation.inputs(x, t, law), t, condition)
        return output if trust == 1 else trust * output

    def gene_law(self, law: HurdleLaw) -> GeneLaw:
        """A prior's law as tensors on the device.

        Parameters
        ----------
        law
            The law, arrays (..., G).

        Returns
        -------
        The law, tensors (..., G).
        """
        return GeneLaw(*(torch.as_tensor(a, device=self.device) for a in (law.expressed, law.mean, law.variance)))

    def cell_laws(self, perturbations: NDArray[np.floating], covariates: NDArray[np.integer]) -> GeneLaw:
        """Laws of cells in training contexts.

        Parameters
        ----------
        perturbations
            Doses (n, P).
        covariates
            Codes of the covariates (n, K).

        Returns
        -------
        One law per cell (n, G).
        """
        prior = self.prior
        laws = [prior.law(doses, prior.context(codes)) for doses, codes in zip(perturbations, covariates, strict=True)]
        return GeneLaw(
            torch.as_tensor(np.stack([law.expressed for law in laws]), device=self.device),
            torch.as_tensor(np.stack([law.mean for law in laws]), device=self.device),
            torch.as_tensor(prior.variance, device=self.device),
        )

    @torch.inference_mode()
    def sample(
        self,
        controls: NDArray[np.float32],
        perturbation: NDArray[np.floating],
        covariates: NDArray[np.integer],
        *,
        rng: np.random.Generator,
        guidance: float = 1.0,
        n_steps: int | None = None,
        method: str = "midpoint",
        source: Source | None = None,
        start: float | None = None,
        trust: float | None = None,
    ) -> NDArray[np.float32]:
        """Predict perturbed cells of one condition.

        Parameters
        ----------
        controls
            Control cells (n, G) of the context; with the noise source only their number and context matter.
        perturbation
            Dose of every component (P,).
        covariates
            Codes of the covariates (K,).
        rng
            Source of randomness.
        guidance
            Weight w of classifier-free guidance, ``v = v(null) + w (v(condition) - v(null))``; 1 is the conditional
            flow itself.
        n_steps
            Number of solver steps; by default 10 for the whole path and proportionally fewer for a later start.
        method
            Solver, see :func:`integrate`.
        source
            As in the configuration unless given.
        start
            As in the configuration unless given.
        trust
            As in the configuration unless given.

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
        config = self._changed(source, start, trust)
        start, trust = 0.0 if config.source == "noise" else config.start, config.trust
        if n_steps is None:
            n_steps = max(_FEWEST_STEPS, math.ceil(_STEPS_FROM_NOISE * (1 - start)))
        context = self.prior.context(covariates, controls)
        law = self.prior.law(perturbation, context)
        gene_law = self.gene_law(law)
        condition = self.encode(np.asarray(perturbation)[None], covariates[None])
        field = self._guided(gene_law, condition, guidance, trust)
        stop = self.parametrisation.last_time

        predicted = np.empty_like(controls)
        for first in range(0, len(controls), _CELLS_AT_ONCE):
            chunk = controls[first : first + _CELLS_AT_ONCE]
            x = rng.standard_normal(chunk.shape, dtype=np.float32)
            if start > 0:
                x = (1 - start) * x + start * self.prior.move(chunk, law, context, rng=rng)
            state = torch.as_tensor(x, dtype=torch.float32, device=self.device)
            state = integrate(field, state, start=start, stop=stop, n_steps=n_steps, method=method)
            time = torch.full((1, 1), stop, device=self.device)
            output = self._outputs(state, time, gene_law, condition, trust) if stop < 1 else state
            cells = self.parametrisation.finish(state, time, gene_law, output)
            predicted[first : first + _CELLS_AT_ONCE] = cells.cpu().numpy()
        return predicted

    def _guided(
        self, law: GeneLaw, condition: Tensor, guidance: float, trust: float
    ) -> Callable[[float, Tensor], Tensor]:
        """The velocity field (t, x) -> v of one condition; both halves of the guidance go through in one batch."""
        if guidance == 1:
            return lambda t, x: self.velocity(x, torch.full((1, 1), t, device=x.device), law, condition, trust=trust)
        null = self.gene_law(self.prior.pooled_law())
        both = GeneLaw(
            torch.stack([null.expressed, law.expressed])[:, None],
            torch.stack([null.mean, law.mean])[:, None],
            law.variance,
        )
        conditions = torch.stack([torch.zeros_like(condition), condition])

        def field(t: float, x: Tensor) -> Tensor:
            time = torch.full((1, 1, 1), t, device=x.device)
            without, with_condition = self.velocity(x[None], time, both, conditions, trust=trust)
            return without + guidance * (with_condition - without)

        return field
