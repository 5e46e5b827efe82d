"""Networks, parametrisations and sources of the flow at equal time, beside the presets, a flow in PCA space and baselines.

{U-Net of the paper, best other U-Net, MLP} x {velocity, gaussian, zero_inflated} x {noise, control}, on Norman 2019
(combinations held out), McFaline-Figueroa 2024 (perturbation-line pairs) and Kang 2018 (one stimulated cell type).

- A budget counts the CPU seconds of the training process on one thread: on an idle core that is wall-clock, and other
  processes do not distort it. What is computed only to judge is not counted; the fit of the prior is, for all that use it.
- The number of steps is planned anew after every step from the seconds a step has taken so far, so that the cosine decay
  ends with the budget. There is no early stopping: what is judged are the averaged weights at the end.
- Training does not depend on the source: every network is trained once, and sampled from noise and from control cells
  moved by the prior (start 0.7), always with the solver of the default.
- U-Net rows are trained with the settings of the preset "primeflow", all others with those of "default".
- "default" and "primeflow" are `pf.tl.fit_flow` with that preset, with all that it chooses on validation conditions and
  its own solver, for at most as many steps as the budget allowed the same network and parametrisation above; the seconds
  of the whole fit are in the table. "primeflow" has guidance 1, as choosing it would take longer than the training.
- The prior that is judged, as all baselines, is fitted on training and validation cells.

    python benchmarks/flow_ablation.py [--budget 30] [--seeds 3] [--sets norman mcfaline kang] [--jobs 2] ...
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
import warnings
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from _ablation_report import CONTROL_SUFFIX, NOISE_SUFFIX, PCA_MODEL, PRESET_OF, report
from _common import FLOOR, SETS, Problem, clock, one_thread, with_settings
from _training import ENTRY_TIME, NETWORKS, UNET_WIDTH, Budget, PCAFlow, new_flow, recipe

import perturbflow as pf
from perturbflow.flow import PARAMETRISATIONS, AdditiveHurdlePrior
from perturbflow.train import train_flow

if TYPE_CHECKING:
    from perturbflow.flow import CellData, ConditionalFlow, TrainingSettings

FEW_CELLS = 16
N_POINTS = 6
FIRST_POINT = 1 / 64
SOURCES = {NOISE_SUFFIX: {"source": "noise"}, CONTROL_SUFFIX: {"source": "control", "entry_time": ENTRY_TIME}}


class Ablation:
    """All trainings of one data set and seed; fills tables of scores, learning curves and costs."""

    def __init__(self, name: str, seed: int, options: argparse.Namespace) -> None:
        self.options, self.clock = options, clock(options.device)
        self.problem = Problem.make(name, seed, max_conditions=options.conditions)
        self.scores: list[pd.DataFrame] = []
        self.curves: list[dict[str, Any]] = []
        self.costs: list[dict[str, Any]] = []
        self.warm_up()
        started = self.clock()
        self.prior = AdditiveHurdlePrior.fit(self.problem.training)
        self.prior_seconds = self.clock() - started
        self.final_prior = AdditiveHurdlePrior.fit(self.problem.cells.subset(self.problem.fitted))

    def run(self) -> dict[str, pd.DataFrame]:
        """Train and judge everything."""
        baselines = self.problem.baselines()
        self.judge(baselines, keep_ceiling=True)
        self.add_to_curves({FLOOR: baselines[FLOOR]}, 0, {FLOOR: 0.0})
        for network in self.options.networks:
            for parametrisation in self.options.parametrisations:
                self.gene_space(network, parametrisation)
            for preset, (of_network, parametrisation) in PRESET_OF.items():
                if of_network == network and parametrisation in self.options.parametrisations:
                    self.preset(preset, max_steps=self.costs_of(network, parametrisation)["steps"])
        if "MLP" in self.options.networks:
            self.pca_space()
        tables = {
            "scores": pd.concat(self.scores, ignore_index=True),
            "curves": pd.DataFrame(self.curves),
            "costs": pd.DataFrame(self.costs),
        }
        return {
            name: table.assign(set=self.problem.name, seed=self.problem.seed, budget=self.options.budget)
            for name, table in tables.items()
        }

    def warm_up(self) -> None:
        """Do everything once, so that no budget pays for what torch loads at its first use."""
        training = self.problem.training
        options, settings = recipe("MLP", "zero_inflated", seed=0)
        flow = new_flow(training, AdditiveHurdlePrior.fit(training), options, seed=0).to(self.options.device)
        train_flow(flow, training, replace(settings, max_steps=2))

    def gene_space(self, network: str, parametrisation: str) -> None:
        """Train one network; judge it from both sources."""
        seed = self.problem.seed
        options, settings = recipe(network, parametrisation, seed=seed)
        started = self.clock()
        flow = new_flow(self.problem.training, self.prior, options, seed=seed).to(self.options.device)
        name = f"{network}, {parametrisation}"
        samplers = {name + suffix: with_settings(flow, **changes) for suffix, changes in SOURCES.items()}
        law_seconds = self.prior_seconds if flow.parametrisation.uses_distribution else 0.0
        # Only a shifted control cell needs the prior where the velocity does not.
        later = {name + CONTROL_SUFFIX: self.prior_seconds - law_seconds}
        training = (flow, self.problem.training, settings)
        self.train(name, training, samplers, law_seconds, started, later)
        flow.prior = self.final_prior
        self.judge(samplers)

    def pca_space(self) -> None:
        """Train the flow between principal components; judge it."""
        seed = self.problem.seed
        options, settings = recipe("MLP", "velocity", seed=seed)
        started = self.clock()
        pca_flow = PCAFlow.untrained(self.problem.training, options, seed=seed)
        pca_flow.flow.to(self.options.device)
        training = (pca_flow.flow, pca_flow.scores, settings)
        self.train(PCA_MODEL, training, {PCA_MODEL: pca_flow}, 0.0, started, {})
        self.judge({PCA_MODEL: pca_flow})

    def preset(self, preset: str, *, max_steps: int) -> None:
        """Fit a preset as a user would; judge it."""
        options: dict[str, Any] = (
            {"model_kwargs": {"guidance": 1.0, "width": UNET_WIDTH}} if preset == "primeflow" else {}
        )
        started = self.clock()
        pf.tl.fit_flow(
            self.problem.adata,
            preset=preset,
            max_steps=max_steps,
            plan_kwargs={"calibrate": False},
            seed=self.problem.seed,
            trainer_kwargs={"accelerator": self.options.device},
            progress_bar=False,
            **options,
        )
        fitted = pf.models.FittedFlow.from_dict(self.problem.adata.uns["flow"])
        config, history = fitted.flow.config, fitted.history
        self.costs.append(
            {"model": preset, "steps": int(history["step"][-1]), "seconds": self.clock() - started}
            | {
                "entry_time": config.entry_time,
                "correction_scale": config.correction_scale,
                "guidance": config.guidance,
            }
        )
        self.judge({preset: fitted})

    def train(
        self,
        name: str,
        training: tuple[ConditionalFlow, CellData, TrainingSettings],
        samplers: dict[str, Any],
        used: float,
        started: float,
        later: dict[str, float],
    ) -> None:
        """Train within the budget, with the energy distance of all samplers at several times."""
        points = self.options.budget * np.geomspace(FIRST_POINT, 1, N_POINTS)
        looked = {"seconds": 0.0}

        def look(step: int, seconds: float) -> None:
            before = time.monotonic()
            self.add_to_curves(samplers, step, {model: seconds + later.get(model, 0.0) for model in samplers})
            looked["seconds"] += time.monotonic() - before

        budget = Budget(
            self.options.budget, clock=self.clock, used=used + self.clock() - started, points=points, look=look
        )
        budget.look_at(0)
        flow, cells, settings = training
        options = {"accelerator": "gpu" if flow.device.type == "cuda" else "cpu", "callbacks": [budget]}
        # The budget ends it.
        steps = train_flow(flow, cells, replace(settings, max_steps=10**9), trainer_options=options).steps
        for model in samplers:
            seconds = budget.used + later.get(model, 0.0)
            self.costs.append({"model": model, "training": name, "steps": steps, "seconds": seconds})
        self.progress(f"{name}: {steps} steps, curves took {looked['seconds']:.0f} s")

    def add_to_curves(self, samplers: dict[str, Any], step: int, seconds: dict[str, float]) -> None:
        """Energy distance of all samplers now, on fewer cells and conditions than at the end."""
        for model, sampler in samplers.items():
            energies = self.problem.energies(
                sampler, n_cells=self.options.curve_cells, max_conditions=self.options.curve_conditions
            )
            at = {"model": model, "step": step, "seconds": seconds[model]}
            self.curves += [at | {"split": split, "value": value} for split, value in energies.items()]

    def judge(self, samplers: dict[str, Any], *, keep_ceiling: bool = False) -> None:
        """Score models on all conditions of the problem."""
        started = time.monotonic()
        table = self.problem.scores(samplers, n_cells=self.options.cells)
        self.scores.append(table if keep_ceiling else table[table["model"] != "ceiling"])
        self.progress(f"judged {', '.join(samplers)} in {time.monotonic() - started:.0f} s")

    def costs_of(self, network: str, parametrisation: str) -> dict[str, Any]:
        """Costs of a training that is done."""
        return next(cost for cost in self.costs if cost.get("training") == f"{network}, {parametrisation}")

    def progress(self, text: str) -> None:
        """Say where this run is."""
        print(f"  [{self.problem.name} {self.problem.seed}] {text}", flush=True)


def one_cell(name: str, seed: int, options: argparse.Namespace) -> dict[str, pd.DataFrame]:
    """Everything for one data set and seed, in a process of its own."""
    one_thread()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # conditions with few cells
        return Ablation(name, seed, options).run()


def sampling_seconds(flow: ConditionalFlow, cells: CellData) -> float:
    """Seconds to sample a cell once from every source."""
    x, group = np.zeros((FEW_CELLS, cells.n_genes), dtype=np.float32), cells.groups()[0]
    started = time.process_time()
    for changes in SOURCES.values():
        flow.sample(x, group.perturbation, group.covariates, rng=np.random.default_rng(0), **changes)
    return (time.process_time() - started) / FEW_CELLS


def estimate(options: argparse.Namespace) -> float:
    """Seconds that everything will take, from a few cells sampled by every network on every set."""
    one_thread()
    total = 0.0
    for name in options.sets:
        problem = Problem.make(name, 0, max_conditions=options.conditions)
        prior = AdditiveHurdlePrior.fit(problem.training)
        splits = [condition.block[0] for condition in problem.conditions]
        n_curve = sum(min(options.curve_conditions, splits.count(split)) for split in set(splits))
        # Two predictions of every condition at the end, and one at every point of the curve.
        n_sampled = 2 * options.cells * len(splits) + (N_POINTS + 1) * options.curve_cells * n_curve
        for network in options.networks:
            flow = new_flow(problem.training, prior, recipe(network, "velocity", seed=0)[0], seed=0)
            judging = n_sampled * sampling_seconds(flow, problem.training)
            total += options.seeds * len(options.parametrisations) * (options.budget + judging)
            if network in [of_network for of_network, _ in PRESET_OF.values()]:
                total += options.seeds * (2 * options.budget + 3 * judging)
    return total / options.jobs


def parsed() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", type=float, default=30.0, help="seconds of every training")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=[*SETS, "simulated"])
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--parametrisations", nargs="+", default=list(PARAMETRISATIONS), choices=list(PARAMETRISATIONS))
    parser.add_argument("--jobs", type=int, default=1, help="sets and seeds at once, each on one thread")
    parser.add_argument("--conditions", type=int, default=8, help="conditions to judge, of training and held out each")
    parser.add_argument("--cells", type=int, default=128, help="cells a condition to judge")
    parser.add_argument("--curve-conditions", type=int, default=3, help="the same for learning curves")
    parser.add_argument("--curve-cells", type=int, default=48)
    parser.add_argument("--device", default="cpu", help="on a GPU the budget is wall-clock")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--report-only", action="store_true", help="print the tables of an earlier run")
    return parser.parse_args()


def main() -> None:
    """Run everything, save after every set and seed, and print the tables."""
    options = parsed()
    if not options.report_only:
        one_thread()
        options.output.mkdir(parents=True, exist_ok=True)
        parts: dict[str, list[pd.DataFrame]] = {"scores": [], "curves": [], "costs": []}
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(options.jobs, mp_context=context, max_tasks_per_child=1) as pool:
            minutes = pool.submit(estimate, options).result() / 60
            print(f"Estimated: {minutes:.0f} minutes with {options.jobs} at once", flush=True)
            tasks = [
                pool.submit(one_cell, name, seed, options) for seed in range(options.seeds) for name in options.sets
            ]
            for task in as_completed(tasks):
                for name, table in task.result().items():
                    parts[name].append(table)
                    pd.concat(parts[name]).to_csv(options.output / f"flow_ablation_{name}.csv", index=False)
    report(options.output)


if __name__ == "__main__":
    main()
