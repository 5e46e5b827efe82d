"""Training of a flow with torch alone, its floating-point operations, and what the device can do at most."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch.utils.flop_counter import FlopCounterMode

from perturbflow.flow import (
    AdditiveHurdlePrior,
    CellData,
    ConditionalFlow,
    DeviceRows,
    FlowConfig,
    TrainingConditions,
    TrainingSettings,
    draw_path,
    flow_matching_errors,
    seed_of_step,
)

EMA_DECAY = 0.995
EMA_WARMUP = 10


def simulated_cells(n_cells: int, n_genes: int, *, n_perturbations: int = 20, seed: int = 0) -> CellData:
    """Sparse log-normalised cells, of which every perturbation halves a twentieth of the genes."""
    rng = np.random.default_rng(seed)
    rates = rng.gamma(0.5, 0.2, n_genes)
    changed = rng.random((n_perturbations, n_genes)) < 0.05
    codes = rng.integers(n_perturbations + 1, size=n_cells)
    blocks = []
    for own in np.array_split(codes, -(-n_cells // 1000)):
        factors = np.where((own > 0)[:, None], 1 - 0.5 * changed[own - 1], 1)
        blocks.append(sparse.csr_matrix(rng.poisson(rates * factors).astype(np.float32)).log1p())
    rows = np.flatnonzero(codes)
    doses = sparse.csr_matrix(
        (np.ones(len(rows), dtype=np.float32), (rows, codes[rows] - 1)), shape=(n_cells, n_perturbations)
    )
    return CellData(sparse.vstack(blocks, format="csr"), doses, np.zeros((n_cells, 0), dtype=np.int64))


def new_flow(cells: CellData, options: dict[str, Any], device: torch.device, *, mixed: bool) -> ConditionalFlow:
    """An untrained flow with the prior of the cells."""
    config = FlowConfig(
        n_genes=cells.n_genes,
        n_components=cells.perturbations.shape[1],
        n_categories=tuple(int(codes.max()) + 1 for codes in cells.covariates.T),
        **options,
    )
    flow = ConditionalFlow(config, AdditiveHurdlePrior.fit(cells)).to(device)
    flow.mixed_precision = mixed
    return flow


class Training:
    """Steps of training with the loss, draws, schedule, clipping and averaged weights of a fit.

    Parameters
    ----------
    flow
        The flow, on its device.
    cells
        Training cells.
    settings
        How to train.
    """

    def __init__(self, flow: ConditionalFlow, cells: CellData, settings: TrainingSettings) -> None:
        self.flow, self.settings, self.number = flow, settings, 0
        grouping = cells.grouping()
        self.rows, self.group = DeviceRows(cells.x, flow.device), torch.as_tensor(grouping.codes)
        self.conditions = TrainingConditions(flow, grouping)
        self.generator = torch.Generator()
        self.noise = torch.Generator(flow.device)
        self.optimiser = torch.optim.AdamW(
            flow.network.parameters(),
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            betas=(0.9, 0.99),
        )
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimiser, self._share_of_learning_rate)
        self.average = {name: weight.detach().clone() for name, weight in flow.network.state_dict().items()}

    def _share_of_learning_rate(self, step: int) -> float:
        cosine = 0.5 * (1 + math.cos(math.pi * min(step / self.settings.max_steps, 1)))
        return min(1.0, (step + 1) / self.settings.warmup_steps) * (0.01 + 0.99 * cosine)

    def step(self) -> torch.Tensor:
        """Train on one batch; its loss, still on the device."""
        settings, number = self.settings, self.number
        self.generator.manual_seed(seed_of_step(settings.seed, 2 * number))
        rows = torch.randint(len(self.group), (settings.batch_size,), generator=self.generator)
        self.generator.manual_seed(seed_of_step(settings.seed, 2 * number + 1))
        mask, dropped = self.flow.encoder.draw_mask(
            settings.batch_size,
            whole=settings.condition_dropout,
            part=settings.part_dropout,
            generator=self.generator,
        )
        self.noise.manual_seed(seed_of_step(settings.seed, 2 * number + 1))
        x1 = self.rows.take(rows)
        t, x0 = draw_path(settings.batch_size, x1.shape[1], self.noise)
        distribution, condition = self.conditions.look_up(self.group[rows], mask, dropped)
        loss = flow_matching_errors(self.flow, x1, distribution, condition, t=t, x0=x0).mean()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.flow.network.parameters(), settings.gradient_clip)
        self.optimiser.step()
        self.schedule.step()
        self.number += 1
        decay = min(EMA_DECAY, (1 + self.number) / (EMA_WARMUP + self.number))
        with torch.no_grad():
            for name, weight in self.flow.network.state_dict().items():
                self.average[name].lerp_(weight, 1 - decay)
        return loss.detach()


@dataclass(frozen=True)
class Speed:
    """Steps of training on one device."""

    cells_per_second: float
    flops_per_cell: float
    memory: float


def measure_training(training: Training, seconds: float) -> Speed:
    """Train for some seconds, after some steps that warm up; what is counted are matrix products and convolutions."""
    device, size = training.flow.device, training.settings.batch_size
    for _ in range(2):
        training.step()
    with FlopCounterMode(display=False) as counter:
        training.step()
    wait_for(device)
    n_steps, start = 0, time.perf_counter()
    while n_steps < 3 or time.perf_counter() - start < seconds:
        training.step()
        n_steps += 1
        if n_steps % 10 == 0:  # else the queue of a GPU would be measured
            wait_for(device)
    wait_for(device)
    elapsed = time.perf_counter() - start
    memory = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else math.nan
    return Speed(n_steps * size / elapsed, counter.get_total_flops() / size, memory)


def peak(device: torch.device, dtype: torch.dtype, size: int) -> float:
    """Operations a second of a large matrix product."""
    a = torch.randn(size, size, device=device, dtype=dtype)
    product = a @ a
    wait_for(device)
    n, start = 0, time.perf_counter()
    while n < 3 or time.perf_counter() - start < 1:
        for _ in range(5 if device.type == "cuda" else 1):
            torch.matmul(a, a, out=product)
            n += 1
        wait_for(device)
    return 2 * size**3 * n / (time.perf_counter() - start)


def wait_for(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def energy_distance(x: torch.Tensor, y: torch.Tensor) -> float:
    """Unbiased energy distance between cells (n, G) and (m, G)."""
    within = [torch.cdist(z, z).sum() / (len(z) * (len(z) - 1)) for z in (x, y)]
    return float(2 * torch.cdist(x, y).mean() - within[0] - within[1])


class HeldOut:
    """Held-out conditions with cells of theirs, and the controls that predictions start from.

    Parameters
    ----------
    cells
        All cells.
    held_out
        Which cells are not trained on (n,).
    n_cells
        At most so many of a condition.
    """

    def __init__(self, cells: CellData, held_out: np.ndarray, *, n_cells: int) -> None:
        rng = np.random.default_rng(0)
        controls = cells.subset(np.flatnonzero((cells.perturbations.getnnz(axis=1) == 0) & ~held_out))
        self.parts = []
        for group in cells.subset(np.flatnonzero(held_out)).groups():
            same = np.flatnonzero((controls.covariates == group.covariates).all(axis=1))
            if len(same) and len(group.rows) >= 5:
                own = rng.permutation(np.flatnonzero(held_out)[group.rows])[:n_cells]
                start = controls.x[rng.choice(same, n_cells)].toarray()
                self.parts.append((group.perturbation, group.covariates, start, cells.x[own].toarray()))

    def energy(self, flow: ConditionalFlow, **settings: Any) -> float:
        """Mean energy distance of predictions."""
        found = []
        for number, (perturbation, covariates, start, real) in enumerate(self.parts):
            rng = np.random.default_rng(number)
            cells = flow.sample(start, perturbation, covariates, rng=rng, stratified=False, **settings)
            found.append(energy_distance(torch.as_tensor(cells), torch.as_tensor(real)))
        return float(np.mean(found))


def converge(
    training: Training, held_out: HeldOut, *, every: int, patience: int, clock: Callable[[], bool], **settings: Any
) -> Iterator[dict[str, float]]:
    """Train until averaged weights no longer improve, and score them every so many steps."""
    flow, best, waited = training.flow, math.inf, 0
    start = time.perf_counter()
    while training.number < training.settings.max_steps and waited < patience and not clock():
        losses = [training.step() for _ in range(every)]
        current = {name: weight.detach().clone() for name, weight in flow.network.state_dict().items()}
        flow.network.load_state_dict(training.average)
        energy = held_out.energy(flow, **settings)
        flow.network.load_state_dict(current)
        waited = 0 if energy < best else waited + 1
        best = min(best, energy)
        yield {
            "cells seen": training.number * training.settings.batch_size,
            "seconds": round(time.perf_counter() - start, 1),
            "loss": round(float(torch.stack(losses).mean()), 4),
            "energy distance": round(energy, 4),
        }
