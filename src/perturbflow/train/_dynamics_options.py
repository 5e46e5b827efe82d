"""Options of a fit of dynamics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict

import numpy as np

from perturbflow._checks import check_between, check_one_of, check_options, check_type, check_whole_number
from perturbflow.dynamics import ACTIVATIONS, SPARSITIES, DynamicsSettings, FieldConfig, Movement, Trajectory

STRUCTURES = ("per_target", "linear", "dense")
HIDDEN: Mapping[str, tuple[int, ...]] = {"per_target": (10,), "linear": (), "dense": (100, 100)}


_RANGES = {"prior_weight": (0, 1e6), "displacement": (0, 10), "window": (0.01, 1), "effort": (0.01, 100)}


# Where else a setting is given than in a dictionary that it was found in.
_ARGUMENTS = dict.fromkeys(
    ("field", "sparsity", "strength", "order", "eliminate", "effort", "seed"), "an argument of its own"
)


class DynamicsModelKwargs(TypedDict, total=False):
    """Options of a field beside its kind, order and sparsity; the data decide what is left out.

    Attributes
    ----------
    hidden
        Widths of the hidden layers: (10,) by default for a network per gene, (100, 100) for a dense one.
    activation
        Nonlinearity: "elu" by default, "identity", "silu" or "tanh".
    decay
        Whether genes decay at a rate of their own. By default if no gene that moves is below 0 by more than noise, and the
        field is first order and not linear.
    production
        "bounded" between 0 and a learned maximum, or "free". By default bounded with decay of positive levels.
    self_regulation
        Whether a gene may be its own regulator, besides its decay. By default only without decay.

    Examples
    --------
    >>> import perturbflow as pf
    >>> chosen = pf.models.DynamicsModelKwargs(hidden=(4,), decay=False)
    >>> pf.models.DynamicsOptions(**chosen).hidden
    (4,)
    """

    hidden: Sequence[int]
    activation: str
    decay: bool
    production: Literal["bounded", "free"]
    self_regulation: bool


class DynamicsPlanKwargs(TypedDict, total=False):
    """Options of the fit of a field, beside the effort and whether inputs are removed.

    Attributes
    ----------
    strengths
        Ascending strengths of sparsity to choose from; seven from 0.002 to 0.2 by default.
    n_candidates
        Regulators of a gene that elimination begins with, at most; 8.
    n_bins
        Trajectories with more times than this are averaged into bins of equal numbers of cells; 50.
    prior_weight
        How much less the edges of a registered prior network are penalised: by 1 / (1 + prior_weight * relative weight); 1.
        At 0 the prior is ignored; no edge is ever excluded.
    displacement
        Spread of random displacements, in units of each gene's spread, from which the field learns to lead back to the
        observed trajectories; 0, none. About 0.4 keeps long forecasts of oscillations, or of few trajectories, on their
        way; what regulates what is then less sure, since a gene that comes back regulates itself.
    window
        Length of the windows over which rates are integrated in the first stages, a share of the number of times; 1/6.

    Examples
    --------
    >>> import perturbflow as pf
    >>> pf.models.DynamicsOptions(**pf.models.DynamicsPlanKwargs(n_candidates=3)).settings().n_candidates
    3
    """

    strengths: Sequence[float]
    n_candidates: int
    n_bins: int
    prior_weight: float
    displacement: float
    window: float


@dataclass(frozen=True)
class DynamicsOptions:
    """Options of a fit of dynamics; None for what the data decide.

    Parameters
    ----------
    field, sparsity, strength, strengths, hidden, activation, order, decay, production, self_regulation
        What is fitted; see :func:`perturbflow.tl.fit_dynamics`, as for the others.
    eliminate, n_candidates, n_bins, prior_weight, displacement, window, effort, seed
        How it is fitted.

    Raises
    ------
    TypeError, ValueError
        If an option has the wrong type or is out of its range, or the field does not go with the sparsity.

    Examples
    --------
    >>> import perturbflow as pf
    >>> pf.models.DynamicsOptions(effort=0.1).settings().matching_steps  # a tenth of the usual number
    100
    >>> pf.models.DynamicsOptions(order=3)
    Traceback (most recent call last):
    ValueError: Expected `order` to be 1 or 2, found 3.
    """

    field: str = "per_target"
    sparsity: str = "group_lasso"
    strength: float | Literal["auto"] = "auto"
    strengths: Sequence[float] | None = None
    hidden: Sequence[int] | None = None
    activation: str = "elu"
    order: int = 1
    decay: bool | None = None
    production: str | None = None
    self_regulation: bool | None = None
    eliminate: bool = True
    n_candidates: int = 8
    n_bins: int = 50
    prior_weight: float = 1.0
    displacement: float = 0.0
    window: float = 1 / 6
    effort: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        check_one_of(self.field, STRUCTURES, name="field")
        check_one_of(self.sparsity, SPARSITIES, name="sparsity")
        check_one_of(self.activation, ACTIVATIONS, name="activation")
        if self.field not in SPARSITIES[self.sparsity].structures:
            msg = (
                f"Expected `field` to be one of {sorted(SPARSITIES[self.sparsity].structures)} with "
                f"`sparsity={self.sparsity!r}`, found {self.field!r}. Choose another field or sparsity."
            )
            raise ValueError(msg)
        if self.strength != "auto":
            check_between(self.strength, 0, 1e6, name="strength")
        for name in ("strengths", "hidden"):
            if getattr(self, name) is not None:
                check_type(getattr(self, name), (Sequence, np.ndarray), name=name, expected="a sequence of numbers")
        if self.strengths is not None:
            values = list(self.strengths)
            for value in values:
                check_between(value, 0, 1e6, name="strengths")
            if not values or values != sorted(set(values)):
                msg = f"Expected `strengths` to be ascending numbers, found {values}."
                raise ValueError(msg)
        for width in () if self.hidden is None else self.hidden:
            check_whole_number(width, name="hidden", least=1)
        if self.order not in (1, 2):
            msg = f"Expected `order` to be 1 or 2, found {self.order!r}."
            raise ValueError(msg)
        if self.production is not None:
            check_one_of(self.production, ("bounded", "free"), name="production")
        check_type(self.eliminate, bool, name="eliminate", expected="True or False")
        for name in ("decay", "self_regulation"):
            check_type(getattr(self, name), (bool, type(None)), name=name, expected="True, False or None")
        for name, least in {"n_candidates": 1, "n_bins": 5, "seed": 0}.items():
            check_whole_number(getattr(self, name), name=name, least=least)
        for name, (low, high) in _RANGES.items():
            check_between(getattr(self, name), low, high, name=name)

    def config(self, trajectories: Sequence[Trajectory], regulators: Sequence[int]) -> FieldConfig:
        """Return what the field is made of; expression, which is never negative, is produced and decays.

        Genes that do not move have no say in it and no mechanism, and those whose level never differs regulate nothing.

        Parameters
        ----------
        trajectories
            Observations.
        regulators
            Positions of the genes that may regulate others.

        Returns
        -------
        The configuration of the field.

        Raises
        ------
        ValueError
            If no gene moves, or no regulator varies.
        """
        movement = Movement.of(trajectories)
        if not movement.moves.any():
            msg = (
                f"Expected expression that changes over time, found that none of {len(movement.moves)} genes changes "
                "in a trajectory in which it is not perturbed. Check the layer, the times and the trajectories."
            )
            raise ValueError(msg)
        varying = tuple(gene for gene in regulators if movement.varies[gene])
        if not varying:
            msg = (
                f"Expected a regulator whose level changes over time or differs between trajectories, found none among "
                f"{len(regulators)}. Register others in `pf.pp.setup_dynamics(adata, regulators=...)`."
            )
            raise ValueError(msg)
        positive = self.order == 1 and self.field != "linear" and not movement.is_negative[movement.moves].any()
        decay = positive if self.decay is None else self.decay
        production = self.production or ("bounded" if decay and positive else "free")
        own = not decay if self.self_regulation is None else self.self_regulation
        return FieldConfig(
            n_genes=trajectories[0].n_genes,
            regulators=varying,
            structure=self.field,  # type: ignore[arg-type]
            hidden=tuple(HIDDEN[self.field] if self.hidden is None else self.hidden),
            activation=self.activation,
            order=self.order,  # type: ignore[arg-type]
            decay=decay,
            production=production,  # type: ignore[arg-type]
            self_regulation=own,
            skip=SPARSITIES[self.sparsity].needs_skip,
            at_rest=tuple(np.flatnonzero(~movement.moves).tolist()),
        )

    def settings(self) -> DynamicsSettings:
        """Return how the field is fitted.

        Returns
        -------
        The settings of the trainer.
        """
        default = DynamicsSettings()
        steps = ("matching_steps", "path_steps", "elimination_steps", "shooting_steps", "solving_steps")
        n_steps = {name: max(1, round(self.effort * getattr(default, name))) for name in steps}
        if self.displacement > 0:  # short solutions would undo what displaced copies teach
            n_steps["shooting_steps"] = 0
        return DynamicsSettings(
            sparsity=self.sparsity,
            strength=None if self.strength == "auto" else float(self.strength),
            strengths=default.strengths if self.strengths is None else tuple(map(float, self.strengths)),
            eliminate=self.eliminate and self.field != "dense",
            n_candidates=self.n_candidates,
            displacement=float(self.displacement),
            window=float(self.window),
            seed=self.seed,
            **n_steps,
        )


_NOT_OF_MODEL = dict.fromkeys(DynamicsPlanKwargs.__annotations__, "a key of `plan_kwargs`") | _ARGUMENTS
_NOT_OF_PLAN = dict.fromkeys(DynamicsModelKwargs.__annotations__, "one of the model's options") | _ARGUMENTS


def check_dynamics_model(given: DynamicsModelKwargs | None) -> DynamicsModelKwargs:
    """Return what a field is made of; TypeError if a key is unknown."""
    known = DynamicsModelKwargs.__annotations__
    return check_options(given, known, name="model_kwargs", elsewhere=_NOT_OF_MODEL)  # type: ignore[return-value]


def check_dynamics_plan(given: DynamicsPlanKwargs | None) -> DynamicsPlanKwargs:
    """Return how a field is fitted; TypeError if a key is unknown."""
    known = DynamicsPlanKwargs.__annotations__
    return check_options(given, known, name="plan_kwargs", elsewhere=_NOT_OF_PLAN)  # type: ignore[return-value]
