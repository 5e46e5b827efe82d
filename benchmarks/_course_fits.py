"""Fits of dynamics to courses of few and noisy cells, for the benchmarks on bone marrow.

A course that is to be predicted in another donor is only in part that of the training donor. The part is chosen on the
training donors (`shares`, or `blend` for several smoothers at once), the smooth courses are shrunk by it towards their means
(`shrunk_course`, `blended_course`), and dynamics are fitted to them (`fit_supports`): the shrunk course m + a (x - m) of a solution x of
dx/dt = f(x) solves dy/dt = a f(m + (y - m) / a), which has the same graph.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import nnls

from perturbflow.baselines import TRAJECTORY_BASELINES
from perturbflow.dynamics import (
    Backward,
    DynamicsSettings,
    DynamicsTrainer,
    FieldConfig,
    FittedDynamics,
    Trajectory,
    mean_jacobian,
    smooth,
)

if TYPE_CHECKING:
    from _hematopoiesis import View

Course = Callable[[NDArray[np.float64]], NDArray[np.float64]]

N_BLOCKS = 5
GRID = np.linspace(0.0, 1.0, 201)  # solutions are linear between these times
THRESHOLD = 0.1  # of evidence, the package's own where nothing is held out


def trajectory(name: str, view: View, *, weight: float = 1.0) -> Trajectory:
    """A view as a trajectory, every row of so many cells."""
    n, d = view.values.shape
    return Trajectory(name, view.time, view.values, np.full(n, weight), np.zeros(d, dtype=bool))


def pooled(name: str, trajectories: Sequence[Trajectory]) -> Trajectory:
    """Rows of several trajectories as one, rows of equal time averaged."""
    time = np.concatenate([one.time for one in trajectories])
    weight = np.concatenate([one.weight for one in trajectories])
    values = np.concatenate([one.values for one in trajectories])
    unique, position = np.unique(time, return_inverse=True)
    total = np.bincount(position, weight)
    mean = np.zeros((len(unique), values.shape[1]))
    np.add.at(mean, position, weight[:, None] * values)
    return Trajectory(name, unique, mean / total[:, None], total, trajectories[0].clamped)


def level(one: Trajectory) -> NDArray[np.float64]:
    """Mean of every gene over the cells of a trajectory, shape (d,)."""
    return np.average(one.values, axis=0, weights=one.weight)


def kernel_course(one: Trajectory) -> Course:
    """Gaussian-kernel smoother whose bandwidth is chosen by leaving out rows, a baseline of the package."""
    return lambda at: TRAJECTORY_BASELINES["training curve"](
        [one], replace(one, time=at, values=np.zeros((len(at), one.n_genes)), weight=np.ones(len(at)))
    )


def spline_course(one: Trajectory, *, n_bins: int) -> Course:
    """Smoothing spline through means of so many bins, what the package itself fits dynamics to."""
    return smooth(one.binned(n_bins))


SMOOTHERS: Mapping[str, Callable[[Trajectory], Course]] = {
    **{f"spline, {n} bins": partial(spline_course, n_bins=n) for n in (10, 15, 20, 30)},
    "kernel": kernel_course,
}


def across_blocks(trajectories: Sequence[Trajectory]) -> Iterator[tuple[Trajectory, Trajectory]]:
    """Yield, for every trajectory and each of five blocks of consecutive rows, the other rows and these."""
    for one in trajectories:
        block = N_BLOCKS * np.arange(len(one.time)) // len(one.time)
        for k in range(N_BLOCKS):
            yield one.rows(block != k), one.rows(block == k)


def across_donors(donors: Sequence[Mapping[str, Trajectory]]) -> Iterator[tuple[Trajectory, Trajectory]]:
    """Yield, for every donor and lineage, the pooled rows of the other donors and those of this one."""
    for k, donor in enumerate(donors):
        for lineage, one in donor.items():
            others = [other[lineage] for i, other in enumerate(donors) if i != k and lineage in other]
            if others:
                yield pooled(lineage, others), one


def shares(held_out: Iterable[tuple[Trajectory, Trajectory]]) -> pd.DataFrame:
    """Of every smoother, the share of its course that predicts left-out rows best, and the squared error.

    The prediction is ``mean + share (course - mean)`` with the mean of the rows that are not left out. The share is one
    number for all genes and trajectories, a regression coefficient between 0 and 1. Every trajectory counts alike.
    """
    pairs, rows = list(held_out), {}
    size = {one.name: sum(len(other.time) for _, other in pairs if other.name == one.name) for _, one in pairs}
    for name, smoother in SMOOTHERS.items():
        products = squares = centred = 0.0
        for rest, left_out in pairs:
            mean, weight = level(rest), 1 / (size[left_out.name] * rest.n_genes)
            course, observed = smoother(rest)(left_out.time) - mean, left_out.values - mean
            products += weight * float((course * observed).sum())
            squares += weight * float((course**2).sum())
            centred += weight * float((observed**2).sum())
        share = float(np.clip(products / max(squares, 1e-12), 0.0, 1.0))
        rows[name] = {"share": share, "error": centred - 2 * share * products + share**2 * squares, "mean": centred}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("smoother")


def shrunk_course(one: Trajectory, smoother: str, share: float, *, n_bins: int) -> Trajectory:
    """The smooth course of a trajectory, shrunk towards its mean, at the mean times of bins of rows."""
    bins, mean = one.binned(n_bins), level(one)
    return replace(bins, values=mean + share * (SMOOTHERS[smoother](one)(bins.time) - mean))


def blend(held_out: Iterable[tuple[Trajectory, Trajectory]]) -> dict[str, float]:
    """Weights of the smoothers, none negative, whose weighted courses together predict left-out rows best.

    Stacking (Wolpert 1992; Breiman 1996): what does not help to predict gets no weight, and where nothing does the prediction
    is the mean of the rows that are not left out.
    """
    products, targets = np.zeros((len(SMOOTHERS), len(SMOOTHERS))), np.zeros(len(SMOOTHERS))
    for rest, left_out in held_out:
        mean = level(rest)
        courses = np.stack([(smoother(rest)(left_out.time) - mean).ravel() for smoother in SMOOTHERS.values()])
        products += courses @ courses.T
        targets += courses @ (left_out.values - mean).ravel()
    weights, _ = nnls(products, targets)
    return {name: float(weight) for name, weight in zip(SMOOTHERS, weights, strict=True) if weight > 0}


def blended_course(one: Trajectory, weights: Mapping[str, float], *, n_bins: int) -> Trajectory:
    """The mean of a trajectory and weighted smooth courses about it, at the mean times of bins of rows."""
    bins, mean = one.binned(n_bins), level(one)
    courses = sum((weight * (SMOOTHERS[name](one)(bins.time) - mean) for name, weight in weights.items()), np.zeros(1))
    return replace(bins, values=mean + courses)


@dataclass(frozen=True)
class Fit:
    """Dynamics of all lineages with what they were fitted with."""

    dynamics: FittedDynamics
    sparsity: str
    strength: float
    threshold: float | None
    seconds: float

    @property
    def support(self) -> NDArray[np.bool_]:
        """Which regulators act on which genes, shape (d, number of regulators)."""
        return self.dynamics.support()

    def courses(self) -> dict[str, NDArray[np.float64]]:
        """Solutions on `GRID` from the starts that were fitted, by lineage, each of shape (201, d)."""
        solved = self.dynamics.solve(self.dynamics.start, GRID)
        return dict(zip(self.dynamics.names, solved, strict=True))

    def predict(self, times: Mapping[str, NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
        """Levels at times of some lineages; outside [0, 1] those at its ends."""
        courses = self.courses()
        return {name: interpolated(courses[name], at) for name, at in times.items()}


def interpolated(course: NDArray[np.float64], at: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values of a course on `GRID` at other times, linear in between, shape (n, d)."""
    position = np.clip(at, GRID[0], GRID[-1]) * (len(GRID) - 1)
    before = np.minimum(position.astype(int), len(GRID) - 2)
    part = (position - before)[:, None]
    return (1 - part) * course[before] + part * course[before + 1]


def fit_supports(
    courses: Sequence[Trajectory],
    *,
    regulators: NDArray[np.bool_],
    sparsity: str = "group_lasso",
    structure: str = "per_target",
    strengths: Sequence[float] = (0.02,),
    thresholds: Sequence[float] | None = (THRESHOLD,),
    effort: float = 1.0,
    seed: int = 0,
) -> Iterator[Fit]:
    """Yield fits of several sizes: at every strength what the penalty leaves, or, of it, what elimination leaves.

    The stages are those of `perturbflow.dynamics.DynamicsTrainer`: integral matching, support, short solutions, whole
    solutions.

    Parameters
    ----------
    courses
        Trajectories, to be fitted together.
    regulators
        Genes that may regulate others, shape (d,).
    sparsity
        Name of a sparsity.
    structure
        "per_target" or "dense".
    strengths
        Strengths of sparsity, each fitted anew.
    thresholds
        Evidence that backward elimination asks of an input; None for no elimination.
    effort
        Multiplies all numbers of steps.
    seed
        Seed of the fit.
    """
    for strength in strengths:
        began = time.process_time()
        settings = DynamicsSettings(
            sparsity=sparsity,
            strength=strength,
            eliminate=False,
            matching_steps=max(10, round(600 * effort)),
            shooting_steps=max(2, round(60 * effort)),
            solving_steps=max(1, round(100 * effort)),
            seed=seed,
        )
        chosen = tuple(np.flatnonzero(regulators).tolist())
        hidden = (100, 100) if structure == "dense" else (10,)
        config = FieldConfig(
            courses[0].n_genes, chosen, structure=structure, hidden=hidden, skip=sparsity == "lassonet"
        )
        trainer = DynamicsTrainer(courses, config, settings)
        trainer.fit_support(None)
        elimination = None
        if thresholds is not None:
            states = trainer.whole.chunks.state[:, :-1][trainer.whole.chunks.step > 0]
            backward = Backward(
                trainer.whole.chunks,
                None,
                n_steps=max(5, round(100 * effort)),
                learning_rate=settings.learning_rate,
                generator=trainer.generator,
            )
            importance = mean_jacobian(trainer.field, states).magnitude * trainer.field.allowed
            elimination = backward.begin(copy.deepcopy(trainer.field), importance, n_candidates=settings.n_candidates)
            while backward.remove(elimination):
                pass
            trainer.evidence = elimination.evidence
        shared = time.process_time() - began
        start = trainer.start
        for threshold in thresholds or (None,):
            began = time.process_time()
            if elimination is not None and threshold is not None:
                trainer.field.float().load_state_dict(elimination.field(threshold).state_dict())
                trainer.start = start
            trainer.shoot()
            trainer.solve()
            yield Fit(trainer.result(), sparsity, strength, threshold, shared + time.process_time() - began)
