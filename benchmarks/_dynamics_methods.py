"""Methods of the comparison: how each is fitted, and what is measured of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from _dynamics_questions import BEYOND, INTERVENTION, WITHIN, Question, System
from _dynamics_systems import KNOCKOUT, make_system

import perturbflow as pf
from perturbflow import baselines
from perturbflow.dynamics import SPARSITIES, DynamicsTrainer, Trajectory
from perturbflow.models import DynamicsModelKwargs, DynamicsOptions, DynamicsPlanKwargs
from perturbflow.trajectories import read_dynamics_fields, trajectories_of

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray
    from torch import Tensor

    from perturbflow.dynamics import FittedDynamics

DEFAULT, BOOTSTRAPS = "default", "default + bootstraps"
RANDOM, NO_EFFECT = "random", "no effect (true system)"
PENALTY_ONLY, DENSE = ", penalty only", ", dense"
DEFAULT_SPARSITY = DynamicsOptions().sparsity
STAGES = ("strength", "matching", "elimination", "shooting", "solving")
SMALLEST_WEIGHT = 0.01  # as the package counts paths
LARGEST_ERROR = 10.0  # a solution that diverges counts as this many times the spread

# What a name means as options of the fit: every sparsity before elimination, without it, and in one network for all.
FITS: Mapping[str, Mapping[str, Any]] = {
    DEFAULT: {},
    **{name: {"sparsity": name} for name in SPARSITIES if name != DEFAULT_SPARSITY},
    **{name + PENALTY_ONLY: {"sparsity": name, "eliminate": False} for name in SPARSITIES},
    **{
        name + DENSE: {"sparsity": name, "eliminate": False, "field": "dense"}
        for name in ("none", "l1", "cnode", "l0", "pathreg", "pathreg_edge")
    },
}
GRAPHS: Mapping[str, Callable[[Sequence[Trajectory]], NDArray[np.float64]]] = {
    "correlation": lambda runs: baselines.correlation_graph(np.concatenate([one.values for one in runs])),
    "partial correlation": lambda runs: baselines.partial_correlation_graph(
        np.concatenate([one.values for one in runs])
    ),
    "derivative ridge": baselines.derivative_ridge_graph,
}
COURSES = {
    # The start is given, and free of noise: one row is enough.
    name: partial(predict, n_rows=1) if name == "hold start" else predict
    for name, predict in baselines.TRAJECTORY_BASELINES.items()
}
METHODS = (DEFAULT, BOOTSTRAPS, *(name for name in FITS if name != DEFAULT), RANDOM, *GRAPHS, *COURSES, NO_EFFECT)


def is_possible(system: str, method: str) -> bool:
    """Whether a method applies to a system."""
    second_order, linear = system.startswith("second_order"), system in {"second_order", "second_order_noisy"}
    if method == BOOTSTRAPS:
        return system.startswith("hill_20") and not system.startswith(KNOCKOUT)
    if method in GRAPHS:
        return not second_order
    options = FITS.get(method, {})
    structures = SPARSITIES[options.get("sparsity", DEFAULT_SPARSITY)].structures
    return not linear or ("linear" in structures and options.get("field") != "dense")


@dataclass(frozen=True)
class Fit:
    """A fitted model, its share of zero weights as the penalty had left them and at last, and CPU seconds by stage."""

    model: FittedDynamics
    zero_by_penalty: float
    zero: float
    seconds: dict[str, float]


def fit_model(adata: AnnData, options: DynamicsOptions) -> Fit:
    """Fit registered data as ``pf.tl.fit_dynamics`` does, with a look at what each stage leaves."""
    fields = read_dynamics_fields(adata)
    genes = list(map(str, adata.var_names))
    runs = [one.binned(options.n_bins) for one in trajectories_of(adata, fields)]
    config = options.config(runs, [genes.index(name) for name in fields.regulators])
    started, seconds, zero = time.process_time(), {}, float("nan")

    def after_stage() -> None:
        nonlocal started, zero
        if trainer.n_done <= len(seconds):  # a part of a stage
            return
        seconds[STAGES[len(seconds)]] = time.process_time() - started
        if len(seconds) == STAGES.index("matching") + 1:
            zero = zero_share(trainer.sparsity.expected(trainer.field.weights()), possible)
        started = time.process_time()

    trainer = DynamicsTrainer(runs, config, options.settings())
    possible = trainer.field.allowed.numpy() > 0
    model = trainer.fit(after_part=after_stage)
    return Fit(model, zero, zero_share(model.field.weights(), possible), seconds)


def zero_share(weights: Sequence[Tensor], possible: NDArray[np.bool_]) -> float:
    """Share of the weights that are 0, next to the largest of their layer, without those of impossible inputs."""
    n_zero = n_all = 0
    for layer in weights:
        size = layer.detach().abs().numpy()
        counts = np.ones(size.shape, dtype=bool)
        if size.ndim == 3 and size.shape[-1] == possible.shape[-1]:  # a network per target: inputs are possible or not
            counts[:] = possible[:, None]
        n_zero += int(((size <= SMALLEST_WEIGHT * size.max()) & counts).sum())
        n_all += int(counts.sum())
    return n_zero / n_all


def graph_scores(
    system: System, ranking: NDArray[np.float64], weight: NDArray[np.float64], support: NDArray[np.bool_] | None
) -> dict[str, float]:
    """Agreement with the true graph of a ranking of edges, of signed weights, and of the support if there is one.

    All of shape (n_inputs, d).
    """
    ranked = pf.metrics.network_scores(ranking, system.truth, candidates=system.candidates)
    row = {
        "auroc": ranked["auroc"],
        "auprc": ranked["average_precision"],
        "early_precision": ranked["early_precision"],
        "chance": ranked["edge_density"],
    }
    signed = system.candidates & system.has_sign
    row["sign_accuracy"] = pf.metrics.sign_accuracy(weight, system.truth, candidates=signed)
    if support is not None:
        is_edge, found = system.truth[system.candidates] != 0, support[system.candidates]
        row["support_error"] = float((found != is_edge).sum() / is_edge.sum())
        row["recall"] = float((found & is_edge).sum() / is_edge.sum())
        row["precision"] = float((found & is_edge).sum() / max(found.sum(), 1))
        row["n_edges"] = int(found.sum())
        row["feature_sparsity"] = float(1 - found.mean())
    return row


def start_of(model: FittedDynamics, question: Question) -> NDArray[np.float64]:
    """Return scaled states at the start of a question."""
    if question.start is None:
        numbers = [int(name.split("|")[0]) for name in model.names]
        return model.start[np.argsort(numbers)]
    state = model.state(question.start)
    if question.rates is not None:
        d = model.config.n_genes
        state[:, d:] = question.rates * model.units.time / model.units.scale
    return state


def solved(model: FittedDynamics, question: Question, *, perturbed: bool = True) -> NDArray[np.float64]:
    """Return the model's answer, with or without the intervention of the question."""
    change = {"clamp": question.clamp, "mechanisms": question.mechanisms} if perturbed else {}
    return model.solve(start_of(model, question), question.time, **change)


def answer_scores(
    system: System,
    answer: Callable[[Question], NDArray[np.float64]],
    unperturbed: Callable[[Question], NDArray[np.float64]] | None = None,
) -> dict[str, float]:
    """Errors of the answers: root mean squares relative to the spread, and largest ones relative to the range.

    ``error_<kind>_<part>`` pools all questions of a kind within or beyond the time that was seen;
    ``largest_<name>`` is of a single intervention. ``response_correlation`` is that of predicted and true differences
    from the unperturbed course, over runs, times and free variables, averaged over interventions;
    ``response_correlation_near`` that of genes within two steps of the one that is held.
    """
    errors: dict[str, list[NDArray[np.float64]]] = {}
    row: dict[str, float] = {}
    responses: dict[str, list[float]] = {}
    for question in system.questions:
        with np.errstate(all="ignore"):
            predicted = answer(question)
        limit = LARGEST_ERROR * system.spread
        miss = np.nan_to_num(np.abs(predicted - question.truth), nan=limit, posinf=limit).clip(max=limit)
        miss = miss[..., question.is_free]
        kind = question.kind.replace(" ", "_")
        for part, rows in ((WITHIN, ~question.is_beyond), (BEYOND, question.is_beyond)):
            if rows.any():
                errors.setdefault(f"error_{kind}_{part}", []).append(np.square(miss[:, rows]).ravel())
        if question.kind != INTERVENTION:
            continue
        if system.name.startswith("second_order"):
            row[f"largest_{question.name}"] = float((miss / system.ranges[question.is_free]).max())
        if unperturbed is not None:
            true, found = question.truth - question.unperturbed, predicted - unperturbed(question)
            for suffix, some in (("", question.is_free), ("_near", question.near)):
                if some is not None and some.any():
                    value = correlation(found[..., some], true[..., some])
                    responses.setdefault(f"response_correlation{suffix}", []).append(value)
    for name, squares in errors.items():
        row[name] = float(np.sqrt(np.concatenate(squares).mean()) / system.spread)
    return row | {name: float(np.mean(values)) for name, values in responses.items()}


def correlation(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Pearson correlation of all entries; 0 where one of them does not vary or is not finite."""
    if not np.isfinite(first).all() or np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0
    return float(np.corrcoef(first.ravel(), second.ravel())[0, 1])


def measure(
    name: str, method: str, seed: int, *, effort: float, quick: bool, n_bootstraps: int
) -> dict[str, float | str | int]:
    """Return the row of one method on one system."""
    system = make_system(name, seed, quick=quick)
    if method == BOOTSTRAPS:
        return bootstrap_row(system, seed, effort=effort, n_bootstraps=n_bootstraps)
    if method in FITS:
        return fit_row(system, method, seed, effort=effort)
    started = time.process_time()
    if method == RANDOM:
        scores = np.random.default_rng(seed).uniform(-1, 1, system.truth.shape)
        return graph_scores(system, np.abs(scores), scores, None)
    if method in GRAPHS:
        scores = GRAPHS[method](system.trajectories())
        row = graph_scores(system, np.abs(scores), scores, None)
    elif method == NO_EFFECT:
        row = answer_scores(system, lambda q: q.truth if q.unperturbed is None else q.unperturbed)
        row = {key: value for key, value in row.items() if INTERVENTION in key or key.startswith("largest")}
    else:
        runs = system.trajectories()
        row = answer_scores(system, lambda question: course(method, runs, question))
    return row | {"seconds": time.process_time() - started}


def course(name: str, runs: Sequence[Trajectory], question: Question) -> NDArray[np.float64]:
    """Return the answer of a baseline that knows the start and the training runs."""
    n_runs, n, d = question.truth.shape
    answers = []
    # All runs have the same times: only what depends on the start is predicted run by run.
    for truth in question.truth if name == "hold start" else question.truth[:1]:
        known = np.tile(truth[0], (n, 1))  # of the answer, a baseline may see the start
        test = Trajectory("asked", question.time, known, np.ones(n), np.zeros(d, dtype=bool))
        answers.append(COURSES[name](runs, test))
    return np.broadcast_to(np.stack(answers), (n_runs, n, d))


def fit_row(system: System, method: str, seed: int, *, effort: float) -> dict[str, Any]:
    """Fit and judge."""
    options = DynamicsOptions(**(dict(system.options) | dict(FITS[method])), effort=effort, seed=seed)
    fit = fit_model(system.adata, options)
    model = fit.model
    support = model.support().T
    jacobian = model.jacobian().signed.numpy().T.astype(float)
    weight = np.where(support, jacobian, 0.0)
    ranking = model.evidence.T.astype(float) if model.evidence.size else np.abs(weight)
    row = graph_scores(system, ranking, weight, support)
    row |= answer_scores(system, partial(solved, model), partial(solved, model, perturbed=False))
    return row | {
        "weight_sparsity": fit.zero,
        "weight_sparsity_of_penalty": fit.zero_by_penalty,
        "strength": model.strength,
        "threshold": float("nan") if model.threshold is None else model.threshold,
        "seconds": sum(fit.seconds.values()),
        **{f"seconds_{stage}": value for stage, value in fit.seconds.items()},
    }


def bootstrap_row(system: System, seed: int, *, effort: float, n_bootstraps: int) -> dict[str, Any]:
    """Fit the default, and average its graph over bootstraps."""
    adata = system.adata.copy()
    started = time.process_time()
    given = dict(system.options)
    kwargs = {
        name: {key: given.pop(key) for key in known.__annotations__ if key in given}
        for name, known in (("model_kwargs", DynamicsModelKwargs), ("plan_kwargs", DynamicsPlanKwargs))
    }
    pf.tl.fit_dynamics(adata, **given, **kwargs, effort=effort, seed=seed, progress_bar=False)
    pf.tl.infer_graph(adata, n_bootstraps=n_bootstraps, seed=seed)
    seconds = time.process_time() - started
    weight = adata.varp["dynamics_graph"].toarray().astype(float)
    edges = adata.uns["dynamics_graph"]["edges"]
    sure = edges[edges["confidence"] >= 0.5]
    support = np.zeros(weight.shape, dtype=bool)
    support[adata.var_names.get_indexer(sure["source"]), adata.var_names.get_indexer(sure["target"])] = True
    evidence = adata.varp["dynamics_graph_evidence"].toarray().astype(float)
    return graph_scores(system, evidence, weight, support) | {"seconds": seconds}
