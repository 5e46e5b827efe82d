"""Settings of the training of a flow."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import Literal


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of the training of a flow.

    Parameters
    ----------
    max_steps
        Number of optimiser steps.
    max_minutes, batch_size, window, learning_rate, weight_decay, warmup_steps, gradient_clip, condition_dropout, part_dropout
        See :class:`perturbflow.models.FlowPlanKwargs`, as for all that are not described here.
    precision
        ``"full"``, ``"bfloat16"`` (mixed: matrix products in bfloat16, weights, distributions and loss in full), or
        ``"auto"``: mixed on a GPU that has it, full elsewhere.
    compile_network, validate_every, patience
        How steps are made and watched.
    seed
        Of batches, noise and dropout.

    Raises
    ------
    TypeError
        If a number is not whole where it has to be.
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
    window: int | None = None
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
        for name in ("max_steps", "batch_size", "window", "warmup_steps", "validate_every", "patience", "seed"):
            value, least = getattr(self, name), int(name != "seed")
            if name == "window" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, Integral):
                msg = f"Expected `{name}` to be a whole number, found {value!r} of type {type(value).__name__}."
                raise TypeError(msg)
            if value < least:
                msg = f"Expected `{name}` to be at least {least}, found {value!r}."
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
        for name in ("weight_decay", "max_minutes"):
            if getattr(self, name) is not None and not getattr(self, name) >= 0:
                msg = f"Expected `{name}` to be at least 0, found {getattr(self, name)!r}."
                raise ValueError(msg)
