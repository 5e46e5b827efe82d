"""What a fit has found so far: errors along strengths of sparsity, and its state, from which it can go on."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field as default
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from perturbflow.dynamics._elimination import Elimination, below
from perturbflow.dynamics._field import TargetField, VectorField
from perturbflow.dynamics._penalties import Sparsity

if TYPE_CHECKING:
    from perturbflow.dynamics._training import DynamicsTrainer

N_STAGES = 5
_VALUES = ("n_done", "chosen", "threshold", "history", "diverged")
States = tuple[dict[str, Tensor], dict[str, Tensor]]
"""Weights of a field, and of its way to sparsity."""


@dataclass
class StrengthPath:
    """Errors along ascending strengths."""

    strengths: list[float] = default(default_factory=list)  # of sparsity, ascending
    train: list[Tensor] = default(default_factory=list)  # relative errors of every target (d,) at each
    valid: list[Tensor] = default(default_factory=list)  # the same; NaN where nothing is held out
    n_edges: list[int] = default(default_factory=list)  # inputs with a path above 1 % of the strongest

    def add(self, strength: float, train: Tensor, valid: Tensor | None, n_edges: int) -> None:
        """Append the results of a strength."""
        self.strengths.append(strength)
        self.train.append(train)
        self.valid.append(torch.full_like(train, torch.nan) if valid is None else valid)
        self.n_edges.append(n_edges)

    def standard_errors(self) -> list[float]:
        """Return the standard error over targets of the difference of each held-out error from the smallest."""
        best = self.valid[self.best()]
        return [float((v - best).std() / math.sqrt(len(v))) if len(v) > 1 else 0.0 for v in self.valid]

    def best(self) -> int:
        """Return the position of the smallest mean held-out error, the first without any."""
        means = torch.stack(self.valid).mean(dim=1)
        return 0 if means.isnan().all() else int(means.nan_to_num(nan=math.inf).argmin())

    def choose(self) -> int:
        """Return the position of the strongest whose held-out error is the smallest within a standard error."""
        best = self.best()
        means = [float(v.mean()) for v in self.valid]
        if math.isnan(means[best]):
            return best
        errors = self.standard_errors()
        good = [k for k in range(len(means)) if means[k] - means[best] <= errors[k]]
        return max([*good, best])

    def to_columns(self, chosen: int) -> dict[str, list]:
        """Return the columns of a table."""
        return {
            "strength": list(self.strengths),
            "train_error": [float(t.mean()) for t in self.train],
            "valid_error": [float(v.mean()) for v in self.valid],
            "valid_error_se": self.standard_errors(),
            "n_edges": list(self.n_edges),
            "chosen": [k == chosen for k in range(len(self.strengths))],
        }


@dataclass
class Unfinished:
    """State of a stage that is not done."""

    tried: list[States] = default(default_factory=list)  # weights at the strengths of sparsity so far
    removals: Elimination | None = None  # inputs that elimination has removed, None outside of it

    def state(self) -> dict[str, Tensor]:
        """Return tensors by name."""
        tensors = {
            f"tried.{k}.{part}.{name}": value
            for k, states in enumerate(self.tried)
            for part, state in zip(("field", "sparsity"), states, strict=True)
            for name, value in state.items()
        }
        removals = {} if self.removals is None else self.removals.state()
        return tensors | {f"removals.{name}": value for name, value in removals.items()}

    @classmethod
    def of_state(cls, tensors: Mapping[str, Tensor], *, field: VectorField, n_tried: int) -> Unfinished:
        """Return what :meth:`state` was of, for a field of the same shape."""
        tried = [(below(tensors, f"tried.{k}.field."), below(tensors, f"tried.{k}.sparsity.")) for k in range(n_tried)]
        removals = below(tensors, "removals.")
        if not removals:
            return cls(tried)
        if not isinstance(field, TargetField):
            msg = "removed inputs for a field without one network per target"
            raise ValueError(msg)
        return cls(tried, Elimination.of_state(field, removals))


def states_of(field: VectorField, sparsity: Sparsity) -> States:
    """Return copies of the weights."""
    return copy.deepcopy(field.state_dict()), copy.deepcopy(sparsity.state_dict())


def state_of(trainer: DynamicsTrainer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return what the next steps of a trainer depend on, see :meth:`DynamicsTrainer.state`."""
    tensors = {f"field.{name}": value for name, value in trainer.field.state_dict().items()}
    tensors |= {f"sparsity.{name}": value for name, value in trainer.sparsity.state_dict().items()}
    tensors |= trainer.unfinished.state()
    tensors |= {"start": trainer.start, "generator": trainer.generator.get_state(), "evidence": trainer.evidence}
    path = trainer.path
    if path.strengths:
        tensors |= {"train": torch.stack(path.train), "valid": torch.stack(path.valid)}
    values = {name: getattr(trainer, name) for name in _VALUES}
    values |= {"strengths": path.strengths, "n_edges": path.n_edges, "fixed": type(trainer.sparsity) is Sparsity}
    return {name: value.contiguous() for name, value in tensors.items()}, values


def restore(trainer: DynamicsTrainer, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
    """Give a trainer the state of another, see :meth:`DynamicsTrainer.load_state`."""
    _check(trainer, tensors, values)
    n_tried = 0 if values["n_done"] else len(values["strengths"])
    trainer.unfinished = Unfinished.of_state(tensors, field=trainer.field, n_tried=n_tried)
    for field, sparsity in trainer.unfinished.tried:  # raises if they are of something else
        trainer.field.load_state_dict(field)
        trainer.sparsity.load_state_dict(sparsity)
    trainer.field.load_state_dict(below(tensors, "field."))
    if values["fixed"]:
        trainer.sparsity = Sparsity(trainer.field)
    trainer.sparsity.load_state_dict(below(tensors, "sparsity."))
    trainer.start, trainer.evidence = tensors["start"], tensors["evidence"]
    trainer.generator.set_state(tensors["generator"])
    for name in _VALUES:
        setattr(trainer, name, copy.deepcopy(values[name]))
    trainer.path = StrengthPath(
        strengths=list(values["strengths"]),
        train=list(tensors["train"]) if "train" in tensors else [],
        valid=list(tensors["valid"]) if "valid" in tensors else [],
        n_edges=list(values["n_edges"]),
    )


def _check(trainer: DynamicsTrainer, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
    """Raise unless a state can be one of a trainer."""
    for name, value in tensors.items():
        if name.startswith(("field.", "sparsity.", "tried.", "start")) and not value.isfinite().all():
            msg = f"NaN or infinite values in {name!r}"
            raise ValueError(msg)
    if tensors["start"].shape != trainer.start.shape:
        msg = f"starts of shape {tuple(tensors['start'].shape)} instead of {tuple(trainer.start.shape)}"
        raise ValueError(msg)
    n_done, chosen, n_strengths = values["n_done"], values["chosen"], len(values["strengths"])
    if not (0 <= n_done <= N_STAGES and 0 <= chosen < max(1, n_strengths)):
        msg = f"{n_done} stages and choice {chosen} of {n_strengths} strengths"
        raise ValueError(msg)
