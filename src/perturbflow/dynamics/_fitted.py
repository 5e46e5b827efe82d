"""A fitted model: solved from any start, under any intervention."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as default
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from perturbflow.dynamics._field import DenseField, MeanJacobian, VectorField, build_field, mean_jacobian
from perturbflow.dynamics._integrate import held, solve_rk4
from perturbflow.dynamics._penalties import path_strengths
from perturbflow.dynamics._problem import Units
from perturbflow.dynamics._settings import FieldConfig
from perturbflow.dynamics._shooting import MAX_STEP

Array = NDArray[np.float64]


SMALLEST_WEIGHT = 1e-3  # share of the largest of its layer, below which a weight of a dense network is taken for 0


@dataclass
class FittedDynamics:
    """A sparse vector field with its units, and where the trajectories start that it was fitted to.

    Attributes
    ----------
    field
        The vector field; its weights are final, without gates, and what is not in its support is 0.
    units
        Units of its states and times.
    names
        Names of the trajectories, K.
    start
        States of the trajectories at their first time, scaled, shape (K, order * d).
    span
        First and last observed time of each, shape (K, 2).
    clamped
        Genes that an intervention holds in each, shape (K, d).
    states
        States over which the Jacobian is averaged, scaled, shape (B, order * d).
    rates
        Affine map (d + 1, d) from levels to rates at the observed states, for new starts of a second-order field; empty
        in first order.
    evidence
        Evidence for the inputs from backward elimination (d, n_inputs), empty without.
    path
        Errors and numbers of edges along the strengths of sparsity, columns of a table.
    history
        Stage, step and loss of the fit, columns of a table.
    strength
        The strength used.
    threshold
        Evidence that an input needed to stay; None where nothing was held out to choose it.

    Examples
    --------
    >>> import perturbflow as pf
    >>> time = np.linspace(0.0, 6.0, 31)
    >>> circle = np.column_stack([np.cos(time), np.sin(time)])  # dx/dt = -y, dy/dt = x
    >>> run = pf.dynamics.Trajectory("run", time, circle, np.ones(31), np.zeros(2, dtype=bool))
    >>> config = pf.dynamics.FieldConfig(
    ...     2, (0, 1), structure="linear", decay=False, production="free", self_regulation=True
    ... )
    >>> settings = pf.dynamics.DynamicsSettings(
    ...     sparsity="none", strength=0.0, eliminate=False, matching_steps=400, shooting_steps=5, solving_steps=5
    ... )
    >>> fitted = pf.dynamics.DynamicsTrainer([run], config, settings).fit()
    >>> fitted.solve(fitted.start, [0.0, np.pi, 3 * np.pi])[..., 0].round(1)  # beyond the data, too
    array([[ 1., -1., -1.]])
    >>> fitted.solve(fitted.state([[1.0, 0.0]]), [0.0, 1.0], clamp={1: 0.5}).round(1)  # dx/dt = -0.5
    array([[[1. , 0.5],
            [0.5, 0.5]]])
    """

    field: VectorField
    units: Units
    names: tuple[str, ...]
    start: Array
    span: Array
    clamped: NDArray[np.bool_]
    states: NDArray[np.float32]
    rates: Array
    evidence: NDArray[np.float32]
    path: dict[str, list[Any]] = default(default_factory=dict)
    history: dict[str, list[Any]] = default(default_factory=dict)
    strength: float = 0.0
    threshold: float | None = None

    @property
    def config(self) -> FieldConfig:
        """Return what the field is made of."""
        return self.field.config

    def state(self, levels: ArrayLike) -> Array:
        """Return scaled states for levels (B, d); rates of a second-order field are those usual at such levels.

        Parameters
        ----------
        levels
            Levels of the genes (B, d), in the unit of the data.

        Returns
        -------
        Scaled states (B, order * d).
        """
        x = np.asarray(levels, dtype=float) / self.units.scale
        if self.config.order == 1:
            return x
        return np.concatenate([x, np.column_stack([np.ones(len(x)), x]) @ self.rates], axis=1)

    def solve(
        self,
        start: ArrayLike,
        time: ArrayLike,
        *,
        clamp: Mapping[int, float] | None = None,
        mechanisms: Mapping[int, Callable[[Tensor], Tensor]] | None = None,
        clamped: NDArray[np.bool_] | None = None,
    ) -> Array:
        """Return levels along time, shape (B, n, d).

        Parameters
        ----------
        start
            Scaled states at the first time, shape (B, order * d): ``start`` of the model, or :meth:`state`.
        time
            Times, ascending, in the unit of the data, shape (n,).
        clamp
            Levels at which genes are held from the start on, by position.
        mechanisms
            Functions that replace the highest derivative of genes, by position, given unscaled states (B, order * d).
        clamped
            Genes held at their start in each solution, shape (B, d).

        Returns
        -------
        The levels.
        """
        d, order = self.config.n_genes, self.config.order
        state = torch.tensor(np.array(start, dtype=float))
        holds = torch.zeros(len(state), d, dtype=torch.bool)
        if clamped is not None:
            holds |= torch.tensor(clamped)
        for gene, level in (clamp or {}).items():
            state[:, gene] = level / self.units.scale[gene]
            holds[:, gene] = True
        if order == 2:
            state[:, d:][holds] = 0.0
        free = held(self._derivative(mechanisms or {}), holds.repeat(1, order))
        scaled = torch.tensor(np.asarray(time, dtype=float) / self.units.time)
        with torch.no_grad():
            states = solve_rk4(free, state, scaled.expand(len(state), -1), max_step=MAX_STEP)
        return states[..., :d].numpy() * self.units.scale

    def _derivative(self, mechanisms: Mapping[int, Callable[[Tensor], Tensor]]) -> Callable[[Tensor], Tensor]:
        field = self.field.double()
        order, d = self.config.order, self.config.n_genes
        scale = torch.tensor(np.concatenate([self.units.scale / self.units.time**k for k in range(order)]))

        def derivative(state: Tensor) -> Tensor:
            change = field(state)
            for gene, mechanism in mechanisms.items():
                per_time = self.units.time**order / self.units.scale[gene]
                change[:, (order - 1) * d + gene] = mechanism(state * scale) * per_time
            return change

        return derivative

    def jacobian(self, states: NDArray | None = None) -> MeanJacobian:
        """Return the mean Jacobian in units of each gene's spread, over the states of the fit or others (scaled).

        Parameters
        ----------
        states
            Scaled states (B, order * d), as of :meth:`state`; those of the fit by default.

        Returns
        -------
        The averages (d, n_inputs), per unit of time of the model; 0 for genes at rest.
        """
        field = self.field.float()
        found = mean_jacobian(field, torch.tensor(np.asarray(self.states if states is None else states, np.float32)))
        return MeanJacobian(field.of_all_genes(found.mean), field.of_all_genes(found.magnitude))

    def support(self) -> NDArray[np.bool_]:
        """Return which inputs a target depends on, shape (d, n_inputs): a path of non-zero weights leads there.

        Returns
        -------
        True where target (row) depends on input (column).
        """
        found = strong_inputs(self.field, [w.detach() for w in self.field.weights()], smallest=0.0)
        return self.field.of_all_genes(found).numpy()

    def to_dict(self) -> dict[str, Any]:
        """Return plain arrays and values.

        Returns
        -------
        Everything but ``path`` and ``history`` by name, for ``uns``.
        """
        weights = {name.replace(".", "_"): v.cpu().float().numpy() for name, v in self.field.state_dict().items()}
        return {
            "config": self.config.to_dict(),
            "weights": weights,
            "scale": self.units.scale,
            "time_scale": self.units.time,
            "names": np.array(self.names, dtype=object),
            "start": self.start,
            "span": self.span,
            "clamped": self.clamped,
            "states": self.states,
            "rates": self.rates,
            "evidence": self.evidence,
            "strength": self.strength,
        } | ({} if self.threshold is None else {"threshold": self.threshold})

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read what :meth:`to_dict` wrote.

        Parameters
        ----------
        values
            Everything by name.

        Returns
        -------
        The model, without ``path`` and ``history``.
        """
        field = build_field(FieldConfig.from_dict(values["config"]))
        state = field.state_dict()
        saved = values["weights"]
        field.load_state_dict(
            {name: torch.tensor(np.asarray(saved[name.replace(".", "_")])).to(v.dtype) for name, v in state.items()}
        )
        return cls(
            field=field,
            units=Units(scale=np.asarray(values["scale"]), time=float(values["time_scale"])),
            names=tuple(map(str, values["names"])),
            strength=float(values["strength"]),
            threshold=float(values["threshold"]) if "threshold" in values else None,
            start=np.asarray(values["start"]),
            span=np.asarray(values["span"]),
            clamped=np.asarray(values["clamped"]),
            states=np.asarray(values["states"]),
            rates=np.asarray(values["rates"]),
            evidence=np.asarray(values["evidence"]),
        )


def usual_rates(states: Array, config: FieldConfig) -> Array:
    """Return the affine regression of rates on levels (d + 1, d), for starts whose rates are not known."""
    if config.order == 1:
        return np.zeros((0, 0))
    d, moving = config.n_genes, np.array(config.targets)
    design = np.column_stack([np.ones(len(states)), states[:, moving]])
    rates = np.zeros((d + 1, d))
    rates[np.ix_(np.append(0, 1 + moving), moving)] = np.linalg.lstsq(design, states[:, d + moving], rcond=None)[0]
    return rates


def strong_inputs(field: VectorField, weights: Sequence[Tensor], *, smallest: float) -> Tensor:
    """Return the inputs of every target whose paths weigh more than a share of its strongest (K, n_inputs)."""
    paths = path_strengths(field, weights)
    return paths > smallest * paths.amax(dim=1, keepdim=True)


def keep_support(field: VectorField, weights: Sequence[Tensor], *, smallest: float) -> None:
    """Write the weights of evaluation into the field, and fix what is 0 or nearly so.

    With a network per target, inputs whose paths weigh less than a share of the target's strongest are removed; in a
    dense network single weights of less than a thousandth of the largest of their layer.
    """
    layers = [w.detach().clone() for w in weights]
    with torch.no_grad():
        if isinstance(field, DenseField):
            for matrix, mask, layer in zip(field.matrices, field.masks(), layers, strict=True):
                matrix.copy_(layer)
                mask.copy_((layer.abs() > SMALLEST_WEIGHT * layer.abs().max()).to(mask.dtype))
            return
        field.allowed.mul_(strong_inputs(field, layers, smallest=smallest))
        for matrix, layer in zip(field.matrices, layers, strict=False):
            matrix.copy_(layer)
        if field.config.skip:
            field.linear.copy_(layers[-1])
