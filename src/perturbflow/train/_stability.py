"""Stability of the edges of a fitted field: the same fit on resampled data."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from joblib import delayed

from perturbflow.dynamics import DynamicsSettings, DynamicsTrainer, FieldConfig, Movement, Trajectory, smooth
from perturbflow.predict._torch_state import usual_torch
from perturbflow.train._fit_dynamics import prior_factors
from perturbflow.train._progress import side_by_side
from perturbflow.trajectories._fields import DYNAMICS_PRIOR_KEY, trajectories_of

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    from perturbflow.predict._dynamics_store import StoredDynamics

FEWEST_TRAJECTORIES = 4
# A log ratio of mean squares: without an edge that counts as seen again, the error is a third larger. The threshold of a fit lets
# in what helps to predict held-out runs, which is more than what is there: of edges that nine in ten fits kept, a third was false.
SURE_EVIDENCE = 0.3
SHARE_OF_STEPS = 0.6  # of the fit itself, but no fewer than this share of the usual number, or all where it has fewer


@dataclass(frozen=True)
class Stability:
    """Agreement of fits to resampled data; all of shape (d, n_inputs).

    Attributes
    ----------
    frequency
        Share of the fits that are :func:`sure` of the input.
    evidence
        Mean evidence for it, or mean magnitude of its Jacobian without elimination.
    weight
        Mean signed Jacobian, 0 in fits without the input.
    """

    frequency: NDArray[np.float64]
    evidence: NDArray[np.float64]
    weight: NDArray[np.float64]


def sure(support: NDArray[np.bool_], evidence: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Return which inputs a fit has beyond doubt: those of its support that have the evidence, where it eliminated (d, n_inputs).

    Parameters
    ----------
    support
        Its support (d, n_inputs).
    evidence
        Evidence of elimination of the same shape, or an empty array without elimination.

    Returns
    -------
    Which inputs count.
    """
    return support & (evidence >= SURE_EVIDENCE) if evidence.size else support


@usual_torch()
def stability(
    adata: AnnData, stored: StoredDynamics, *, n_fits: int, n_jobs: int, seed: int, progress_bar: bool = False
) -> Stability:
    """Repeat a fit on bootstraps, at its own strength and threshold, and count what comes back.

    With at least four trajectories whole trajectories are drawn; with fewer, the residuals about the smooth curves are
    drawn with replacement along time. Every fit has a seed of its own. Meinshausen and Bühlmann (2010).

    Parameters
    ----------
    adata
        The cells of the fit.
    stored
        The fitted dynamics.
    n_fits
        Number of fits.
    n_jobs
        Fits side by side, as in joblib.
    seed
        Seed of everything random.
    progress_bar
        Whether to show how many fits are done.

    Returns
    -------
    The agreement.
    """
    settings, config = stored.settings, stored.model.config
    trajectories = [t.binned(int(settings["n_bins"])) for t in trajectories_of(adata[:, stored.genes], stored.fields)]
    factors = None
    if stored.fields.has_prior:
        prior = adata[:, stored.genes].varp[DYNAMICS_PRIOR_KEY]
        factors = prior_factors(prior, config, weight=float(settings["prior_weight"]))
    default = DynamicsSettings()
    whole = float(settings["effort"])
    effort = max(SHARE_OF_STEPS * whole, min(SHARE_OF_STEPS, whole))
    steps = {name: max(1, round(effort * getattr(default, name))) for name in ("matching_steps", "elimination_steps")}
    repeated = DynamicsSettings(
        sparsity=str(settings["sparsity"]),
        strength=stored.model.strength,
        eliminate=bool(settings["eliminate"]),
        n_candidates=int(settings["n_candidates"]),
        # Fits of earlier versions had no choice of these.
        displacement=float(settings.get("displacement", default.displacement)),
        window=float(settings.get("window", default.window)),
        **steps,
    )
    rngs = np.random.default_rng(seed).spawn(n_fits)
    jobs = (
        delayed(_one)(
            resample(trajectories, rng), config, repeated, factors, stored.model.threshold, int(rng.integers(2**31))
        )
        for rng in rngs
    )
    fits = side_by_side(jobs, "bootstraps", unit="fit", total=n_fits, n_jobs=n_jobs, show=progress_bar)
    frequency, evidence, weight = (np.mean(parts, axis=0) for parts in zip(*fits, strict=True))
    return Stability(frequency, evidence, weight)


def resample(trajectories: Sequence[Trajectory], rng: np.random.Generator) -> list[Trajectory]:
    """Draw trajectories with replacement, or residuals about their smooth curves if there are few."""
    n = len(trajectories)
    if n >= FEWEST_TRAJECTORIES:
        # Each intervention keeps its number of trajectories: no gene loses the runs that show what it does.
        labels = [t.clamped.tobytes() for t in trajectories]
        groups = {label: [k for k in range(n) if labels[k] == label] for label in dict.fromkeys(labels)}
        return [trajectories[k] for members in groups.values() for k in rng.choice(members, len(members))]
    drawn = []
    for trajectory in trajectories:
        curve = smooth(trajectory)(trajectory.time)
        residual = (trajectory.values - curve)[rng.integers(len(trajectory.time), size=len(trajectory.time))]
        drawn.append(dataclasses.replace(trajectory, values=curve + residual))
    return drawn


def _one(
    trajectories: Sequence[Trajectory],
    config: FieldConfig,
    settings: DynamicsSettings,
    factors: torch.Tensor | None,
    threshold: float | None,
    seed: int,
) -> tuple[Any, Any, Any]:
    """Return what is sure, evidence and signed Jacobian of one fit, each (d, n_inputs); 0 for what these data do not move."""
    movement = Movement.of(trajectories)
    sources = [k for k, gene in enumerate(config.regulators) if movement.varies[gene]]
    at_rest = {*config.at_rest, *np.flatnonzero(~movement.moves).tolist()}
    known, evidence, weight = np.zeros((3, config.n_genes, config.n_inputs))
    if sources and len(at_rest) < config.n_genes:
        inputs = [k + part * len(config.regulators) for part in range(config.order) for k in sources]
        trainer = DynamicsTrainer(
            trajectories,
            dataclasses.replace(
                config, regulators=tuple(config.regulators[k] for k in sources), at_rest=tuple(sorted(at_rest))
            ),
            dataclasses.replace(settings, seed=seed),
            factors=None if factors is None else factors[:, inputs],
        )
        trainer.fit_support(threshold)
        model = trainer.result()
        known[:, inputs], weight[:, inputs] = sure(model.support(), model.evidence), model.jacobian().signed.numpy()
        evidence[:, inputs] = model.evidence if model.evidence.size else np.abs(weight[:, inputs])
    return known, evidence, weight
