"""Runs of a dynamical system: integration, interventions, noise, and the AnnData of what was observed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse
from scipy.integrate import solve_ivp

from perturbflow._checks import check_between, listing

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

CONTROL = "control"
RELATIVE_TOLERANCE = 1e-8
ABSOLUTE_TOLERANCE = 1e-10
MAX_NOISE = 10.0  # times the spread of the signal


def solve_system(
    rate: Callable[[Floats], Floats],
    start: Floats,
    times: Floats,
    *,
    held: Bools | None = None,
    rtol: float | None = None,
) -> Floats:
    """Solve K runs of an autonomous system at once, by an explicit Runge-Kutta method of order 8.

    Parameters
    ----------
    rate
        Rates of change, from (K, d) to (K, d).
    start
        Levels at time 0, shape (K, d).
    times
        Times of all runs, shape (n,), or of each, shape (K, n).
    held
        Variables that stay where they start, shape (K, d).
    rtol
        Relative tolerance; by default 1e-8.

    Returns
    -------
    Levels, shape (K, n, d).

    Raises
    ------
    RuntimeError
        If the levels grow without bound.

    Examples
    --------
    >>> solve_system(lambda x: -x, np.array([[1.0]]), np.array([0.0, np.log(2)])).round(6).tolist()
    [[[1.0], [0.5]]]
    """
    moving = np.ones(start.shape) if held is None else np.where(held, 0.0, 1.0)

    solved = solve_ivp(
        lambda _, state: (rate(state.reshape(start.shape)) * moving).ravel(),
        (0.0, float(times.max())),
        start.ravel(),
        method="DOP853",
        rtol=rtol or RELATIVE_TOLERANCE,
        atol=ABSOLUTE_TOLERANCE,
        dense_output=True,
    )
    if not solved.success or not np.isfinite(solved.y[:, -1]).all():
        msg = f"Expected bounded levels up to time {times.max():g}, but the solver stopped: {solved.message}"
        raise RuntimeError(msg)
    if times.ndim == 1:
        return solved.sol(times).reshape(*start.shape, -1).transpose(0, 2, 1)
    return np.stack([solved.sol(row).reshape(*start.shape, -1)[run].T for run, row in enumerate(times)])


def signed_graph(effects: NDArray[Any] | sparse.spmatrix) -> sparse.csr_matrix:
    """Return the signs of effects (d, d), row on column, as CSR matrix of float32 without zeros, columns sorted."""
    return sparse.csr_matrix(effects, dtype=np.float32).sign()


def time_courses(
    values: Floats,
    times: Floats,
    names: Sequence[str],
    *,
    graph: NDArray[Any] | sparse.spmatrix,
    perturbation: Sequence[str] | None = None,
    held: Bools | None = None,
    is_regulator: Bools | None = None,
    noise: float = 0.0,
    rng: np.random.Generator | None = None,
    simulation: Mapping[str, Any] = MappingProxyType({}),
) -> AnnData:
    """Assemble the AnnData of runs of a system of one's own, with noise, and with the truth beside them.

    Parameters
    ----------
    values
        Levels of K runs without noise (K, n, d), as of :func:`solve_system`; those without intervention come first.
    times
        Times of all runs (n,), or of each (K, n).
    names
        Names of the d variables.
    graph
        Effects (d, d), row on column, of which the signs are kept.
    perturbation
        "control", or the intervention, of every run; by default all are controls.
    held
        Variables that the intervention holds (K, d); they have no noise.
    is_regulator
        Which variables may act on others (d,); by default all.
    noise
        Standard deviation of normal noise, as a fraction of that of all values without intervention.
    rng
        Source of the noise.
    simulation
        Parameters to store.

    Returns
    -------
    AnnData with values with noise in ``X`` and without it in ``layers["noise_free"]``; ``time``, ``trajectory``,
    ``perturbation`` and, where something is held, ``held_at`` in ``obs``; ``varp["true_graph"]``, and its edges as the table
    ``uns["true_edges"]``; and ``uns["simulation"]``.

    Raises
    ------
    TypeError, ValueError
        If the noise is no number from 0 to 10.

    Examples
    --------
    >>> adata = time_courses(np.ones((2, 3, 1)), np.arange(3.0), ["x"], graph=-np.ones((1, 1)))
    >>> adata.obs["trajectory"].tolist(), adata.uns["true_edges"]["sign"].tolist()
    (['0', '0', '0', '1', '1', '1'], [-1])
    """
    check_between(noise, 0.0, MAX_NOISE, name="noise")
    n_runs, n_times, d = values.shape
    kinds = [CONTROL] * n_runs if perturbation is None else list(perturbation)
    held = np.zeros((n_runs, d), dtype=bool) if held is None else held
    noise_sd = noise * float(values[[kind == CONTROL for kind in kinds]].std())
    draws = (rng or np.random.default_rng(0)).normal(size=values.shape)
    observed = values + np.where(held[:, None, :], 0.0, noise_sd * draws)  # that level is known
    run = [str(number) for number in range(n_runs)]
    obs = pd.DataFrame(
        {
            "time": np.broadcast_to(times, (n_runs, n_times)).ravel(),
            "trajectory": pd.Categorical(np.repeat(run, n_times), categories=run),
            "perturbation": pd.Categorical(
                np.repeat(kinds, n_times), categories=list(dict.fromkeys([CONTROL, *kinds]))
            ),
        },
        index=[f"{name}_{time}" for name in run for time in range(n_times)],
    )
    if held.any():
        level = np.where(held, values[:, 0], -np.inf).max(axis=1)
        obs["held_at"] = np.repeat(np.where(held.any(axis=1), level, np.nan), n_times)
    signs = signed_graph(graph)
    edges, labels = signs.tocoo(), np.asarray(names, dtype=object)
    return AnnData(
        observed.reshape(-1, d).astype(np.float32),
        obs=obs,
        var=pd.DataFrame(
            {"is_regulator": np.ones(d, dtype=bool) if is_regulator is None else is_regulator}, index=list(names)
        ),
        layers={"noise_free": values.reshape(-1, d).astype(np.float32)},
        varp={"true_graph": signs},
        uns={
            "true_edges": pd.DataFrame(
                {"source": labels[edges.row], "target": labels[edges.col], "sign": edges.data.astype(int)}
            ),
            "simulation": {**simulation, "noise": noise, "noise_sd": noise_sd},
        },
    )


def check_times(times: Floats, *, name: str = "times") -> None:
    """Raise ValueError unless times (n,) or (K, n) are at least 0 and ascend."""
    if times.ndim not in (1, 2) or times.shape[-1] < 2 or not np.isfinite(times).all():
        msg = f"Expected `{name}` to be at least two finite numbers, found shape {times.shape}: {times.tolist()!r}."
        raise ValueError(msg)
    if times.min() < 0 or (np.diff(times) <= 0).any():
        msg = f"Expected `{name}` to increase and to be at least 0, found {listing(times.ravel().tolist())}."
        raise ValueError(msg)
