"""What a vector field is made of, and how it is fitted, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

STRENGTHS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
_LISTS = ("regulators", "hidden", "at_rest")


@dataclass(frozen=True)
class FieldConfig:
    """Configuration of a vector field.

    Parameters
    ----------
    n_genes
        Number of genes d.
    regulators
        Positions of the genes that may regulate others, shape (R,).
    structure
        "per_target": a small network for every gene; "linear": a linear function for every gene; "dense": one network
        for all genes, as in the papers.
    hidden
        Widths of the hidden layers; a linear function has none.
    activation
        Nonlinearity, a name in ``ACTIVATIONS``.
    order
        1: the network gives the rate of change. 2: it gives the acceleration, from levels and rates.
    decay
        Whether a gene decays at a positive rate of its own, besides what the network produces.
    production
        "bounded": between 0 and a learned maximum, through a logistic function; "free": any number.
    self_regulation
        Whether a gene may regulate itself, besides its decay.
    skip
        Whether inputs also act linearly, next to the network (LassoNet).
    at_rest
        Positions of the genes that stay at their level: no mechanism is fitted to them, and nothing regulates them.

    Examples
    --------
    >>> import perturbflow as pf
    >>> config = pf.dynamics.FieldConfig(n_genes=5, regulators=(0, 2, 3), order=2)
    >>> config.n_inputs  # levels and rates of three regulators
    6
    >>> pf.dynamics.FieldConfig.from_dict(config.to_dict()) == config
    True
    """

    n_genes: int
    regulators: tuple[int, ...]
    structure: Literal["per_target", "linear", "dense"] = "per_target"
    hidden: tuple[int, ...] = (10,)
    activation: str = "elu"
    order: Literal[1, 2] = 1
    decay: bool = True
    production: Literal["bounded", "free"] = "bounded"
    self_regulation: bool = False
    skip: bool = False
    at_rest: tuple[int, ...] = ()

    @property
    def n_inputs(self) -> int:
        """Number of inputs of a network: the levels of the regulators and, in second order, their rates."""
        return self.order * len(self.regulators)

    @property
    def targets(self) -> tuple[int, ...]:
        """Positions of the genes that have a mechanism, K."""
        at_rest = set(self.at_rest)
        return tuple(gene for gene in range(self.n_genes) if gene not in at_rest)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values.

        Returns
        -------
        Every field by name, for JSON and ``uns``.
        """
        return asdict(self) | {name: list(getattr(self, name)) for name in _LISTS}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read what :meth:`to_dict` wrote, also after a file has turned lists into arrays.

        Parameters
        ----------
        values
            Every field by name.

        Returns
        -------
        The configuration.
        """
        plain = {
            name: value.item() if hasattr(value, "item") and not getattr(value, "shape", ()) else value
            for name, value in values.items()
        }
        lists = {name: tuple(int(v) for v in plain.get(name, ())) for name in _LISTS}
        return cls(**(plain | lists))


@dataclass(frozen=True)
class DynamicsSettings:
    """Settings of the fit of a field.

    Parameters
    ----------
    sparsity
        A name in ``SPARSITIES``.
    strength
        Strength of sparsity; None to choose it on held-out trajectories or times.
    strengths
        Strengths to choose from, ascending.
    eliminate
        Whether inputs are then removed one by one, with a network per target.
    n_candidates
        Inputs of a target that elimination begins with, at most.
    matching_steps, path_steps, elimination_steps, shooting_steps, solving_steps
        Steps of integral matching at the first strength and at each further one, after each removal of an input, of
        short solutions, and of solutions of whole trajectories.
    learning_rate
        Learning rate of Adam.
    segment
        Intervals between observations of a short solution.
    window
        Length of the windows of integral matching, a share of the number of observations.
    displacement
        Spread of the displaced copies of the curves from which solutions are taught to come back; 0 for none.
        Short solutions say nothing of states beside the observed ones and undo it: then no ``shooting_steps``.
    seed
        Seed of everything random.

    Examples
    --------
    >>> import perturbflow as pf
    >>> settings = pf.dynamics.DynamicsSettings(sparsity="l1", strength=0.01, eliminate=False)
    >>> settings.matching_steps, settings.sparsity in pf.dynamics.SPARSITIES
    (1000, True)
    """

    sparsity: str = "group_lasso"
    strength: float | None = None
    strengths: tuple[float, ...] = STRENGTHS
    eliminate: bool = True
    n_candidates: int = 8
    matching_steps: int = 1000
    path_steps: int = 300
    elimination_steps: int = 150
    shooting_steps: int = 150
    solving_steps: int = 300
    learning_rate: float = 0.01
    segment: int = 5
    window: float = 1 / 6
    displacement: float = 0.0
    seed: int = 0
