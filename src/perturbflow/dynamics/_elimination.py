"""Backward elimination of edges, with the evidence for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from perturbflow.dynamics._compact import CompactField
from perturbflow.dynamics._field import TargetField
from perturbflow.dynamics._matching import (
    CHUNKS_A_STEP,
    Chunks,
    MatchedWindows,
    relative_errors,
    root_error,
    window_errors,
)
from perturbflow.dynamics._optimiser import ProximalAdam
from perturbflow.dynamics._sparsity import Sparsity

DECAY_OF_WEIGHTS = 1e-4
HEADS_AT_ONCE = 1024
THRESHOLDS = torch.logspace(-2.5, 0.5, 31)


@dataclass(frozen=True)
class Elimination:
    """Result of backward elimination.

    Attributes
    ----------
    steps
        The field and position of every target's mechanism with 0, 1, ... inputs.
    evidence
        By how much the error of a target grows without an input: log ratio of mean squares at its elimination, or at an
        earlier one if that was larger; 0 for inputs that were no candidates, shape (d, n_inputs).
    errors, held_out
        Relative error of every target with 0, 1, ..., k inputs, on the curves that were fitted and on others; infinite
        where there were fewer candidates, shape (d, k + 1).

    Examples
    --------
    Two targets that have lost their one candidate: without it the error of the first is ten times as large, and that of the
    second hardly changes.

    >>> import perturbflow as pf
    >>> import torch
    >>> errors = torch.tensor([[1.0, 0.1], [1.0, 0.99]])
    >>> found = pf.dynamics.Elimination(({}, {}), torch.tensor([[4.6], [0.02]]), errors, errors)
    >>> found.sizes(threshold=1.0)  # inputs that stay
    tensor([1, 0])
    """

    steps: tuple[dict[int, tuple[CompactField, int]], ...]
    evidence: Tensor
    errors: Tensor
    held_out: Tensor

    def sizes(self, threshold: float) -> Tensor:
        """Return how many inputs every target keeps if each must have evidence of at least the threshold, shape (d,).

        Parameters
        ----------
        threshold
            Evidence that every input needs.

        Returns
        -------
        Numbers of inputs.
        """
        cost = 2 * (self.errors[:, :-1] / self.errors[:, 1:]).log()
        cost = torch.where(self.errors[:, 1:].isfinite(), cost, -torch.inf)
        number = torch.arange(1, cost.shape[1] + 1)
        return torch.where(cost >= threshold, number, 0).amax(dim=1)

    def field(self, threshold: float) -> TargetField:
        """Return the mechanisms with the inputs that have enough evidence; others are no longer allowed.

        Parameters
        ----------
        threshold
            Evidence that every input needs.

        Returns
        -------
        The field of all targets.
        """
        sizes = self.sizes(threshold).tolist()
        return _gather([steps[size] for steps, size in zip(self.steps, sizes, strict=True)]).expand()

    def choose_threshold(self) -> float:
        """Return the threshold whose held-out error, mean logarithm over targets, is the smallest.

        Returns
        -------
        The threshold, one of ``THRESHOLDS``.
        """
        targets = torch.arange(len(self.errors))
        errors = torch.stack([self.held_out[targets, self.sizes(float(t))].log().mean() for t in THRESHOLDS])
        return float(THRESHOLDS[int(errors.argmin())])


def eliminate(
    field: TargetField,
    importance: Tensor,
    train: Chunks,
    valid: Chunks | None,
    *,
    n_candidates: int,
    n_steps: int,
    learning_rate: float,
    generator: torch.Generator,
) -> Elimination:
    """Remove one input of every target after the other, each time that whose removal costs least.

    From the candidates of largest importance, every model with one input less is trained from the weights at hand, all
    targets and all removals side by side, until no input is left.

    Parameters
    ----------
    field
        The fitted mechanisms of all genes.
    importance
        Importance of the inputs, 0 for those that are not in the support, shape (d, n_inputs).
    train, valid
        Smoothed curves to fit, and others to choose with; the former if there are none.
    n_candidates
        Largest number of inputs of a target to begin with.
    n_steps
        Training steps after a removal.
    learning_rate
        Their learning rate at first.
    generator
        Of the pieces of a step.

    Returns
    -------
    The mechanisms of all sizes and the evidence.

    Examples
    --------
    Genes 0 and 1 drive each other, ``dx/dt = -y`` and ``dy/dt = x``; gene 2 goes its own way:

    >>> import numpy as np
    >>> import perturbflow as pf
    >>> import torch
    >>> time = np.linspace(0.0, 6.0, 31)
    >>> levels = np.column_stack([np.cos(time), np.sin(time), np.sin(2 * time)])
    >>> run = pf.dynamics.Trajectory("run", time, levels, np.ones(31), np.zeros(3, dtype=bool))
    >>> config = pf.dynamics.FieldConfig(3, (0, 1, 2), structure="linear", decay=False, production="free")
    >>> field = pf.dynamics.build_field(config)
    >>> fitted = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    >>> _ = field.matrices[0].data.copy_(fitted[:, None])
    >>> chunks = pf.dynamics.Problem.of([run], order=1).chunks
    >>> options = {"n_candidates": 2, "n_steps": 50, "learning_rate": 0.01, "generator": torch.Generator()}
    >>> found = pf.dynamics.eliminate(field, field.allowed.clone(), chunks, None, **options)
    >>> (found.evidence > 1).int()
    tensor([[0, 1, 0],
            [1, 0, 0],
            [0, 0, 0]], dtype=torch.int32)
    """
    backward = Backward(train, valid, n_steps=n_steps, learning_rate=learning_rate, generator=generator)
    removals = backward.begin(field, importance, n_candidates=n_candidates)
    while backward.remove(removals):
        pass
    return removals.result()


@dataclass
class Removals:
    """Inputs that were removed so far: all that further rounds depend on, besides the generator.

    Attributes
    ----------
    rounds
        Mechanisms of all targets after every round, the first with all candidates.
    lost
        Evidence of the input that a target has lost last, shape (d,).
    diverged
        Targets of which a mechanism could not be trained without its loss becoming infinite or NaN, shape (d,).
    evidence, errors, held_out
        As of :class:`Elimination`.
    """

    rounds: list[CompactField]
    lost: Tensor
    diverged: Tensor
    evidence: Tensor
    errors: Tensor
    held_out: Tensor

    def result(self) -> Elimination:
        """Return what was found; without further rounds nothing is known of smaller mechanisms."""
        steps: list[dict[int, tuple[CompactField, int]]] = [{} for _ in self.lost]
        for field in self.rounds:
            for i, size in enumerate(field.allowed.sum(dim=1).long().tolist()):
                steps[i].setdefault(size, (field, i))
        return Elimination(tuple(steps), self.evidence, self.errors, self.held_out)

    def state(self) -> dict[str, Tensor]:
        """Return everything as tensors by name."""
        rounds = {f"{k}.{name}": v for k, field in enumerate(self.rounds) for name, v in field.state_dict().items()}
        return rounds | {name: getattr(self, name) for name in _TENSORS}

    @classmethod
    def of_state(cls, field: TargetField, tensors: Mapping[str, Tensor]) -> Self:
        """Return what :meth:`state` was of, for mechanisms like those of a field."""
        everyone = torch.arange(len(tensors["lost"]))
        rounds: list[CompactField] = []
        while f"{len(rounds)}.candidates" in tensors:
            prefix = f"{len(rounds)}."
            state = {name.removeprefix(prefix): v for name, v in tensors.items() if name.startswith(prefix)}
            mechanisms = CompactField(field, everyone, state["candidates"], state["allowed"])
            mechanisms.load_state_dict(state)
            rounds.append(mechanisms)
        return cls(rounds, **{name: tensors[name] for name in _TENSORS})


_TENSORS = ("lost", "diverged", "evidence", "errors", "held_out")


class Backward:
    """Backward elimination round by round, see :func:`eliminate`.

    Parameters
    ----------
    train, valid, n_steps, learning_rate, generator
        As of :func:`eliminate`.
    """

    def __init__(
        self, train: Chunks, valid: Chunks | None, *, n_steps: int, learning_rate: float, generator: torch.Generator
    ) -> None:
        self.train, self.judged = train, train if valid is None else valid
        self.n_steps, self.learning_rate, self.generator = n_steps, learning_rate, generator

    def begin(self, field: TargetField, importance: Tensor, *, n_candidates: int) -> Removals:
        """Train the mechanisms with all their candidates."""
        d, n_inputs = importance.shape
        width = max(1, min(n_candidates, n_inputs, int((importance > 0).sum(dim=1).max())))
        order = importance.argsort(dim=1, descending=True)[:, :width]
        everyone = torch.arange(d)
        now = CompactField(field, everyone, order, (importance.gather(1, order) > 0).to(importance.dtype))
        error, diverged = self._train(now, n_steps=2 * self.n_steps)
        errors, held_out = torch.full((2, d, width + 1), torch.inf)
        sizes = now.allowed.sum(dim=1).long()
        errors[everyone, sizes], held_out[everyone, sizes] = error, _finite(_errors(now, self.judged))
        return Removals([now], torch.zeros(d), diverged, torch.zeros(d, n_inputs), errors, held_out)

    def remove(self, found: Removals) -> bool:
        """Remove one input of every target that has any; False if none had."""
        now = found.rounds[-1]
        heads, column = torch.nonzero(now.allowed, as_tuple=True)
        if not len(heads):
            return False
        trained, costs, outside = [], [], []
        for part in torch.arange(len(heads)).split(HEADS_AT_ONCE):
            without = now.select(heads[part])
            without.allowed[torch.arange(len(part)), column[part]] = 0
            cost, diverged = self._train(without, n_steps=self.n_steps)
            found.diverged[heads[part][diverged]] = True
            trained.append(without)
            costs.append(cost)
            outside.append(_finite(_errors(without, self.judged)))
        cost, cost_outside = torch.cat(costs), torch.cat(outside)
        following = []
        for i in range(len(found.lost)):
            mine = torch.nonzero(heads == i)[:, 0]
            if len(mine) == 0:
                following.append((now, i))
                continue
            head, size = int(mine[cost[mine].argmin()]), len(mine) - 1
            # What is removed later matters more, even if little was left to lose.
            found.lost[i] = max(float(found.lost[i]), 2 * float((cost[head] / found.errors[i, size + 1]).log()))
            found.evidence[i, now.candidates[i, column[head]]] = found.lost[i]
            found.errors[i, size], found.held_out[i, size] = cost[head], cost_outside[head]
            following.append((trained[head // HEADS_AT_ONCE], head % HEADS_AT_ONCE))
        found.rounds.append(_gather(following))
        return True

    def _train(self, field: CompactField, *, n_steps: int) -> tuple[Tensor, Tensor]:
        """Fit mechanisms by integral matching; the logarithm makes the steps of good and bad ones alike.

        Those whose error becomes infinite or NaN are what they were before.

        Returns
        -------
        The relative error of every mechanism (K,), and whether it was taken back (K,).
        """
        before = [parameter.detach().clone() for parameter in field.parameters()]
        optimiser = ProximalAdam(field, Sparsity(field), learning_rate=self.learning_rate, n_steps=n_steps)
        windows = MatchedWindows.of(field, self.train.pieces(torch.arange(min(len(self.train), CHUNKS_A_STEP))))
        for _ in range(n_steps):
            if len(self.train) > CHUNKS_A_STEP:
                some = torch.randperm(len(self.train), generator=self.generator)[:CHUNKS_A_STEP]
                windows = MatchedWindows.of(field, self.train.pieces(some))
            miss, size = window_errors(field, windows)
            loss = root_error(miss, size).log().sum()
            loss = loss + DECAY_OF_WEIGHTS * sum((matrix**2).sum() for matrix in field.matrices)
            optimiser.step(loss, strength=0.0)
        errors = _errors(field, self.train)
        diverged = ~errors.isfinite()
        if diverged.any():
            with torch.no_grad():
                for parameter, value in zip(field.parameters(), before, strict=True):
                    parameter[diverged] = value[diverged]
            errors = _finite(_errors(field, self.train))
        return errors, diverged


def _gather(chosen: list[tuple[CompactField, int]]) -> CompactField:
    """Return the mechanisms of several fields as one, in this order."""
    parts = [field.select(torch.tensor([position])) for field, position in chosen]
    merged = parts[0].select(torch.zeros(len(parts), dtype=torch.long))
    with torch.no_grad():
        for name, parameter in merged.named_parameters():
            parameter.copy_(torch.cat([part.get_parameter(name) for part in parts]))
        for name in ("targets", "allowed", "candidates"):
            merged.get_buffer(name).copy_(torch.cat([part.get_buffer(name) for part in parts]))
    return merged


def _errors(field: CompactField, chunks: Chunks) -> Tensor:
    """Return the relative error of every mechanism."""
    with torch.no_grad():
        miss, size = torch.zeros(len(field.targets)), torch.zeros(len(field.targets))
        for k in range(0, len(chunks), CHUNKS_A_STEP):
            part = relative_errors(field, chunks.pieces(torch.arange(k, min(k + CHUNKS_A_STEP, len(chunks)))))
            miss, size = miss + part[0], size + part[1]
        return root_error(miss, size)


def _finite(errors: Tensor) -> Tensor:
    """Return errors of which those that are NaN are larger than all others."""
    return errors.nan_to_num(nan=torch.inf, posinf=torch.inf)
