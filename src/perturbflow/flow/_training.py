"""Training a flow: conditional flow matching, EMA weights, early stopping on held-out conditions."""

from __future__ import annotations

import math
import time
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from perturbflow.flow._batches import Batches
from perturbflow.flow._path import point_on_path

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray
    from torch import Tensor

    from perturbflow.flow._data import CellData
    from perturbflow.flow._model import ConditionalFlow

_EMA_DECAY = 0.995
_LOSS_SMOOTHING = 0.98


@dataclass(frozen=True)
class TrainingSettings:
    """How a flow is trained.

    Parameters
    ----------
    max_steps
        Number of optimiser steps.
    max_minutes
        Stop after this time even if steps remain; no limit if None. Two runs are then no longer identical.
    batch_size
        Cells a step.
    learning_rate
        Peak of the schedule: linear warm-up, then cosine to a hundredth.
    weight_decay
        Of AdamW.
    warmup_steps
        Length of the warm-up; 1 is none.
    gradient_clip
        Largest norm of the gradient.
    condition_dropout
        Probability that the whole condition is dropped, for guidance.
    part_dropout
        Probability that the network is not told the perturbations, and each covariate, apart.
    precision
        ``"full"``, ``"bfloat16"`` (mixed: the network's matrix products in bfloat16, weights, laws and loss in full), or
        ``"auto"``: mixed on a GPU that has it, full elsewhere.
    compile_network
        Whether ``torch.compile`` translates the network: pays in long fits on a GPU.
    validate_every
        Steps between validations.
    patience
        Validations without improvement before training stops.
    seed
        Of batches, noise and dropout.

    Raises
    ------
    ValueError
        If a setting is out of its range.

    Examples
    --------
    >>> import perturbflow as pf
    >>> settings = pf.flow.TrainingSettings(max_steps=100)
    >>> settings.max_steps * settings.batch_size  # cells that are drawn
    25600
    >>> pf.flow.TrainingSettings(max_steps=0)
    Traceback (most recent call last):
    ValueError: Expected `max_steps` to be at least 1, found 0.
    """

    max_steps: int = 1500
    max_minutes: float | None = None
    batch_size: int = 256
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warmup_steps: int = 50
    gradient_clip: float = 1.0
    condition_dropout: float = 0.2
    part_dropout: float = 0.3
    precision: Literal["auto", "full", "bfloat16"] = "auto"
    compile_network: bool = False
    validate_every: int = 100
    patience: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("max_steps", "batch_size", "warmup_steps", "validate_every", "patience"):
            if getattr(self, name) < 1:
                msg = f"Expected `{name}` to be at least 1, found {getattr(self, name)!r}."
                raise ValueError(msg)
        for name in ("condition_dropout", "part_dropout"):
            if not 0 <= getattr(self, name) < 1:
                msg = f"Expected `{name}` to be at least 0 and below 1, found {getattr(self, name)!r}."
                raise ValueError(msg)
        if self.precision not in ("auto", "full", "bfloat16"):
            msg = f"Expected `precision` to be 'auto', 'full' or 'bfloat16', found {self.precision!r}."
            raise ValueError(msg)
        for name in ("learning_rate", "gradient_clip"):
            if not getattr(self, name) > 0:
                msg = f"Expected `{name}` to be above 0, found {getattr(self, name)!r}."
                raise ValueError(msg)


class FlowTrainer:
    """Trains the network of a flow; iterate over it, or call :meth:`run`.

    Parameters
    ----------
    flow
        The flow; its prior is fitted, its network is trained in place.
    cells
        Training cells.
    settings
        How to train.

    Examples
    --------
    >>> import numpy as np
    >>> import perturbflow as pf
    >>> rng = np.random.default_rng(0)
    >>> x = np.log1p(rng.poisson([3.0, 1.0], (200, 2)))
    >>> x[100:, 0] = 0  # the perturbation of the last 100 cells silences gene 0
    >>> cells = pf.flow.CellData(x, np.repeat([[0.0], [1.0]], 100, axis=0), np.zeros((200, 0), dtype=int))
    >>> prior = pf.flow.AdditiveHurdlePrior.fit(cells)
    >>> config = pf.flow.FlowConfig(n_genes=2, n_components=1, n_categories=(), parametrisation="velocity", width=16)
    >>> flow = pf.flow.ConditionalFlow(config, prior)
    >>> settings = pf.flow.TrainingSettings(max_steps=60, learning_rate=0.01, validate_every=30)
    >>> history = pf.flow.FlowTrainer(flow, cells, settings).run()
    >>> history["step"].tolist(), bool(history["loss"][1] < history["loss"][0])
    ([30.0, 60.0], True)
    """

    @torch.inference_mode(mode=False)
    def __init__(self, flow: ConditionalFlow, cells: CellData, settings: TrainingSettings) -> None:
        self.flow, self.settings = flow, settings
        self.batches = Batches(flow, cells)
        self.optimiser = torch.optim.AdamW(
            flow.network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, betas=(0.9, 0.99)
        )
        self.average = AveragedModel(flow.network, avg_fn=_moving_average)
        self.generator = torch.Generator().manual_seed(settings.seed)
        # Noise is drawn where it is needed: at 18,000 genes copying it would take longer than the network.
        on_cpu = flow.device.type == "cpu"
        self.noise = self.generator if on_cpu else torch.Generator(flow.device).manual_seed(settings.seed)
        if settings.precision == "auto":
            flow.mixed_precision = not on_cpu and torch.cuda.is_bf16_supported()
        else:
            flow.mixed_precision = settings.precision == "bfloat16"
        if settings.compile_network:
            flow.network.compile()
        self.step = 0
        self.loss = math.nan
        self.best: dict[str, Tensor] | None = None
        self.best_score = math.inf
        self.seconds = 0.0
        self.waited = 0
        self.interrupted = False
        self.history: dict[str, list[float]] = {
            name: [] for name in ("step", "loss", "learning_rate", "seconds", "valid_step", "valid_energy")
        }

    @torch.inference_mode(mode=False)
    @torch.enable_grad()
    def run(
        self,
        *,
        validate: Callable[[ConditionalFlow], float] | None = None,
        on_step: Callable[[FlowTrainer], None] | None = None,
        on_validation: Callable[[FlowTrainer], None] | None = None,
    ) -> dict[str, NDArray[np.float64]]:
        """Train until the steps, the time or the patience are used up, or the user interrupts.

        Afterwards the flow holds the averaged weights: those of the best validation, or the last where there is none.

        Parameters
        ----------
        validate
            Score of a flow on held-out conditions, lower is better.
        on_step
            Called after every step.
        on_validation
            Called after every validation (every ``validate_every`` steps also without one), for example to write a
            checkpoint.

        Returns
        -------
        History: named arrays.

        Raises
        ------
        FloatingPointError
            If the loss is not finite; the weights are then those of the step before.
        """
        started = time.monotonic() - self.seconds
        limit = math.inf if self.settings.max_minutes is None else 60 * self.settings.max_minutes
        try:
            while self.step < self.settings.max_steps and self.waited < self.settings.patience:
                self._train_step()
                self.seconds = time.monotonic() - started
                out_of_time = self.seconds > limit
                last = self.step == self.settings.max_steps or out_of_time
                if self.step % self.settings.validate_every == 0 or last:
                    self._record()
                    if validate is not None:
                        self.waited = 0 if self._validate(validate) else self.waited + 1
                    if on_validation is not None:
                        on_validation(self)
                if on_step is not None:
                    on_step(self)
                if out_of_time:
                    break
        except KeyboardInterrupt:
            self.interrupted = True
        if self.best is None and self.step:
            self.best = self._averaged_weights()
        if self.best is not None:
            self.flow.network.load_state_dict(self.best)
        self.flow.eval()
        return {name: np.array(values, dtype=np.float64) for name, values in self.history.items()}

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything needed to continue, as it is between two steps of :meth:`run`.

        Returns
        -------
        Copies: tensors by name, and plain values by name.
        """
        parts = {
            "network": self.flow.network.state_dict(),
            "average": self.average.state_dict(),
            "best": self.best or {},
            "moments": {
                f"{i}.{name}": value
                for i, entry in self.optimiser.state_dict()["state"].items()
                for name, value in entry.items()
            },
            "generator": {"state": self.generator.get_state(), "noise": self.noise.get_state()},
        }
        tensors = {
            f"{part}/{name}": tensor.detach().cpu().clone()
            for part, named in parts.items()
            for name, tensor in named.items()
        }
        values = {name: getattr(self, name) for name in ("step", "loss", "best_score", "seconds", "waited", "history")}
        return tensors, deepcopy(values)

    def load_state(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Continue from what :meth:`state` gave.

        Parameters
        ----------
        tensors
            Tensors by name.
        values
            Plain values by name.
        """
        parts: dict[str, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            part, _, key = name.partition("/")
            parts.setdefault(part, {})[key] = tensor
        self.flow.network.load_state_dict(parts["network"])
        self.average.load_state_dict(parts["average"])
        self.best = parts.get("best")
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in parts.get("moments", {}).items():
            place, _, key = name.partition(".")
            moments.setdefault(int(place), {})[key] = tensor
        self.optimiser.load_state_dict(self.optimiser.state_dict() | {"state": moments})
        self.noise.set_state(parts["generator"]["noise"])
        self.generator.set_state(parts["generator"]["state"])
        for name, value in deepcopy(values).items():
            setattr(self, name, value)

    def _train_step(self) -> None:
        settings = self.settings
        self.flow.train()
        warmup = min(1.0, (self.step + 1) / settings.warmup_steps)
        cosine = 0.5 * (1 + math.cos(math.pi * self.step / settings.max_steps))
        rate = settings.learning_rate * warmup * (0.01 + 0.99 * cosine)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        loss = self._loss()
        value = float(loss.detach())
        if not math.isfinite(value):
            msg = f"Expected a finite loss, found {value} at step {self.step + 1}. Lower `learning_rate`."
            raise FloatingPointError(msg)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.flow.network.parameters(), settings.gradient_clip)
        self.optimiser.step()
        self.average.update_parameters(self.flow.network)
        self.step += 1
        self.loss = value if math.isnan(self.loss) else _LOSS_SMOOTHING * self.loss + (1 - _LOSS_SMOOTHING) * value

    def _loss(self) -> Tensor:
        """Conditional flow-matching loss of one batch, eq. 3 of PRiMeFlow with the parametrisation's weight."""
        settings, flow, generator = self.settings, self.flow, self.generator
        x1, law, condition = self.batches.draw(
            settings.batch_size, generator, whole=settings.condition_dropout, part=settings.part_dropout
        )
        t = torch.rand((len(x1), 1), generator=self.noise, dtype=x1.dtype, device=x1.device)
        # Beyond the last time of integration nothing is asked of the network.
        t = t.clamp(max=0.99)
        x0 = torch.randn(x1.shape, generator=self.noise, dtype=x1.dtype, device=x1.device)
        predicted = flow.velocity(point_on_path(x0, x1, t), t, law, condition)
        return (flow.parametrisation.loss_weight(t) * (predicted - (x1 - x0)).square()).mean()

    def _record(self) -> None:
        entry = (self.step, self.loss, self.optimiser.param_groups[0]["lr"], self.seconds)
        for name, value in zip(("step", "loss", "learning_rate", "seconds"), entry, strict=True):
            self.history[name].append(float(value))

    def _validate(self, validate: Callable[[ConditionalFlow], float]) -> bool:
        """Score the averaged weights; True if they are the best so far."""
        current = {name: tensor.clone() for name, tensor in self.flow.network.state_dict().items()}
        averaged = self._averaged_weights()
        self.flow.network.load_state_dict(averaged)
        self.flow.eval()
        try:
            score = validate(self.flow)
        finally:
            self.flow.network.load_state_dict(current)
        self.history["valid_step"].append(float(self.step))
        self.history["valid_energy"].append(float(score))
        if score < self.best_score:
            self.best_score, self.best = score, averaged
            return True
        return False

    def _averaged_weights(self) -> dict[str, Tensor]:
        return {name: tensor.clone() for name, tensor in self.average.module.state_dict().items()}


def _moving_average(average: Tensor, current: Tensor, n_averaged: Tensor | int) -> Tensor:
    """Exponential moving average whose memory grows with the number of steps, so that it forgets the start."""
    n = int(n_averaged)
    return average.lerp(current, 1 - min(_EMA_DECAY, (1 + n) / (10 + n)))
