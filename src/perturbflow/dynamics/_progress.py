"""State of an unfinished fit, as tensors and plain values, so that it can go on from there."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field as default
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from perturbflow.dynamics._elimination import Removals
from perturbflow.dynamics._field import TargetField, VectorField
from perturbflow.dynamics._sparsity import Sparsity
from perturbflow.dynamics._strength import StrengthPath

if TYPE_CHECKING:
    from perturbflow.dynamics._training import DynamicsTrainer

N_STAGES = 5
_VALUES = ("n_done", "chosen", "threshold", "history", "diverged")
States = tuple[dict[str, Tensor], dict[str, Tensor]]
"""Weights of a field, and of its way to sparsity."""


@dataclass
class Unfinished:
    """State of a stage that is not done."""

    tried: list[States] = default(default_factory=list)  # weights at the strengths of sparsity so far
    removals: Removals | None = None  # inputs that elimination has removed, None outside of it

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
        tried = [(_part(tensors, f"tried.{k}.field."), _part(tensors, f"tried.{k}.sparsity.")) for k in range(n_tried)]
        removals = _part(tensors, "removals.")
        if not removals:
            return cls(tried)
        if not isinstance(field, TargetField):
            msg = "removals of inputs from a field without a network per target"
            raise ValueError(msg)
        return cls(tried, Removals.of_state(field, removals))


def states_of(field: VectorField, sparsity: Sparsity) -> States:
    """Return copies of the weights."""
    return copy.deepcopy(field.state_dict()), copy.deepcopy(sparsity.state_dict())


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


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
    trainer.field.load_state_dict(_part(tensors, "field."))
    if values["fixed"]:
        trainer.sparsity = Sparsity(trainer.field)
    trainer.sparsity.load_state_dict(_part(tensors, "sparsity."))
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
        msg = f"{n_done} stages and the choice {chosen} of {n_strengths}"
        raise ValueError(msg)
