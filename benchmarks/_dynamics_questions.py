"""A system with a known graph: its training data, its true graph, and questions about noise-free solutions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from perturbflow.trajectories import read_dynamics_fields, trajectories_of

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray
    from torch import Tensor

    from perturbflow.dynamics import Trajectory

WITHIN, BEYOND = "within", "beyond"
TRAINED, NEW, INTERVENTION = "trained", "new start", "intervention"


@dataclass(frozen=True)
class Question:
    """What happens from K starts, along n times, to d variables.

    Attributes
    ----------
    kind, name
        "trained", "new start" or "intervention", and what sets it apart from others of its kind.
    time
        Times since the start, shape (n,).
    is_beyond
        Which times no training run has reached since its start, shape (n,).
    truth
        The answer, shape (K, n, d).
    start
        Levels at the start (K, d), or None for where the model itself lets the training runs start, in the order of
        their numbers.
    rates
        Rates of change at the start (K, d), of a second-order system.
    clamp, mechanisms
        The intervention: levels that are held and accelerations that are replaced, by position.
    unperturbed
        The answer without intervention, shape (K, n, d).
    near
        Variables within two steps downstream of those that are held, shape (d,), where the graph is one of genes.
    """

    kind: str
    name: str
    time: NDArray[np.float64]
    is_beyond: NDArray[np.bool_]
    truth: NDArray[np.float64]
    start: NDArray[np.float64] | None = None
    rates: NDArray[np.float64] | None = None
    clamp: Mapping[int, float] = field(default_factory=dict)
    mechanisms: Mapping[int, Callable[[Tensor], Tensor]] = field(default_factory=dict)
    unperturbed: NDArray[np.float64] | None = None
    near: NDArray[np.bool_] | None = None

    @property
    def is_free(self) -> NDArray[np.bool_]:
        """Variables that are not held, shape (d,)."""
        return ~np.isin(np.arange(self.truth.shape[2]), list(self.clamp))


@dataclass(frozen=True, eq=False)
class System:
    """Training data with registered fields, the true graph, and questions.

    Attributes
    ----------
    name
        Its name on the command line.
    adata
        Training data.
    options
        Options of the fit that say what kind of system it is.
    truth
        Signs of the effects of inputs on targets, shape (n_inputs, d).
    candidates
        Pairs that count, shape (n_inputs, d).
    has_sign
        Pairs whose sign means something, shape (n_inputs, d).
    questions
        What is asked.
    """

    name: str
    adata: AnnData
    options: Mapping[str, Any]
    truth: NDArray[np.float64]
    candidates: NDArray[np.bool_]
    has_sign: NDArray[np.bool_]
    questions: tuple[Question, ...]

    def trajectories(self) -> list[Trajectory]:
        """Return the training runs."""
        return trajectories_of(self.adata, read_dynamics_fields(self.adata))

    @property
    def spread(self) -> float:
        """Root mean square over variables of their standard deviations in the training runs, without noise."""
        return float(np.sqrt(np.asarray(self.adata.layers["noise_free"], dtype=float).var(axis=0).mean()))

    @property
    def ranges(self) -> NDArray[np.float64]:
        """Range of every variable in the training runs, without noise, shape (d,)."""
        return np.ptp(np.asarray(self.adata.layers["noise_free"], dtype=float), axis=0)
