"""Strength of sparsity along a path with warm starts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field as default

import torch
from torch import Tensor

from perturbflow.dynamics._paths import path_weights


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


def count_edges(layers: Sequence[Tensor], skip: Tensor | None, *, smallest: float) -> int:
    """Return the number of inputs of all targets whose paths weigh more than a share of the target's strongest."""
    with torch.no_grad():
        paths = path_weights(layers)
        if skip is not None:
            paths = paths + skip[:, 0].abs()
        return int(((paths > smallest * paths.amax(dim=1, keepdim=True)) & (paths > 0)).sum())
