"""Fine-tuning a flow from another screen against fitting it from scratch.

A flow is fitted to screen A. Screen B has other cells, other perturbations and another gene panel, four fifths of which
A has measured too. On B a flow is fitted from scratch to all training cells with N steps, and another one, started from
the flow of A (``init_from``), to half of these cells with N/3 steps. Both have the same settings. They are judged on B
by the flow-matching loss and the energy distance of cells from noise, on fresh cells of training conditions and on
conditions held out whole. Screens: a simulated one cut in two (A without one of three cell types), and Norman 2019 cut
in two. All spreads are over three seeds of cut, panel, split and fit.

    python benchmarks/flow_finetuning.py [--seeds 3] [--sets simulated norman] [--steps 360] [--pretraining-steps 900]
        [--network mlp] [--width 128] [--parametrisations velocity zero_inflated] [--output FOLDER]
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from _common import markdown, mean_and_spread, one_thread
from anndata import AnnData
from lightning.pytorch import Callback
from scipy import sparse

import perturbflow as pf
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
)
from perturbflow.metrics import energy_distance
from perturbflow.models import FittedFlow
from perturbflow.screen import PerturbationFields, read_fields
from perturbflow.train import AveragedWeights, inherited_options, train_flow, transfer_weights

OVERLAP = 0.8
FRESH_FRACTION = HELD_OUT_FRACTION = 0.2
LOOKS = 10
LOSS_CELLS, LOSS_BATCHES = 1024, 2
ENERGY_CONDITIONS, ENERGY_CELLS, LEAST_CELLS = 6, 100, 15
PRIOR, PRIOR_HALF, SCRATCH, SCRATCH_HALF, SHORT_HALF, TUNED = (
    "untrained, all cells",
    "untrained, half of the cells",
    "from scratch, all cells, N steps",
    "from scratch, half of the cells, N steps",
    "from scratch, half of the cells, N/3 steps",
    "fine-tuned, half of the cells, N/3 steps",
)


def screens(name: str, seed: int) -> tuple[AnnData, AnnData]:
    """Cut a set in two screens: cells, perturbations and genes of A and of B, with registered fields."""
    rng = np.random.default_rng(seed)
    if name == "simulated":
        cells = pf.datasets.simulated_perturb_seq(
            n_cells=30_000, n_genes=300, n_perturbations=24, n_combinations=16, cell_types=3, seed=seed
        )
    else:
        cells = pf.datasets.norman_mcfaline_subset("norman")
    labels = cells.obs["perturbation"].astype(str).to_numpy()
    conditions = np.array(sorted(set(labels) - {"control"}))
    of_a = rng.permutation(np.array([label for label in conditions if "+" not in label]))
    of_a = set(of_a[: len(of_a) // 2].tolist())
    in_a = np.array([set(label.split("+")) <= of_a for label in labels])
    in_a = np.where(labels == "control", rng.random(cells.n_obs) < 0.5, in_a)
    genes = rng.permutation(cells.n_vars)
    n_alone = round(cells.n_vars * (1 - OVERLAP) / (2 - OVERLAP))
    panels = np.sort(genes[n_alone:]), np.sort(genes[: cells.n_vars - n_alone])
    kept = cells.obs["cell_type"] != cells.obs["cell_type"].cat.categories[-1] if name == "simulated" else True
    parts = cells[in_a & kept, panels[0]].copy(), cells[~in_a, panels[1]].copy()
    for part in parts:
        pf.pp.setup_perturbation(part, perturbation_key="perturbation", control="control", covariate_keys=["cell_type"])
    return parts


@dataclass(frozen=True, eq=False)
class Screen:
    """Screen B: cells for training, fresh cells of the same conditions, and cells of held-out conditions."""

    training: CellData
    half: CellData
    judged: dict[str, CellData]

    @classmethod
    def split(cls, cells: CellData, seed: int) -> Screen:
        """Hold out a fifth of the perturbations whole, and a fifth of the cells of all others."""
        rng = np.random.default_rng([seed, 1])
        labels = np.array([row.tobytes() for row in cells.perturbations.toarray()])
        perturbed = sorted(set(labels[np.diff(cells.perturbations.indptr) > 1].tolist()))
        held_out = rng.permutation(len(perturbed))[: max(2, round(HELD_OUT_FRACTION * len(perturbed)))]
        is_held_out = np.isin(labels, [perturbed[i] for i in held_out])
        is_fresh = (rng.random(len(cells)) < FRESH_FRACTION) & ~is_held_out
        training = cells.subset(~is_held_out & ~is_fresh)
        rows = [group.rows[rng.permutation(len(group.rows))[::2]] for group in training.groups()]
        return cls(
            training,
            training.subset(np.sort(np.concatenate(rows))),
            {"fresh cells": cells.subset(is_fresh), "held-out conditions": cells.subset(is_held_out)},
        )


def new_flow(cells: CellData, fields: PerturbationFields, options: dict[str, Any], *, seed: int) -> ConditionalFlow:
    """An untrained flow with the prior of some cells."""
    config = FlowConfig(
        n_genes=cells.n_genes,
        n_components=len(fields.vocabulary.components),
        n_categories=tuple(len(categories) for _, categories in fields.vocabulary.covariates),
        **options,
    )
    return ConditionalFlow(config, AdditiveHurdlePrior.fit(cells), seed=seed)


class Judge:
    """Scores flows on the same cells, under the same noise."""

    def __init__(self, screen: Screen, *, seed: int) -> None:
        self.screen, self.seed = screen, seed

    def loss(self, flow: ConditionalFlow, cells: CellData) -> float:
        """Flow-matching loss, as it is trained but without dropped conditions."""
        import torch

        grouping, generator = cells.grouping(), torch.Generator().manual_seed(self.seed)
        conditions, group = TrainingConditions(flow, grouping), torch.as_tensor(grouping.codes)
        rows, all_cells = DeviceRows(cells.x, flow.device), torch.zeros(LOSS_CELLS, dtype=torch.bool)
        losses = []
        with torch.inference_mode():
            for _ in range(LOSS_BATCHES):
                picked = torch.randint(len(cells), (LOSS_CELLS,), generator=generator)
                distribution, condition = conditions.look_up(group[picked], torch.ones(()), all_cells)
                t, x0 = draw_path(LOSS_CELLS, cells.n_genes, generator)
                errors = flow_matching_errors(flow, rows.take(picked), distribution, condition, t=t, x0=x0)
                losses.append(float(errors.mean()))
        return float(np.mean(losses))

    def energy(self, flow: ConditionalFlow, cells: CellData) -> float:
        """Energy distance of cells from noise, mean over conditions."""
        training = self.screen.training
        controls = {tuple(g.covariates): g.rows for g in training.groups() if not g.perturbation.any()}
        groups = [g for g in cells.groups() if g.perturbation.any() and len(g.rows) >= LEAST_CELLS]
        distances = []
        for i in np.unique(np.linspace(0, len(groups) - 1, ENERGY_CONDITIONS).astype(int)):
            group = groups[i]
            start = _dense(training.x[controls[tuple(group.covariates)][:ENERGY_CELLS]])
            # Stratified noise would not give the independent cells that the unbiased distance is made for.
            predicted = flow.sample(
                start,
                group.perturbation,
                group.covariates,
                rng=np.random.default_rng([self.seed, i]),
                source="noise",
                stratified=False,
            )
            distances.append(energy_distance(predicted, _dense(cells.x[group.rows[:ENERGY_CELLS]])))
        return float(np.mean(distances))

    def scores(self, flow: ConditionalFlow) -> dict[str, float]:
        """All scores by name."""
        return {
            f"{name}, {where}": score(flow, cells)
            for where, cells in self.screen.judged.items()
            for name, score in (("loss", self.loss), ("energy distance", self.energy))
        }


def train(
    flow: ConditionalFlow, cells: CellData, *, steps: int, seed: int, judge: Judge | None = None, **settings: Any
) -> list[tuple[int, float]]:
    """Train, and look at the averaged weights in between: steps and losses on fresh cells."""
    curve: list[tuple[int, float]] = []

    class Look(Callback):
        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            if judge is None:
                return
            averaged = next(own for own in trainer.callbacks if isinstance(own, AveragedWeights))
            averaged.swap_in(pl_module)
            curve.append((pl_module.step, judge.loss(flow, judge.screen.judged["fresh cells"])))
            averaged.swap_out(pl_module)

    every = max(1, steps // LOOKS)
    options = TrainingSettings(max_steps=steps, validate_every=every, patience=steps, seed=seed, **settings)
    train_flow(flow, cells, options, trainer_options={"callbacks": [Look()]})
    return curve


def one_run(name: str, seed: int, options: dict[str, Any], *, steps: int, pretraining_steps: int, **tuning: Any):
    """Scores of every flow, the curves of training, and the report of what was taken over."""
    source, target = screens(name, seed)
    fields = read_fields(source)
    cells = pf.evaluation.registered_cells(source)
    pretrained = new_flow(cells, fields, options, seed=seed)
    train(pretrained, cells, steps=pretraining_steps, seed=seed)
    fitted = FittedFlow(pretrained, tuple(source.var_names), fields, {}, ("train",))

    fields, genes = read_fields(target), tuple(target.var_names)
    screen = Screen.split(pf.evaluation.registered_cells(target), seed)
    judge, scores, curves = Judge(screen, seed=seed), {}, {}
    for model, cells, n_steps in (
        (PRIOR, screen.training, 0),
        (PRIOR_HALF, screen.half, 0),
        (SCRATCH, screen.training, steps),
        (SCRATCH_HALF, screen.half, steps),
        (SHORT_HALF, screen.half, steps // 3),
        (TUNED, screen.half, steps // 3),
    ):
        is_tuned = model == TUNED
        flow = new_flow(cells, fields, inherited_options(fitted, genes) if is_tuned else options, seed=seed + 1000)
        if is_tuned:
            report = transfer_weights(fitted, flow, genes, fields.vocabulary)
            curves["start"] = [(0, judge.loss(flow, screen.judged["fresh cells"]))]
        if n_steps:
            changes = tuning if is_tuned else {}
            curves[model] = train(flow, cells, steps=n_steps, seed=seed, judge=judge, **changes)
        scores[model] = judge.scores(flow)
    text = (
        f"{name}, {options['parametrisation']}, seed {seed}: {len(screen.training)} training cells; "
        f"{report['n_shared_genes']} of {len(genes)} genes shared."
    )
    print(text, flush=True)
    return scores, curves


def steps_needed(looks: pd.DataFrame, n_steps: int) -> pd.DataFrame:
    """Loss on fresh cells before and after fine-tuning, and when it has reached the best of fits from scratch."""
    rows = []
    for (name, parametrisation, seed), part in looks.groupby(["set", "parametrisation", "seed"], sort=False):
        curve = {flow: list(zip(rows["step"], rows["loss"], strict=True)) for flow, rows in part.groupby("flow")}
        tuned = curve["start"] + curve[TUNED]
        row = {"set": name, "parametrisation": parametrisation, "seed": seed}
        row |= {"start": f"{tuned[0][1]:.4f}", "end": f"{tuned[-1][1]:.4f}"}
        for model, what in ((SCRATCH, "all"), (SCRATCH_HALF, "half")):
            best = min(loss for _, loss in curve[model])
            step = first_step(tuned, best)
            row[f"best from scratch, {what}"] = f"{best:.4f}"
            row[f"reached at step, {what}"] = "not reached" if np.isnan(step) else f"{step:.0f} of {n_steps}"
        rows.append(row)
    return pd.DataFrame(rows).set_index("set")


def first_step(curve: list[tuple[int, float]], level: float) -> float:
    """First step looked at where a curve is at or below a level; NaN if there is none."""
    return next((float(step) for step, loss in curve if loss <= level), np.nan)


def _dense(x: Any) -> np.ndarray:
    return x.toarray() if sparse.issparse(x) else np.asarray(x)


def main() -> None:
    """Run everything and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sets", nargs="+", default=["simulated", "norman"])
    parser.add_argument("--steps", type=int, default=360)
    parser.add_argument("--pretraining-steps", type=int, default=900)
    parser.add_argument("--network", default="mlp")
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--parametrisations", nargs="+", default=["velocity", "zero_inflated"])
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="of fine-tuning")
    parser.add_argument("--warmup-steps", type=int, default=50, help="of fine-tuning")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    one_thread()
    started = time.monotonic()

    tuning = {"learning_rate": arguments.learning_rate, "warmup_steps": arguments.warmup_steps}
    budget = {"steps": arguments.steps, "pretraining_steps": arguments.pretraining_steps}
    rows, looks = [], []
    for name, parametrisation, seed in product(arguments.sets, arguments.parametrisations, range(arguments.seeds)):
        options = {"network": arguments.network, "width": arguments.width, "parametrisation": parametrisation}
        scores, curves = one_run(name, seed, options, **budget, **tuning)
        run = {"set": name, "parametrisation": parametrisation, "seed": seed}
        rows += [{**run, "flow": model, **values} for model, values in scores.items()]
        looks += [
            {**run, "flow": model, "step": step, "loss": loss}
            for model, curve in curves.items()
            for step, loss in curve
        ]
    table, looks = pd.DataFrame(rows), pd.DataFrame(looks)
    arguments.output.mkdir(parents=True, exist_ok=True)
    table.to_csv(arguments.output / "flow_finetuning_scores.csv", index=False)
    looks.to_csv(arguments.output / "flow_finetuning_curves.csv", index=False)

    groups = table.drop(columns="seed").groupby(["set", "parametrisation", "flow"], sort=False)
    means, spreads = groups.mean(), groups.std()
    text = pd.DataFrame({c: map(mean_and_spread, means[c], spreads[c]) for c in means}, index=means.index)
    print(f"\nMean ± s.d. over {arguments.seeds} seeds, N = {arguments.steps}\n\n{markdown(text)}\n")
    print(markdown(steps_needed(looks, arguments.steps)))
    print(f"\n{time.monotonic() - started:.0f} s in all, {time.process_time():.0f} s of one thread")


if __name__ == "__main__":
    main()
