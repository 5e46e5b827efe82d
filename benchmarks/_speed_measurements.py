"""Measurements of the flow, each meant for a process of its own."""

from __future__ import annotations

import re
import time
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from _common import Problem, clock, one_thread, with_settings
from _memory import resident
from _training import ENTRY_TIME, new_flow, recipe
from lightning.pytorch import Callback
from scipy import sparse
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils.flop_counter import FlopCounterMode

from perturbflow.flow import AdditiveHurdlePrior, CellData, ConditionalFlow
from perturbflow.train import train_flow

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SPARSITY = 10
SOURCES = {
    f"default (control cells, entry time {ENTRY_TIME})": {"source": "control", "entry_time": ENTRY_TIME},
    "noise": {"source": "noise"},
}
N_STEPS = 2
N_CONDITIONS = 8
LONG_STEP = 5.0
# The U-Net keeps about a thousand numbers a gene and cell for its gradient: fewer cells a step over many genes.
UNET_GENES_A_BATCH = 2**16
MATRIX_WORK = re.compile(r"aten::(addmm|mm|bmm|baddbmm|.*conv.*|.*attention.*)$")


def device() -> str:
    """Where to measure."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def sparse_cells(n_cells: int, n_genes: int, n_conditions: int) -> CellData:
    """Log-normalised cells of one context with a tenth of the values above 0, a tenth of the cells controls."""
    rng = np.random.default_rng(0)
    # One gene of every ten: no temporary arrays that would count as memory of the flow.
    stored = n_genes // SPARSITY
    columns = SPARSITY * np.arange(stored, dtype=np.int32) + rng.integers(
        SPARSITY, size=(n_cells, stored), dtype=np.int32
    )
    values = 1 + rng.random(n_cells * stored, dtype=np.float32)
    x = sparse.csr_matrix((values, columns.ravel(), stored * np.arange(n_cells + 1)), shape=(n_cells, n_genes))
    condition = np.arange(n_cells) % n_conditions
    perturbed = rng.random(n_cells) > 0.1
    perturbations = sparse.csr_matrix(
        (perturbed.astype(np.float32), (np.arange(n_cells), condition)), shape=(n_cells, n_conditions)
    )
    return CellData(x, perturbations, np.zeros((n_cells, 1), dtype=np.int64))


def fit_and_sample(network: str, n_cells: int, n_genes: int, n_conditions: int, with_profile: bool) -> dict[str, Any]:
    """Speed of training and sampling, peak memory, and if asked what the time of a step goes to."""
    one_thread()
    where, before = device(), resident()
    seconds = clock(where)
    cells = sparse_cells(n_cells, n_genes, n_conditions)
    options, settings = recipe(network, "zero_inflated", seed=0)
    batch = settings.batch_size
    if network == "U-Net" and where == "cpu":
        batch = min(batch, max(4, UNET_GENES_A_BATCH // n_genes))

    started = seconds()
    prior = AdditiveHurdlePrior.fit(cells)
    prior_seconds = seconds() - started
    flow = new_flow(cells, prior, options, seed=0).to(where)
    settings = replace(settings, batch_size=batch)
    step_seconds = timed_steps(flow, cells, settings, seconds)

    controls = cells.x[:batch].toarray()
    perturbation = np.eye(n_conditions, dtype=np.float32)[0]
    context, rng = np.zeros(1, dtype=np.int64), np.random.default_rng(0)
    flow.configure(source="control", entry_time=ENTRY_TIME)
    sample_seconds = fastest(lambda: flow.sample(controls, perturbation, context, rng=rng), seconds)
    memory = torch.cuda.max_memory_allocated() if where == "cuda" else resident() - before
    row = {
        "network": network,
        "cells": n_cells,
        "genes": n_genes,
        "conditions": n_conditions,
        "batch": batch,
        "device": torch.cuda.get_device_name() if where == "cuda" else "one CPU thread",
        "training cells/s": batch / step_seconds,
        "sampled cells/s": batch / sample_seconds,
        "prior s": prior_seconds,
        "memory MB": memory / 1e6,
    }
    return row | (step_profile(flow, cells, settings, step_seconds) if with_profile else {})


class Stamps(Callback):
    """The seconds at which steps end; it stops training after a few, or after one that is slow."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        self.seconds, self.stamps = seconds, list[float]()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Note the time."""
        self.stamps.append(self.seconds())
        slow = len(self.stamps) > 1 and self.stamps[-1] - self.stamps[-2] > LONG_STEP
        trainer.should_stop = slow or len(self.stamps) > N_STEPS


class SecondStep(Callback):
    """Enters a context for the second step: what torch does once is done by then."""

    def __init__(self, *contexts: Any) -> None:
        self.contexts, self.stack = contexts, ExitStack()

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Enter."""
        if batch.number == 1:
            for context in self.contexts:
                self.stack.enter_context(context)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Leave."""
        self.stack.close()


def on_device(flow: ConditionalFlow, *callbacks: Callback) -> dict[str, Any]:
    """Options of the trainer for where the flow is."""
    return {"accelerator": "gpu" if flow.device.type == "cuda" else "cpu", "callbacks": list(callbacks)}


def timed_steps(flow: ConditionalFlow, cells: CellData, settings: Any, seconds: Callable[[], float]) -> float:
    """Seconds of the fastest step after the first."""
    stamps = Stamps(seconds)
    train_flow(flow, cells, replace(settings, max_steps=10**6), trainer_options=on_device(flow, stamps))
    return float(np.diff(stamps.stamps).min())


def fastest(function: Callable[[], Any], seconds: Callable[[], float]) -> float:
    """Seconds of the fastest of a few calls; one call if it is slow."""
    taken = []
    for _ in range(1 + N_STEPS):
        started = seconds()
        function()
        taken.append(seconds() - started)
        if taken[-1] > LONG_STEP:
            break
    return min(taken)


def step_profile(flow: ConditionalFlow, cells: CellData, settings: Any, step_seconds: float) -> dict[str, float]:
    """Share of a training step outside matrix products, and its FLOP/s in them."""
    on_gpu = flow.device.type == "cuda"
    settings = replace(settings, max_steps=2)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    profiled = profile(activities=activities)
    train_flow(flow, cells, settings, trainer_options=on_device(flow, SecondStep(profiled, record_function("step"))))
    events = profiled.key_averages()
    # On the CPU the time of "step" itself is what passes between the operators, in Python.
    time_of = [(event.key, event.self_device_time_total if on_gpu else event.self_cpu_time_total) for event in events]
    matrix = sum(value for key, value in time_of if MATRIX_WORK.match(key))
    counter = FlopCounterMode(display=False)
    train_flow(flow, cells, settings, trainer_options=on_device(flow, SecondStep(counter)))
    total = 1e6 * step_seconds if on_gpu else sum(value for _, value in time_of)
    return {"outside matrix work": 1 - matrix / total, "FLOP/s": counter.get_total_flops() / step_seconds}


def peak_of_matrix_products(size: int = 2048) -> float:
    """FLOP/s of a large matrix product in the precision of training."""
    one_thread()
    where = device()
    dtype = torch.bfloat16 if where == "cuda" and torch.cuda.is_bf16_supported() else torch.float32
    a = torch.randn((size * (4 if where == "cuda" else 1),) * 2, device=where, dtype=dtype)
    return 2 * len(a) ** 3 / fastest(lambda: a @ a, clock(where))


def evaluations_against_energy(name: str, n_steps: int, solver_steps: Sequence[int]) -> list[dict[str, Any]]:
    """Energy distance on held-out conditions, and evaluations of the network, by the steps of the default's solver."""
    one_thread()
    problem = Problem.make(name, 0, max_conditions=N_CONDITIONS)
    options, settings = recipe("MLP", "zero_inflated", seed=0)
    flow = new_flow(problem.training, AdditiveHurdlePrior.fit(problem.training), options, seed=0).to(device())
    train_flow(flow, problem.training, replace(settings, max_steps=n_steps))
    n_held_out = sum(condition.block[0] == "test" for condition in problem.conditions)
    rows, n_evaluations = [], 0

    def count(*_: Any) -> None:
        nonlocal n_evaluations
        n_evaluations += 1

    flow.network.register_forward_hook(count)
    for source, changes in SOURCES.items():
        for steps in solver_steps:
            n_evaluations, started = 0, time.monotonic()
            sampler = with_settings(flow, **changes, n_steps=steps)
            energies = problem.energies(sampler, n_cells=128, max_conditions=N_CONDITIONS, splits=["test"])
            rows.append(
                {
                    "source": source,
                    "steps": steps,
                    "evaluations": n_evaluations / (2 * n_held_out),
                }  # each is predicted twice
                | {"energy": energies["test"], "seconds": time.monotonic() - started}
            )
    return rows
