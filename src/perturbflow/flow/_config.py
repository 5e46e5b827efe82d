"""Everything that shapes a flow, as plain values."""

from __future__ import annotations

import inspect
import math
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from numbers import Integral
from typing import Any, Literal, get_args

from perturbflow.flow._network import NETWORKS
from perturbflow.flow._parametrisation import PARAMETRISATIONS
from perturbflow.flow._solver import ADAPTIVE_METHODS, METHODS

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
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, Integral)):
                msg = f"Expected `{name}` to be a whole number, found {value!r} of type {type(value).__name__}."
                raise TypeError(msg)
            if value is not None and value < 1:
                msg = f"Expected `{name}` to be at least 1, found {value!r}."
                raise ValueError(msg)
        for name, low, high in (("entry_time", 0.0, 1.0), ("correction_scale", 0.0, 1.0)):
            if not low <= getattr(self, name) <= high:
                msg = f"Expected `{name}` between {low:g} and {high:g}, found {getattr(self, name)!r}."
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


def _plain(value: Any) -> Any:
    """Turn arrays, array scalars and tuples into lists and numbers, at every depth."""
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value.tolist() if hasattr(value, "tolist") else value
