"""Systems with a known graph, what is observed of each, and what a model that was fitted to it is asked.

Systems are seen without intervention, but for those where one knock-out of several is left out. The questions are about
noise-free solutions: of the training runs within and beyond the time that was seen, from new starts, and under
interventions that the fit has not seen.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
from _dynamics_questions import INTERVENTION, NEW, TRAINED, Question, System
from _physical_systems import HELD_LEVEL, STIFFNESS, lorenz96, second_order_system
from _yeast_hill import FILES, phoenix_file, yeast_hill
from scipy.integrate import solve_ivp

import perturbflow as pf
from perturbflow.datasets import HillNetwork

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

KNOCKOUT = "hill_20_knockout_"
CHAOS_HORIZON, CHAOS_STEPS = 1.0, 20


def runs_of(adata: AnnData, layer: str = "noise_free") -> NDArray[np.float64]:
    """Return what runs of equally many times hold, shape (K, n, d)."""
    n_runs = adata.obs["trajectory"].nunique()
    return np.asarray(adata.layers[layer], dtype=float).reshape(n_runs, -1, adata.n_vars)


def _registered(adata: AnnData, keep: NDArray[np.bool_] | None = None, **fields: Any) -> AnnData:
    kept = adata if keep is None else adata[keep].copy()
    pf.pp.setup_dynamics(kept, time_key="time", trajectory_key="trajectory", **fields)
    return kept


def _number(adata: AnnData) -> NDArray[np.intp]:
    return adata.obs["trajectory"].astype(str).astype(int).to_numpy()


def second_order(name: str, seed: int, *, structure: str, noise: float = 0.0, quick: bool = False) -> System:
    """Three oscillators, seen for half of the time asked; held and stiffened from where the model lets them start."""
    duration, n_times, n_train = 10.0, 50, 4 if quick else 10
    simulate = partial(
        second_order_system,
        n_trajectories=2 * n_train,
        n_times=2 * n_times - 1,
        duration=2 * duration,
        seed=seed,
    )
    adata = simulate(noise=noise, interventions=["hold", "stiffen"])
    values, rates = runs_of(adata), runs_of(adata, "velocity")
    wild, held, stiff = np.split(values, 3)
    time = adata.obs["time"].to_numpy()[: 2 * n_times - 1]
    keep = (_number(adata) < n_train) & (adata.obs["time"] <= duration * (1 + 1e-9)).to_numpy()
    asked = partial(Question, time=time, is_beyond=time > duration * (1 + 1e-9))
    effects = adata.uns["simulation"]
    damping = effects["velocity_effects"][0, 0]
    truth = np.sign(np.concatenate([effects["position_effects"].T, effects["velocity_effects"].T]))
    everything = np.ones(truth.shape, dtype=bool)
    return System(
        name,
        _registered(adata, keep),
        {"field": structure, "order": 2, "decay": False, "self_regulation": True},
        truth,
        everything,
        everything,
        (
            asked(TRAINED, "start as fitted", truth=wild[:n_train]),
            asked(
                NEW,
                "other starts",
                truth=wild[n_train:],
                start=wild[n_train:, 0],
                rates=rates[n_train : 2 * n_train, 0],
            ),
            asked(INTERVENTION, "hold", truth=held[:n_train], clamp={0: HELD_LEVEL}, unperturbed=wild[:n_train]),
            asked(
                INTERVENTION,
                "stiffen",
                truth=stiff[:n_train],
                mechanisms={0: lambda state: STIFFNESS * state[:, 0] + damping * state[:, 3]},
                unperturbed=wild[:n_train],
            ),
        ),
    )


def lorenz(name: str, seed: int, *, n_variables: int, noise: float = 0.1, quick: bool = False) -> System:
    """A chaotic system: what is asked is one unit of time ahead of true states on the attractor."""
    n_times, n_tail, n_train = (100, 100, 1) if quick else (500, 200, 2)
    adata = lorenz96(
        n_variables=n_variables, n_trajectories=n_train + 1, n_times=n_times + n_tail, noise=noise, seed=seed
    )
    values, step = runs_of(adata), adata.uns["simulation"]["step"]
    limit = step * (n_times - 0.5)
    keep = (_number(adata) < n_train) & (adata.obs["time"] < limit).to_numpy()
    time = np.linspace(0.0, CHAOS_HORIZON, CHAOS_STEPS + 1)
    forcing = adata.uns["simulation"]["forcing"]

    def solved(start: NDArray[np.float64], held: Mapping[int, float]) -> NDArray[np.float64]:
        first, fixed = start.copy(), np.zeros(start.shape, dtype=bool)
        for position, level in held.items():
            first[:, position], fixed[:, position] = level, True

        def rates(_: float, state: NDArray[np.float64]) -> NDArray[np.float64]:
            x = state.reshape(first.shape)
            change = (np.roll(x, -1, axis=1) - np.roll(x, 2, axis=1)) * np.roll(x, 1, axis=1) - x + forcing
            return np.where(fixed, 0.0, change).ravel()

        run = solve_ivp(rates, (0.0, time[-1]), first.ravel(), "DOP853", t_eval=time, rtol=1e-10, atol=1e-10)
        return run.y.reshape(*first.shape, -1).transpose(0, 2, 1)

    def asked(kind: str, what: str, start: NDArray[np.float64], *, beyond: bool, **held: Any) -> Question:
        wild = solved(start, {})
        truth = solved(start, held["clamp"]) if held else wild
        return Question(
            kind, what, time, np.full(len(time), beyond), truth, start, unperturbed=wild if held else None, **held
        )

    every = slice(None, None, CHAOS_STEPS)
    seen, later, other = (
        states.reshape(-1, n_variables)
        for states in (
            values[:n_train, :n_times][:, every],
            values[:n_train, n_times:][:, every],
            values[n_train:][:, every],
        )
    )
    truth = adata.varp["true_graph"].toarray().astype(float)
    unsigned = adata.uns["true_edges"].query("~signed")
    has_sign = np.ones(truth.shape, dtype=bool)
    has_sign[adata.var_names.get_indexer(unsigned["source"]), adata.var_names.get_indexer(unsigned["target"])] = False
    return System(
        name,
        _registered(adata, keep),
        {"decay": True, "production": "free", "n_bins": n_times},
        truth,
        ~np.eye(n_variables, dtype=bool),
        has_sign,
        (
            asked(TRAINED, "states of the training time", seen, beyond=False),
            asked(TRAINED, "states after it", later, beyond=True),
            asked(NEW, "states of another run", other, beyond=False),
            *(
                asked(INTERVENTION, f"x{position + 1} at {level:g}", other, beyond=False, clamp={position: level})
                for position, level in ((0, 0.0), (n_variables // 2, forcing))
            ),
        ),
    )


def hill(
    name: str, seed: int, *, n_genes: int, noise: float = 0.05, irregular: bool = False, quick: bool = False
) -> System:
    """A random network of genes, with knock-outs and over-expressions of genes that regulate others as questions."""
    n_genes, n_train, n_times = (8, 6, 30) if quick else (n_genes, 12, 60)
    n_genes_held, n_starts = (1, 2) if quick else (5, 6)
    adata = pf.datasets.hill_network(
        n_genes=n_genes, n_trajectories=n_train, n_times=n_times, noise=noise, irregular=irregular, seed=seed
    )
    network, rng = HillNetwork.from_anndata(adata), np.random.default_rng([seed, 1])
    values, times = runs_of(adata), adata.obs["time"].to_numpy().reshape(n_train, -1)
    duration = float((times[:, -1] - times[:, 0]).min())
    time = np.linspace(0.0, 2 * duration, 2 * n_times - 1)
    asked = partial(Question, time=time, is_beyond=time > duration * (1 + 1e-9))
    starts = rng.uniform(0.0, 1.2, (n_starts, n_genes))
    wild = network.simulate(starts, time)
    genes = rng.permutation(np.unique(network.source))[: 2 * n_genes_held]
    levels = [0.0] * n_genes_held + [network.production] * n_genes_held
    truth = adata.varp["true_graph"].toarray().astype(float)
    return System(
        name,
        _registered(adata),
        {"n_bins": n_times},
        truth,
        ~np.eye(n_genes, dtype=bool),
        np.ones(truth.shape, dtype=bool),
        (
            # The system is autonomous: a run goes on from its first observation.
            asked(TRAINED, "start as fitted", truth=network.simulate(np.maximum(values[:, 0], 0.0), time)),
            asked(NEW, "other starts", truth=wild, start=starts),
            *(
                asked(
                    INTERVENTION,
                    f"{adata.var_names[gene]} at {level:g}",
                    truth=network.simulate(starts, time, clamp={int(gene): level}),
                    start=starts,
                    clamp={int(gene): level},
                    unperturbed=wild,
                    near=within_two_steps(truth, int(gene)),
                )
                for gene, level in zip(genes, levels, strict=False)
            ),
        ),
    )


def within_two_steps(graph: NDArray[np.float64], gene: int) -> NDArray[np.bool_]:
    """Return the genes that a gene reaches by one edge or two, without itself, shape (d,)."""
    step = graph != 0
    reached = step[gene] | step[step[gene]].any(axis=0)
    reached[gene] = False
    return reached


def knockout(name: str, seed: int, *, left_out: int, quick: bool = False) -> System:
    """A random network seen in wild type and knock-outs, and asked about a knock-out that was left out."""
    n_genes, n_knockouts, n_starts = (8, 4, 2) if quick else (20, 8, 6)
    adata = pf.datasets.hill_network(n_genes=n_genes, knockouts=n_knockouts, seed=seed)
    label = adata.uns["simulation"]["knockouts"][left_out]
    gene, network = int(adata.var_names.get_loc(label)), HillNetwork.from_anndata(adata)
    n_times, step = (adata.uns["simulation"][key] for key in ("n_times", "step"))
    starts = np.random.default_rng([seed, 1]).uniform(0.0, 1.2, (n_starts, n_genes))
    time = step * np.arange(n_times)
    wild, removed = network.simulate(starts, time), network.simulate(starts, time, clamp={gene: 0.0})
    truth = adata.varp["true_graph"].toarray().astype(float)
    asked = partial(Question, time=time, is_beyond=np.zeros(n_times, dtype=bool), start=starts)
    return System(
        name,
        _registered(adata, (adata.obs["perturbation"] != label).to_numpy(), perturbation_key="perturbation"),
        {"n_bins": n_times},
        truth,
        ~np.eye(n_genes, dtype=bool),
        np.ones(truth.shape, dtype=bool),
        (
            asked(NEW, "other starts", truth=wild),
            asked(
                INTERVENTION,
                f"{label} at 0",
                truth=removed,
                clamp={gene: 0.0},
                unperturbed=wild,
                near=within_two_steps(truth, gene),
            ),
        ),
    )


def yeast(name: str, seed: int, *, noise: float = 0.05, quick: bool = False) -> System:
    """The 350-gene network; the genes of most targets are knocked out."""
    n_train, n_new, n_knockouts, n_starts = (4, 2, 1, 1) if quick else (20, 6, 5, 3)
    seen = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0)
    times = (*seen, 12.0, 14.0, 17.0, 20.0)
    simulate = partial(yeast_hill, times=times, seed=seed)
    adata = simulate(n_trajectories=n_train + n_new, noise=noise)
    truth = adata.varp["true_graph"].toarray().astype(float)
    genes = adata.var_names[np.argsort(-np.abs(truth).sum(axis=1), kind="stable")[:n_knockouts]].tolist()
    removed = runs_of(simulate(n_trajectories=1, knockouts=genes, n_knockout_trajectories=n_starts))[1:]
    starts = removed[:, 0].copy()
    for run, start in enumerate(starts):
        start[adata.var_names.get_loc(genes[run // n_starts])] = 0.5
    wild = runs_of(simulate(start=starts))
    values, time = runs_of(adata), np.array(times)
    keep = (_number(adata) < n_train) & (adata.obs["time"] <= seen[-1]).to_numpy()
    asked = partial(Question, time=time, is_beyond=time > seen[-1])
    return System(
        name,
        _registered(adata, keep),
        {"n_candidates": 2, "strengths": (0.05, 0.2)} if quick else {},
        truth,
        ~np.eye(adata.n_vars, dtype=bool),
        np.ones(truth.shape, dtype=bool),
        (
            asked(TRAINED, "start as fitted", truth=values[:n_train]),
            asked(NEW, "other starts", truth=values[n_train:], start=values[n_train:, 0]),
            *(
                asked(
                    INTERVENTION,
                    f"{gene} at 0",
                    truth=removed[k * n_starts : (k + 1) * n_starts],
                    start=starts[k * n_starts : (k + 1) * n_starts],
                    clamp={int(adata.var_names.get_loc(gene)): 0.0},
                    unperturbed=wild[k * n_starts : (k + 1) * n_starts],
                    near=within_two_steps(truth, int(adata.var_names.get_loc(gene))),
                )
                for k, gene in enumerate(genes)
            ),
        ),
    )


SYSTEMS: Mapping[str, Callable[..., System]] = {
    "second_order": partial(second_order, structure="linear"),
    "second_order_network": partial(second_order, structure="per_target"),
    "second_order_noisy": partial(second_order, structure="linear", noise=0.05),
    "lorenz_10": partial(lorenz, n_variables=10),
    "lorenz_20": partial(lorenz, n_variables=20),
    "hill_20": partial(hill, n_genes=20),
    "hill_20_noise_10": partial(hill, n_genes=20, noise=0.1),
    "hill_20_irregular": partial(hill, n_genes=20, irregular=True),
    "hill_100": partial(hill, n_genes=100),
    "hill_100_noise_10": partial(hill, n_genes=100, noise=0.1),
    "hill_100_irregular": partial(hill, n_genes=100, irregular=True),
    "yeast_350": yeast,
    **{f"{KNOCKOUT}{k + 1}": partial(knockout, left_out=k) for k in range(3)},
}


@lru_cache(maxsize=2)
def make_system(name: str, seed: int, *, quick: bool) -> System:
    """Simulate a system; the last ones are kept, as several methods in a row ask for the same."""
    return SYSTEMS[name](name, seed, quick=quick)


def missing_data(name: str) -> str | None:
    """Return why a system cannot be simulated here, or None."""
    if name != "yeast_350":
        return None
    try:
        phoenix_file(FILES[0])
    except FileNotFoundError as error:
        return f"{error} (PERTURBFLOW_DATA is {os.environ.get('PERTURBFLOW_DATA')!r})"
    return None
