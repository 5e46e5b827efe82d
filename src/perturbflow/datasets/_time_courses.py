"""Runs of a dynamical system: integration, interventions, noise, and the AnnData of what was observed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse
from scipy.integrate import solve_ivp

from perturbflow._checks import check_between, check_type, check_whole_number, listing, nearest

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

CONTROL = "control"
RELATIVE_TOLERANCE = 1e-8
ABSOLUTE_TOLERANCE = 1e-10
MAX_NOISE = 10.0  # times the spread of the signal


@dataclass(frozen=True)
class Runs:
    """K runs of a system of d variables at n times each (K, n); those without intervention come first.

    Values (K, n, d) are without noise, ``held`` (K, d) are the variables that an intervention holds.
    """

    times: Floats
    values: Floats
    perturbation: Sequence[str]
    held: Bools

    def control(self) -> Bools:
        """Runs without intervention, shape (K,)."""
        return np.array([label == CONTROL for label in self.perturbation])

    def noise_sd(self, noise: float) -> float:
        """Standard deviation of the noise: a fraction of that of all values of the runs without intervention."""
        return noise * float(self.values[self.control()].std())

    def observed(self, noise: float, rng: np.random.Generator) -> Floats:
        """Values with normal noise, except where an intervention holds them: that level is known."""
        deviations = self.noise_sd(noise) * rng.normal(size=self.values.shape)
        return self.values + np.where(self.held[:, None, :], 0.0, deviations)

    def held_at(self) -> Floats:
        """Level at which the intervention holds, NaN where it holds nothing, shape (K,)."""
        level = np.where(self.held, self.values[:, 0], np.nan)
        return np.array([row[on].max() if on.any() else np.nan for row, on in zip(level, self.held, strict=True)])


def integrate(
    rate: Callable[[Floats], Floats],
    start: Floats,
    times: Floats,
    *,
    held: Bools | None = None,
    rtol: float | None = None,
) -> Floats:
    """Solve K runs of an autonomous system at once, by an explicit Runge-Kutta method of order 8: levels (K, n, d).

    ``rate`` maps levels (K, d) to rates of change. Times are those of all runs (n,), or of each (K, n). Variables that are
    ``held`` (K, d) stay where they start.
    """
    moving = np.ones(start.shape) if held is None else np.where(held, 0.0, 1.0)

    def flat_rate(_: float, state: Floats) -> Floats:
        return (rate(state.reshape(start.shape)) * moving).ravel()

    solved = solve_ivp(
        flat_rate,
        (0.0, float(times.max())),
        start.ravel(),
        method="DOP853",
        rtol=rtol or RELATIVE_TOLERANCE,
        atol=ABSOLUTE_TOLERANCE,
        dense_output=True,
    )
    if not solved.success or not np.isfinite(solved.y[:, -1]).all():
        msg = f"Expected bounded levels up to time {times.max():g}, found a solver that stopped: {solved.message}"
        raise RuntimeError(msg)
    if times.ndim == 1:
        return solved.sol(times).reshape(*start.shape, -1).transpose(0, 2, 1)
    return np.stack([solved.sol(row).reshape(*start.shape, -1)[run].T for run, row in enumerate(times)])


def signed_graph(effects: NDArray[Any] | sparse.spmatrix) -> sparse.csr_matrix:
    """Return the signs of effects (d, d), row on column, as CSR matrix of float32 without zeros, columns sorted."""
    return sparse.csr_matrix(effects, dtype=np.float32).sign()


def edge_table(graph: sparse.csr_matrix, names: NDArray[Any]) -> pd.DataFrame:
    """Return the edges of a signed graph as a table with the columns source, target, sign, sorted by position."""
    edges = graph.tocoo()
    return pd.DataFrame({"source": names[edges.row], "target": names[edges.col], "sign": edges.data.astype(int)})


def as_anndata(
    runs: Runs,
    names: Sequence[str],
    *,
    noise: float,
    rng: np.random.Generator,
    is_regulator: Bools,
    graph: sparse.csr_matrix,
    simulation: Mapping[str, Any],
) -> AnnData:
    """Assemble what was observed, rows sorted by run and time, with the truth and the parameters beside it."""
    n_runs, n_times, d = runs.values.shape
    run = [str(number) for number in range(n_runs)]
    labels = list(dict.fromkeys([CONTROL, *runs.perturbation]))
    obs = pd.DataFrame(
        {
            "time": runs.times.ravel(),
            "trajectory": pd.Categorical(np.repeat(run, n_times), categories=run),
            "perturbation": pd.Categorical(np.repeat(list(runs.perturbation), n_times), categories=labels),
        },
        index=[f"{name}_{time}" for name in run for time in range(n_times)],
    )
    if runs.held.any():
        obs["held_at"] = np.repeat(runs.held_at(), n_times)
    return AnnData(
        runs.observed(noise, rng).reshape(-1, d).astype(np.float32),
        obs=obs,
        var=pd.DataFrame({"is_regulator": is_regulator}, index=list(names)),
        layers={"noise_free": runs.values.reshape(-1, d).astype(np.float32)},
        varp={"true_graph": graph},
        uns={
            "true_edges": edge_table(graph, np.asarray(names, dtype=object)),
            "simulation": {**simulation, "noise": noise, "noise_sd": runs.noise_sd(noise)},
        },
    )


def check_labels(labels: object, *, name: str) -> None:
    """Raise TypeError unless ``labels`` is a sequence of strings."""
    if isinstance(labels, str) or not isinstance(labels, Sequence) or not all(isinstance(x, str) for x in labels):
        msg = f"Expected `{name}` to be a sequence of names such as ['A', 'A+B'], found {labels!r}."
        raise TypeError(msg)


def held_genes(labels: Sequence[str], names: Sequence[str], *, parameter: str) -> Bools:
    """Return which genes labels such as ``"A+B"`` name, shape (labels, genes); ValueError if one is unknown."""
    position = {name: number for number, name in enumerate(names)}
    held = np.zeros((len(labels), len(names)), dtype=bool)
    for row, label in enumerate(labels):
        for gene in label.split("+"):
            if gene not in position:
                msg = f"Expected `{parameter}` to name genes, found {gene!r}. Similar: {nearest(gene, names, n=3)}."
                raise ValueError(msg)
            held[row, position[gene]] = True
    return held


def check_positive(value: object, *, name: str) -> None:
    """Raise unless ``value`` is a finite number above 0."""
    check_type(value, () if isinstance(value, bool) else Real, name=name, expected="a number")
    if not 0 < value < math.inf:  # type: ignore[operator]
        msg = f"Expected `{name}` to be a finite number above 0, found {value!r}."
        raise ValueError(msg)


def check_times(times: Floats, *, name: str = "times") -> None:
    """Raise ValueError unless times (n,) or (K, n) are at least 0 and ascend."""
    if times.ndim not in (1, 2) or times.shape[-1] < 2 or not np.isfinite(times).all():
        msg = f"Expected `{name}` to be at least two finite numbers, found shape {times.shape}: {times.tolist()!r}."
        raise ValueError(msg)
    if times.min() < 0 or (np.diff(times) <= 0).any():
        msg = f"Expected `{name}` to ascend from 0 or later, found {listing(times.ravel().tolist())}."
        raise ValueError(msg)


def check_grid(n_trajectories: int, n_times: int, noise: float) -> None:
    """Raise unless runs, times and noise are in their ranges."""
    check_whole_number(n_trajectories, name="n_trajectories", least=1)
    check_whole_number(n_times, name="n_times", least=2)
    check_between(noise, 0.0, MAX_NOISE, name="noise")
