"""Graphs of regulation: of a fitted field and how often its edges come back, of cells at rest, or of levels."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from joblib import delayed
from numpy.typing import NDArray

from perturbflow._progress import shows_progress, side_by_side, stage
from perturbflow._warnings import warn
from perturbflow.baselines import correlation_graph, partial_correlation_graph
from perturbflow.dynamics import (
    DynamicsSettings,
    DynamicsTrainer,
    FieldConfig,
    Movement,
    Trajectory,
    edge_stability,
    evidence_ranks,
    path_strengths,
    smooth,
    snapshot_evidence,
)
from perturbflow.predict._dynamics_store import StoredDynamics, StoredStanding
from perturbflow.predict._torch_state import usual_torch
from perturbflow.train._fit_dynamics import prior_factors
from perturbflow.trajectories._fields import DYNAMICS_PRIOR_KEY, DynamicsFields, trajectories_of
from perturbflow.trajectories._snapshot_fields import course_cells, snapshot_of

STATIC = {"correlation": correlation_graph, "partial_correlation": partial_correlation_graph}
FITTED = ("jacobian", "gates")
KEPT = 0.5  # confidence from which an edge of cells at rest is kept
CELLS_A_POINT = 2  # from which on how cells covary is lost in the means that courses are fitted to
POINTS_AN_INPUT = 2  # of the courses for each regulator, at which their fit counts as much as how cells covary


FEWEST_TRAJECTORIES = 4
# A log ratio of mean squares: without an edge that counts as seen again, the error is a third larger. The threshold of a fit lets
# in what helps to predict held-out runs, which is more than what is there: of edges that nine in ten fits kept, a third was false.
SURE_EVIDENCE = 0.3
SHARE_OF_STEPS = 0.6  # of the fit itself, but no fewer than this share of the usual number, or all where it has fewer


@dataclass(frozen=True)
class Graph:
    """A signed graph of d genes, matrices (d, d) whose rows regulate columns."""

    weight: NDArray[np.float64]  # signed, 0 where an edge is not kept
    confidence: NDArray[np.float64]  # between 0 and 1
    evidence: NDArray[np.float64]  # what ranks pairs, also those left out, with covariation where there is any
    possible: NDArray[np.bool_]  # pairs that were asked about
    rate_weight: NDArray[np.float64] | None = None  # through the rates of the sources, of a second-order field
    signed: NDArray[np.float64] | None = None  # weights of all pairs, kept or not, where they have one

    def edges(self, genes: list[str]) -> pd.DataFrame:
        """Return all pairs as a table, those of most evidence first, then of largest confidence times absolute weight."""
        names = np.array(genes, dtype=object)
        tables = []
        for through, kept in {"level": self.weight, "rate": self.rate_weight}.items():
            if kept is None:
                continue
            row, column = np.nonzero(self.possible | (kept != 0))
            weight = (kept if self.signed is None else self.signed)[row, column]
            table = pd.DataFrame(
                {
                    "source": names[row],
                    "target": names[column],
                    "weight": weight,
                    "sign": np.sign(weight).astype(int),
                    "confidence": self.confidence[row, column],
                    "evidence": self.evidence[row, column],
                    "kept": kept[row, column] != 0,
                }
            )
            tables.append(table if self.rate_weight is None else table.assign(acts_through=through))
        edges = pd.concat(tables)
        strength = edges["confidence"] * edges["weight"].abs()
        return edges.iloc[np.lexsort([-strength, -edges["evidence"]])].reset_index(drop=True)


@shows_progress("infer graph")
@usual_torch()
def fitted_graph(
    adata: AnnData | None,
    stored: StoredDynamics,
    *,
    method: str,
    n_bootstraps: int,
    n_jobs: int,
    seed: int,
    progress_bar: bool = False,
) -> Graph:
    """Read the graph of a fitted field; without cells there is neither covariation nor bootstraps."""
    stage("edges of the fit")
    model = stored.model
    jacobian = model.jacobian()
    if method == "gates":
        paths = path_strengths(model.field, [w.detach() for w in model.field.weights()])
        weight = (torch.sign(jacobian.mean) * model.field.of_all_genes(paths)).numpy()
    else:
        weight = jacobian.signed.numpy()
    weight = np.where(model.support(), weight, 0.0)
    evidence = model.evidence if model.evidence.size else np.abs(weight)
    confidence = (weight != 0).astype(float)
    if n_bootstraps:
        if adata is None:
            msg = (
                f"Expected cells for {n_bootstraps} bootstraps, found a model that was loaded without any. Load it with "
                "`adata`, or set `n_bootstraps=0`."
            )
            raise ValueError(msg)
        found = stability(adata, stored, n_fits=n_bootstraps, n_jobs=n_jobs, seed=seed)
        # The fit itself is one of the fits.
        share = 1 / (n_bootstraps + 1)
        confidence = share * sure(weight != 0, model.evidence) + (1 - share) * found.frequency
        evidence = share * evidence + (1 - share) * found.evidence
        if method == "jacobian":
            weight = share * weight + (1 - share) * found.weight
    n_regulators, config = len(model.config.regulators), model.config

    def square(values: NDArray, part: int) -> NDArray:
        full = np.zeros((config.n_genes, config.n_genes))
        full[list(config.regulators)] = values[:, part * n_regulators : (part + 1) * n_regulators].T
        return full

    parts = range(config.order)
    possible = _pairs(config.n_genes, config.regulators, with_itself=config.self_regulation)
    found_evidence = np.max([square(evidence, part) for part in parts], axis=0)
    # Points of the courses that the field was fitted to: times, or bins where these are fewer.
    courses = [] if adata is None else trajectories_of(adata[:, stored.genes], stored.fields)
    n_points = sum(min(len(t.time), stored.settings["n_bins"]) for t in courses)
    if adata is not None and adata.n_obs >= CELLS_A_POINT * n_points:
        stage("evidence of covariation")
        cells = course_cells(adata[:, stored.genes], stored.fields)
        # Genes that do not change along time may regulate others: the cells say so, and the fit has no say.
        possible = _pairs(config.n_genes, cells.regulators, with_itself=config.self_regulation)
        trusted = n_points / (n_points + POINTS_AN_INPUT * len(cells.regulators))
        found_evidence = trusted * evidence_ranks(found_evidence, possible)
        found_evidence += (1 - trusted) * snapshot_evidence(cells).evidence
    if not weight.any():
        warn(
            "The fitted dynamics keep no edge: the graph is empty. The ranking of all pairs is in `edges`; it becomes more reliable "
            "with more times, trajectories or perturbations."
        )
    return Graph(
        weight=square(weight, 0),
        confidence=np.max([square(confidence, part) for part in parts], axis=0),
        evidence=found_evidence,
        possible=possible,
        rate_weight=square(weight, 1) if config.order == 2 else None,
    )


def static_graph(adata: AnnData, fields: DynamicsFields, *, method: str) -> Graph:
    """Return the graph of a baseline that knows no time: all pairs of regulators and targets."""
    values = np.concatenate([t.values for t in trajectories_of(adata, fields)])
    weight = STATIC[method](values)
    regulators = np.flatnonzero(np.isin(adata.var_names.astype(str), fields.regulators))
    possible = _pairs(len(weight), regulators, with_itself=False)
    weight = np.where(possible, weight, 0.0)
    return Graph(weight=weight, confidence=np.abs(weight), evidence=np.abs(weight), possible=possible)


@shows_progress("infer graph")
def standing_graph(
    adata: AnnData, stored: StoredStanding, *, n_halves: int, n_jobs: int, seed: int, progress_bar: bool = False
) -> Graph:
    """Read the graph of cells at rest: what comes back in halves of them, or else the d pairs of most evidence."""
    d, few = len(stored.genes), list(stored.model.regulators)
    evidence, sign = np.zeros((2, d, d))
    evidence[few], sign[few] = stored.evidence, stored.sign
    possible = _pairs(d, few, with_itself=False)
    if n_halves:
        confidence = standing_stability(adata, stored, n_halves=n_halves, n_jobs=n_jobs, seed=seed)
        kept = (confidence >= KEPT) & (sign != 0)
    else:
        limit = np.sort(evidence[possible])[-min(d, possible.sum())]
        kept = possible & (evidence >= limit) & (sign != 0)
        confidence = kept.astype(float)
    if not kept.any():
        warn(
            f"No edge is found in at least {KEPT:.0%} of the halves of the cells: the graph is empty. The ranking of all pairs is in "
            "`edges`; it becomes more reliable with more cells or perturbations."
        )
    weight = evidence * sign
    return Graph(np.where(kept, weight, 0.0), confidence, evidence, possible, signed=weight)


def standing_stability(
    adata: AnnData, stored: StoredStanding, *, n_halves: int, n_jobs: int, seed: int
) -> NDArray[np.float64]:
    """Share of halves of the cells in which edges come back (d, d); see :func:`perturbflow.dynamics.edge_stability`."""
    cells = snapshot_of(adata[:, stored.genes], stored.fields)
    rngs = np.random.default_rng(seed).spawn(max((n_halves + 1) // 2, 1))
    # Two halves a job, as each sees the levels in one of two ways.
    sizes = [min(2, n_halves - 2 * k) for k in range(len(rngs))]
    jobs = (delayed(edge_stability)(cells, n_halves=size, rng=rng) for size, rng in zip(sizes, rngs, strict=True))
    parts = side_by_side(jobs, "halves of the cells", unit="pair of halves", total=len(sizes), n_jobs=n_jobs)
    return np.average(parts, axis=0, weights=sizes)


def _pairs(n_genes: int, regulators: Sequence[int] | NDArray[np.intp], *, with_itself: bool) -> NDArray[np.bool_]:
    """Pairs of a regulator and a gene, another one unless genes may regulate themselves (d, d)."""
    possible = np.zeros((n_genes, n_genes), dtype=bool)
    possible[list(regulators)] = True
    if not with_itself:
        np.fill_diagonal(possible, val=False)
    return possible


@dataclass(frozen=True)
class Stability:
    """Agreement of fits to resampled data (d, n_inputs): how often an input is sure, its evidence and its Jacobian."""

    frequency: NDArray[np.float64]
    evidence: NDArray[np.float64]
    weight: NDArray[np.float64]


def sure(support: NDArray[np.bool_], evidence: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Return which inputs of a support are beyond doubt, by the evidence where the fit eliminated (d, n_inputs)."""
    return support & (evidence >= SURE_EVIDENCE) if evidence.size else support


@usual_torch()
def stability(adata: AnnData, stored: StoredDynamics, *, n_fits: int, n_jobs: int, seed: int) -> Stability:
    """Repeat a fit on bootstraps, at its strength and threshold (Meinshausen and Bühlmann 2010)."""
    settings, config = stored.settings, stored.model.config
    trajectories = [t.binned(settings["n_bins"]) for t in trajectories_of(adata[:, stored.genes], stored.fields)]
    factors = None
    if stored.fields.has_prior:
        prior = adata[:, stored.genes].varp[DYNAMICS_PRIOR_KEY]
        factors = prior_factors(prior, config, weight=settings["prior_weight"])
    default = DynamicsSettings()
    whole = settings["effort"]
    effort = max(SHARE_OF_STEPS * whole, min(SHARE_OF_STEPS, whole))
    steps = {name: max(1, round(effort * getattr(default, name))) for name in ("matching_steps", "elimination_steps")}
    names = (
        "sparsity",
        "eliminate",
        "n_candidates",
        "displacement",
        "window",
    )  # earlier fits had no choice of the last two
    same = {name: settings[name] for name in names if name in settings}
    repeated = DynamicsSettings(**same, strength=stored.model.strength, **steps)
    rngs = np.random.default_rng(seed).spawn(n_fits)
    jobs = (
        delayed(_one)(
            resample(trajectories, rng), config, repeated, factors, stored.model.threshold, int(rng.integers(2**31))
        )
        for rng in rngs
    )
    fits = side_by_side(jobs, "bootstraps", unit="fit", total=n_fits, n_jobs=n_jobs)
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
