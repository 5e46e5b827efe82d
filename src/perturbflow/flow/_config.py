"""Everything that shapes a flow and its training, as plain values."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field
from numbers import Integral
from typing import Any, Literal, get_args

from perturbflow.flow._network import ResidualMLP, VelocityNetwork
from perturbflow.flow._parametrisation import PARAMETRISATIONS
from perturbflow.flow._solver import ADAPTIVE_METHODS, METHODS
from perturbflow.flow._unet import TokenUNet, UNet

NETWORKS: dict[str, Callable[..., VelocityNetwork]] = {"mlp": ResidualMLP, "unet": UNet, "token_unet": TokenUNet}
"""Velocity networks by the name that ``model_kwargs={"network": ...}`` takes."""

Source = Literal["control", "noise"]
SOURCES = get_args(Source)
Zeros = Literal["learned", "rounded", "none"]
ZEROS = get_args(Zeros)

_STEPS_OF_WHOLE_PATH = 10
_FEWEST_STEPS = 4


@dataclass(frozen=True)
class FlowConfig:
    """Everything that shapes a flow, as plain values.

    Parameters
    ----------
    n_genes, n_components, n_categories
        Numbers of genes G, of perturbation components P, and of categories of every covariate (K,).
    parametrisation
        What the network's output means: ``"zero_inflated"``, ``"gaussian"`` or ``"velocity"``.
    network
        Name of the velocity network.
    width
        Hidden width, for a U-Net the channels of its first level; the network's own default if None.
    n_blocks
        Number of residual blocks, for a U-Net those of every level; the network's own default if None.
    network_options
        Further options of the network, by name.
    source
        What a prediction starts from: control cells shifted by the prior, or noise.
    entry_time
        Time at which a shifted control cell enters the path, between 0 (nothing of it is kept) and 1 (it is left as the
        prior has moved it).
    correction_scale
        Factor on the network's output, between 0 (the prior alone) and 1.
    guidance
        Weight of classifier-free guidance; 1 is the conditional flow itself.
    stratified
        Whether noise is spread evenly over the cells of a batch, gene by gene, so that means of few cells are those of
        the flow. Each cell is as random as without.
    method
        Solver, see :func:`integrate`.
    n_steps
        Steps of the solver from the entry into the path on. None: as many as the tolerance asks for where the method
        chooses its steps, else 10 for the whole path and proportionally fewer for a later entry.
    zeros
        Which small values are zeros where the parametrisation makes none: those below a threshold of every gene
        (:func:`zero_thresholds`), those nearer to zero than to the smallest value that was seen, or none.

    Raises
    ------
    TypeError
        If a size of the network is no whole number.
    ValueError
        If a setting is unknown or out of its range.

    Examples
    --------
    >>> import perturbflow as pf
    >>> config = pf.flow.FlowConfig(n_genes=50, n_components=4, n_categories=(2,), source="noise")
    >>> config.entry, config.solver_steps  # the whole path, in ten steps
    (0.0, 10)
    >>> pf.flow.FlowConfig.from_dict(config.to_dict()) == config
    True
    """

    n_genes: int
    n_components: int
    n_categories: tuple[int, ...]
    parametrisation: str = "zero_inflated"
    network: str = "mlp"
    width: int | None = None
    n_blocks: int | None = None
    network_options: Mapping[str, Any] = field(default_factory=dict)
    source: Source = "control"
    entry_time: float = 0.7
    correction_scale: float = 1.0
    guidance: float = 1.0
    stratified: bool = True
    method: str = "multistep"
    n_steps: int | None = None
    zeros: Zeros = "learned"

    def __post_init__(self) -> None:
        choices: dict[str, Collection[str]] = {
            "parametrisation": PARAMETRISATIONS,
            "network": NETWORKS,
            "source": SOURCES,
            "method": METHODS,
            "zeros": ZEROS,
        }
        for name, options in choices.items():
            if getattr(self, name) not in options:
                msg = f"Expected `{name}` to be one of {sorted(options)}, found {getattr(self, name)!r}."
                raise ValueError(msg)
        for name in ("width", "n_blocks"):
            if getattr(self, name) is not None:
                _check_whole(name, getattr(self, name))
        for name in ("entry_time", "correction_scale"):
            if not 0 <= getattr(self, name) <= 1:
                msg = f"Expected `{name}` between 0 and 1, found {getattr(self, name)!r}."
                raise ValueError(msg)
        if not math.isfinite(self.guidance):
            msg = f"Expected `guidance` to be finite, found {self.guidance!r}."
            raise ValueError(msg)
        if self.n_steps is not None and self.n_steps < 1:
            msg = f"Expected `n_steps` to be None or at least 1, found {self.n_steps!r}."
            raise ValueError(msg)
        known = list(inspect.signature(NETWORKS[self.network]).parameters)[3:]  # after genes, outputs and conditions
        unknown = sorted(set(self.network_options) - set(known))
        if unknown:
            msg = f"Expected `network_options` of {self.network!r} to be among {known}, found {unknown}."
            raise ValueError(msg)
        object.__setattr__(self, "n_categories", tuple(int(n) for n in self.n_categories))
        object.__setattr__(self, "network_options", dict(self.network_options))

    @property
    def network_settings(self) -> dict[str, Any]:
        """Keyword arguments of the network."""
        sizes = {"width": self.width, "n_blocks": self.n_blocks}
        return {name: value for name, value in sizes.items() if value is not None} | dict(self.network_options)

    @property
    def entry(self) -> float:
        """Time at which a prediction enters the path."""
        return 0.0 if self.source == "noise" else self.entry_time

    @property
    def solver_steps(self) -> int | None:
        """Steps of the solver from the entry on; None where the method chooses them."""
        if self.n_steps is not None or self.method in ADAPTIVE_METHODS:
            return self.n_steps
        return max(_FEWEST_STEPS, math.ceil(_STEPS_OF_WHOLE_PATH * (1 - self.entry)))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON and ``uns``.

        Returns
        -------
        Every setting by name; what is not set is left out.
        """
        values = asdict(self) | {"n_categories": list(self.n_categories)}
        values = {name: value for name, value in values.items() if value is not None}
        # Features of genes only set the first weights, which are fitted by the time that they are stored.
        options = {name: value for name, value in self.network_options.items() if name != "gene_features"}
        return values | {"network_options": _plain(options)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> FlowConfig:
        """Read what :meth:`to_dict` wrote, also after a file has turned lists and numbers into arrays.

        Parameters
        ----------
        values
            Every setting by name.

        Returns
        -------
        The configuration.
        """
        return cls(**_plain(values))


def _check_whole(name: str, value: Any, *, least: int = 1) -> None:
    """Raise unless a setting is a whole number that is large enough."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        msg = f"Expected `{name}` to be a whole number, found {value!r} of type {type(value).__name__}."
        raise TypeError(msg)
    if value < least:
        msg = f"Expected `{name}` to be at least {least}, found {value!r}."
        raise ValueError(msg)


def _plain(value: Any) -> Any:
    """Turn arrays, array scalars and tuples into lists and numbers, at every depth."""
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value.tolist() if hasattr(value, "tolist") else value


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
        for name in ("max_steps", "batch_size", "warmup_steps", "validate_every", "patience"):
            _check_whole(name, getattr(self, name))
        _check_whole("seed", self.seed, least=0)
        if self.window is not None:
            _check_whole("window", self.window)
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
