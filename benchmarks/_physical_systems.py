"""Physical systems with a known graph: coupled oscillators and a model of the atmosphere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse

from perturbflow.datasets import solve_system, time_courses

Floats = NDArray[np.float64]

CONTROL = "control"
# Of the accelerations of x1, x2, x3 on positions and velocities; row is affected by column.
POSITION_EFFECTS = np.diag([-1.5, -2.7, -2.0])
VELOCITY_EFFECTS = np.array([[-0.5, 0.0, 0.0], [0.0, -1.0, 0.0], [-1.0, -1.0, -0.1]])
PUBLISHED_START = np.array([0.4, 0.7, 1.8, 0.3, 0.5, 1.0])
HELD_LEVEL = 0.4
STIFFNESS = -12.0
INTERVENTION_LABELS = {"hold": "x1", "stiffen": "stiff x1"}
START_SD = 0.01
BURN_IN_TOLERANCE = 1e-5


def second_order_system(
    *,
    n_trajectories: int = 10,
    n_times: int = 50,
    duration: float = 10.0,
    noise: float = 0.0,
    interventions: Sequence[Literal["hold", "stiffen"]] = (),
    seed: int = 0,
) -> AnnData:
    r"""Simulate three damped oscillators, of which two drive the third, and only positions are observed.

    .. math::

        \begin{aligned}
        \ddot x_1 &= -1.5 x_1 - 0.5 \dot x_1, \\
        \ddot x_2 &= -2.7 x_2 - \dot x_2, \\
        \ddot x_3 &= -2 x_3 - \dot x_1 - \dot x_2 - 0.1 \dot x_3
        \end{aligned}

    The example of Aliee et al. (2021) for interventions in learned dynamics. The velocities, and with them half of the
    state, must be inferred: a model of first order cannot represent it. One run of a linear system leaves directions
    of the state unexplored, hence several starts.

    Parameters
    ----------
    n_trajectories
        Number of starts. The first is the published one, :math:`x = (0.4, 0.7, 1.8)`,
        :math:`\dot x = (0.3, 0.5, 1)`; the others are normal with mean 0 and these numbers as standard deviations.
    n_times
        Number of times of a run, evenly spaced from 0 to ``duration``.
    duration
        Last time.
    noise
        Standard deviation of normal noise, as a fraction of that of all values without intervention.
    interventions
        Further runs, one for every start: ``"hold"`` keeps :math:`x_1` at 0.4 (perturbation ``"x1"``); ``"stiffen"``
        replaces the coefficient -1.5 by -12, which changes the mechanism of :math:`x_1` instead of its level
        (perturbation ``"stiff x1"``, which names no variable: set these runs aside before
        :func:`perturbflow.pp.setup_dynamics`, and compare forecasts of an edited model with them).
    seed
        Seed of starts and noise.

    Returns
    -------
    AnnData with

    `adata.X`, `adata.layers["noise_free"]`
        Positions with and without noise, float32. A held position has no noise.
    `adata.layers["velocity"]`
        Velocities without noise, float32.
    `adata.obs`
        ``time``, ``trajectory`` ("0", "1", ...), ``perturbation``, and under an intervention that holds ``held_at``.
    `adata.varp["true_graph"]`, `adata.varp["true_graph_rate"]` : CSR, float32
        Signs of the effects of positions and of velocities on accelerations, 3 and 5 edges, of which 3 each are self
        edges; row acts on column.
    `adata.uns["true_edges"]`
        Both as a table: ``source``, ``target``, ``sign``, ``acts_through`` ("level" or "rate").
    `adata.uns["simulation"]`
        The parameters.

    References
    ----------
    Aliee, Theis and Kilbertus (2021), Beyond predictions in neural ODEs: identification and interventions,
    arXiv:2106.12430.
    """
    start_rng, noise_rng = np.random.default_rng(seed).spawn(2)
    start = start_rng.normal(size=(n_trajectories, 6)) * PUBLISHED_START
    start[0] = PUBLISHED_START
    kinds = [CONTROL, *interventions]
    held = np.zeros((len(kinds), n_trajectories, 6), dtype=bool)
    state = np.stack([start] * len(kinds))
    stiffness = np.full((len(kinds), n_trajectories), POSITION_EFFECTS[0, 0])
    for kind, name in enumerate(kinds):
        if name == "hold":
            held[kind, :, [0, 3]] = True
            state[kind, :, 0], state[kind, :, 3] = HELD_LEVEL, 0.0
        elif name == "stiffen":
            stiffness[kind] = STIFFNESS
    times = np.linspace(0.0, duration, n_times)
    still = held.reshape(-1, 6)
    values = solve_system(lambda x: _oscillator_rates(x, stiffness.ravel()), state.reshape(-1, 6), times, held=still)
    simulation = {
        "n_trajectories": n_trajectories,
        "n_times": n_times,
        "duration": duration,
        "interventions": list(interventions),
        "seed": seed,
        "position_effects": POSITION_EFFECTS,
        "velocity_effects": VELOCITY_EFFECTS,
    }
    names = ["x1", "x2", "x3"]
    adata = time_courses(
        values[..., :3],
        times,
        names,
        graph=POSITION_EFFECTS.T,
        perturbation=[INTERVENTION_LABELS.get(name, CONTROL) for name in kinds for _ in range(n_trajectories)],
        held=still[:, :3],
        noise=noise,
        rng=noise_rng,
        simulation=simulation,
    )
    adata.layers["velocity"] = values[..., 3:].reshape(-1, 3).astype(np.float32)
    rates = sparse.csr_matrix(np.sign(VELOCITY_EFFECTS.T), dtype=np.float32)
    adata.varp["true_graph_rate"] = rates
    row, column = rates.nonzero()
    symbols = np.array(names, dtype=object)
    through_rates = {"source": symbols[row], "target": symbols[column], "sign": rates.data.astype(int)}
    adata.uns["true_edges"] = pd.concat(
        [adata.uns["true_edges"].assign(acts_through="level"), pd.DataFrame(through_rates).assign(acts_through="rate")],
        ignore_index=True,
    )
    return adata


def _oscillator_rates(state: Floats, stiffness: Floats) -> Floats:
    """Rates of change of positions and velocities (K, 6), with a coefficient of x1 for every run (K,)."""
    position, velocity = state[:, :3], state[:, 3:]
    acceleration = position @ POSITION_EFFECTS.T + velocity @ VELOCITY_EFFECTS.T
    acceleration[:, 0] += (stiffness - POSITION_EFFECTS[0, 0]) * position[:, 0]
    return np.concatenate([velocity, acceleration], axis=1)


def lorenz96(
    *,
    n_variables: int = 10,
    forcing: float = 8.0,
    n_trajectories: int = 2,
    n_times: int = 500,
    step: float = 0.05,
    burn_in: float = 50.0,
    noise: float = 0.0,
    seed: int = 0,
) -> AnnData:
    r"""Simulate the model of Lorenz (1996): variables on a ring that are advected, damped and forced.

    .. math:: \dot x_i = (x_{i+1} - x_{i-2})\, x_{i-1} - x_i + F

    with indices modulo p. Chaotic at F = 8, not at F = 5.

    Parameters
    ----------
    n_variables
        Number of variables p, at least 4.
    forcing
        The constant F.
    n_trajectories
        Number of runs, from independent starts with standard deviation 0.01.
    n_times
        Number of times of a run.
    step
        Time between two of them.
    burn_in
        Time before the first of them, so that the run is on the attractor.
    noise
        Standard deviation of normal noise, as a fraction of that of all values.
    seed
        Seed of starts and noise.

    Returns
    -------
    AnnData with

    `adata.X`, `adata.layers["noise_free"]`
        Values with and without noise, float32.
    `adata.obs`
        ``time`` (0 after the burn-in), ``trajectory`` ("0", "1", ...), ``perturbation`` ("control").
    `adata.varp["true_graph"]` : CSR, float32
        3 p edges; row acts on column. The self edges are the damping and left out. Effects depend on the state: the
        sign is that of the mean of :math:`\partial \dot x_i / \partial x_j` over the data.
    `adata.uns["true_edges"]`
        The same as a table: ``source``, ``target``, ``sign``, ``mean_effect`` (this mean) and ``signed``: False for
        the edges from i - 1, whose mean :math:`\langle x_{i+1} - x_{i-2} \rangle` vanishes in the long run, so that
        their sign means nothing.
    `adata.uns["simulation"]`
        The parameters.

    References
    ----------
    Lorenz (1996), Predictability: a problem partly solved, *Proc. ECMWF Seminar on Predictability* 1, 1-18. Bellot,
    Branson and van der Schaar (2022), Neural graphical modelling in continuous-time, *ICLR* (as a benchmark).
    """
    start_rng, noise_rng = np.random.default_rng(seed).spawn(2)
    start = START_SD * start_rng.normal(size=(n_trajectories, n_variables))
    # Every state of the attractor is as good as another, so the way to it need not be exact.
    state = solve_system(lambda x: _lorenz_rates(x, forcing), start, np.array([0.0, burn_in]), rtol=BURN_IN_TOLERANCE)[
        :, -1
    ]
    times = np.linspace(0.0, step * (n_times - 1), n_times)
    values = solve_system(lambda x: _lorenz_rates(x, forcing), state, times)
    target = np.arange(n_variables)
    x = values.reshape(-1, n_variables)
    before = np.roll(x, 1, axis=1)
    effects = {  # of the variable at this distance
        1: before,
        -2: -before,
        -1: np.roll(x, -1, axis=1) - np.roll(x, 2, axis=1),
    }
    mean_effect = np.zeros((n_variables, n_variables))
    signed = np.ones((n_variables, n_variables), dtype=bool)
    for distance, effect in effects.items():
        mean_effect[(target + distance) % n_variables, target] = effect.mean(axis=0)
        signed[(target + distance) % n_variables, target] = distance != -1
    edges = mean_effect.nonzero()
    adata = time_courses(
        values,
        times,
        [f"x{number + 1}" for number in range(n_variables)],
        graph=mean_effect,
        noise=noise,
        rng=noise_rng,
        simulation={
            "n_variables": n_variables,
            "forcing": forcing,
            "n_trajectories": n_trajectories,
            "n_times": n_times,
            "step": step,
            "burn_in": burn_in,
            "seed": seed,
        },
    )
    # Both list the edges row by row.
    adata.uns["true_edges"] = adata.uns["true_edges"].assign(mean_effect=mean_effect[edges], signed=signed[edges])
    return adata


def _lorenz_rates(x: Floats, forcing: float) -> Floats:
    """Rates of change of Lorenz-96, from (K, p) to (K, p)."""
    return (np.roll(x, -1, axis=1) - np.roll(x, 2, axis=1)) * np.roll(x, 1, axis=1) - x + forcing
