"""Backward elimination of edges, with the evidence for each, on networks without removed inputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from perturbflow.dynamics._field import SHARED, TargetField, VectorField
from perturbflow.dynamics._matching import Chunks, drawn_windows, matching_error, root_error, window_errors
from perturbflow.dynamics._optimiser import ProximalAdam
from perturbflow.dynamics._penalties import Sparsity

DECAY_OF_WEIGHTS = 1e-4
HEADS_AT_ONCE = 1024
THRESHOLDS = torch.logspace(-2.5, 0.5, 31)


@dataclass
class Elimination:
    """Inputs that were removed so far, and the evidence for each: all that further rounds depend on, but the generator."""

    rounds: list[CompactField]  # mechanisms of all targets after every round, the first with all candidates
    lost: Tensor  # evidence of the input that a target has lost last (d,)
    diverged: Tensor  # targets of which a mechanism had a loss that became infinite or NaN (d,)
    evidence: (
        Tensor  # log ratio of mean squares at the removal of an input or, if larger, before; 0 if none (d, n_inputs)
    )
    errors: Tensor  # relative, of every target with 0, 1, ..., k inputs, infinite where there were fewer (d, k + 1)
    held_out: Tensor  # the same, on curves that were not fitted (d, k + 1)

    def sizes(self, threshold: float) -> Tensor:
        """Return how many inputs every target keeps if each must have evidence of at least the threshold, shape (d,)."""
        cost = 2 * (self.errors[:, :-1] / self.errors[:, 1:]).log()
        cost = torch.where(self.errors[:, 1:].isfinite(), cost, -torch.inf)
        number = torch.arange(1, cost.shape[1] + 1)
        return torch.where(cost >= threshold, number, 0).amax(dim=1)

    def field(self, threshold: float) -> TargetField:
        """Return the mechanisms with the inputs that have enough evidence; others are no longer allowed."""
        of_size: list[dict[int, tuple[CompactField, int]]] = [{} for _ in self.lost]
        for field in self.rounds:
            for i, size in enumerate(field.allowed.sum(dim=1).long().tolist()):
                of_size[i].setdefault(size, (field, i))
        sizes = self.sizes(threshold).tolist()
        return _gather([mine[size] for mine, size in zip(of_size, sizes, strict=True)]).expand()

    def choose_threshold(self) -> float:
        """Return the threshold whose held-out error, mean logarithm over targets, is the smallest."""
        targets = torch.arange(len(self.errors))
        errors = torch.stack([self.held_out[targets, self.sizes(float(t))].log().mean() for t in THRESHOLDS])
        return float(THRESHOLDS[int(errors.argmin())])

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
            state = below(tensors, f"{len(rounds)}.")
            mechanisms = CompactField(field, everyone, state["candidates"], state["allowed"])
            mechanisms.load_state_dict(state)
            rounds.append(mechanisms)
        return cls(rounds, **{name: tensors[name] for name in _TENSORS})


_TENSORS = ("lost", "diverged", "evidence", "errors", "held_out")


class Backward:
    """Backward elimination: in every round, each target loses the input whose removal costs least.

    From the candidates of largest importance, every model with one input less is trained from the weights at hand, all
    targets and all removals side by side. Without curves to judge by, those that are fitted say how large errors are.
    """

    def __init__(
        self, train: Chunks, valid: Chunks | None, *, n_steps: int, learning_rate: float, generator: torch.Generator
    ) -> None:
        self.train, self.judged = train, train if valid is None else valid
        self.n_steps, self.learning_rate, self.generator = n_steps, learning_rate, generator

    def begin(self, field: TargetField, importance: Tensor, *, n_candidates: int) -> Elimination:
        """Train the mechanisms with all their candidates."""
        d, n_inputs = importance.shape
        width = max(1, min(n_candidates, n_inputs, int((importance > 0).sum(dim=1).max())))
        order = importance.argsort(dim=1, descending=True)[:, :width]
        everyone = torch.arange(d)
        now = CompactField(field, everyone, order, (importance.gather(1, order) > 0).to(importance.dtype))
        error, diverged = self._train(now, n_steps=2 * self.n_steps)
        errors, held_out = torch.full((2, d, width + 1), torch.inf)
        sizes = now.allowed.sum(dim=1).long()
        errors[everyone, sizes], held_out[everyone, sizes] = error, _finite(matching_error(now, self.judged))
        return Elimination([now], torch.zeros(d), diverged, torch.zeros(d, n_inputs), errors, held_out)

    def remove(self, found: Elimination) -> bool:
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
            outside.append(_finite(matching_error(without, self.judged)))
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
        """
        before = [parameter.detach().clone() for parameter in field.parameters()]
        optimiser = ProximalAdam(field, Sparsity(field), learning_rate=self.learning_rate, n_steps=n_steps)
        for windows in drawn_windows(field, self.train, n_steps, self.generator):
            miss, size = window_errors(field, windows)
            loss = root_error(miss, size).log().sum()
            loss = loss + DECAY_OF_WEIGHTS * sum((matrix**2).sum() for matrix in field.matrices)
            optimiser.step(loss, strength=0.0)
        errors = matching_error(field, self.train)
        diverged = ~errors.isfinite()
        if diverged.any():
            with torch.no_grad():
                for parameter, value in zip(field.parameters(), before, strict=True):
                    parameter[diverged] = value[diverged]
            errors = _finite(matching_error(field, self.train))
        return errors, diverged


def below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _gather(chosen: list[tuple[CompactField, int]]) -> CompactField:
    """Return the mechanisms of several fields as one, in this order."""
    parts = [field.select(torch.tensor([position])) for field, position in chosen]
    states = [part.state_dict() for part in parts]
    merged = parts[0].select(torch.zeros(len(parts), dtype=torch.long))
    joined = {name: torch.cat([state[name] for state in states]) for name in states[0] if name not in SHARED}
    merged.load_state_dict(states[0] | joined)
    return merged


def _finite(errors: Tensor) -> Tensor:
    """Return errors of which those that are NaN are larger than all others."""
    return errors.nan_to_num(nan=torch.inf, posinf=torch.inf)


class CompactField(TargetField):
    """Mechanisms of targets of which each has k inputs of its own, so that cost does not grow with the regulators.

    ``heads`` are mechanisms of ``field`` (K,), ``candidates`` positions of inputs (K, k), ``allowed`` those that count.
    """

    candidates: Tensor

    def __init__(self, field: TargetField, heads: Tensor, candidates: Tensor, allowed: Tensor) -> None:
        chosen = field.select(heads)
        super().__init__(field.config, chosen.targets.tolist())
        self.load_state_dict(chosen.state_dict())
        self.register_buffer("candidates", candidates)
        self.allowed = allowed.to(chosen.allowed.dtype)
        self.matrices[0] = self._own(chosen.matrices[0])
        if self.config.skip:
            self.linear = self._own(chosen.linear)

    def _own(self, whole: Tensor) -> nn.Parameter:
        index = self.candidates[:, None, :].expand(-1, whole.shape[1], -1)
        return nn.Parameter(whole.detach().gather(2, index))

    def network_inputs(self, state: Tensor) -> Tensor:
        """Return the centred inputs of each mechanism (K, k, B)."""
        return super().network_inputs(state).T[self.candidates]

    def network(self, inputs: Tensor, weights: Sequence[Tensor]) -> Tensor:
        layers = weights[: len(self.matrices)]
        values = torch.baddbmm(self.biases[0][..., None], layers[0], inputs)
        values = self.after_first(values, layers[1:])
        if self.config.skip:
            values = values + torch.bmm(weights[-1], inputs)[:, 0]
        return values

    def expand(self) -> TargetField:
        """Return the mechanisms with all inputs, those that do not count at weight 0 and no longer allowed."""
        field = TargetField(self.config, self.targets.tolist())
        state = self.state_dict()
        candidates, allowed = state.pop("candidates"), self.allowed
        state["allowed"] = torch.zeros_like(field.allowed).scatter(1, candidates, allowed)
        for name in ("matrices.0", *(["linear"] if self.config.skip else [])):
            part = state[name] * allowed[:, None]
            index = candidates[:, None].expand_as(part)
            state[name] = torch.zeros_like(field.state_dict()[name]).scatter(2, index, part)
        field.load_state_dict(state)
        return field


@contextmanager
def on_support(field: VectorField) -> Iterator[VectorField]:
    """Give a field with the inputs of its support only, where that saves time, and keep what is done to it.

    It is a :class:`CompactField`, or the field itself where some target has half of the inputs.
    """
    width = max(1, int(field.allowed.sum(dim=1).max()))
    if not isinstance(field, TargetField) or 2 * width > field.allowed.shape[1]:
        yield field
        return
    candidates = field.allowed.argsort(dim=1, descending=True, stable=True)[:, :width]
    small = CompactField(field, torch.arange(len(candidates)), candidates, field.allowed.gather(1, candidates))
    try:
        yield small
    finally:
        field.load_state_dict(small.expand().state_dict())
