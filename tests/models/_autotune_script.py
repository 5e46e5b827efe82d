"""Run the search of scvi-tools over PRiMeFlow, with stand-ins for the few things of Ray that it calls; print what it finds.

A process of its own, since scvi-tools looks for Ray once, when it is imported.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

REPORTED: list[dict[str, Any]] = []


class Settings:
    """Anything that is made of keyword arguments and handed on: schedulers, searchers, configurations."""

    def __init__(self, **given: Any) -> None:
        self.given = given


class Report:
    """Ray's callback, which reports a metric when Lightning has trained."""

    def __init__(self, metrics: str | list[str], on: str, *, save_checkpoints: bool) -> None:
        self.metric = metrics if isinstance(metrics, str) else metrics[0]
        assert on == "train_end"
        assert not save_checkpoints

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        REPORTED[-1]["metric"] = float(trainer.callback_metrics[self.metric])


class Tuner:
    """The settings of the lists of a search space, side by side, one trial after the other."""

    def __init__(self, trainable: Any, param_space: dict[str, Any], **options: Any) -> None:
        self.trainable, self.space = trainable, param_space

    def fit(self) -> list[dict[str, Any]]:
        model, train = self.space["model_params"], self.space["train_params"]
        for width, rate in zip(model["width"], train["plan_kwargs"]["learning_rate"], strict=True):
            REPORTED.append({"width": width, "learning_rate": rate})
            plan = train["plan_kwargs"] | {"learning_rate": rate}
            self.trainable({"model_params": model | {"width": width}, "train_params": train | {"plan_kwargs": plan}})
        return REPORTED


def stand_in(name: str, **contents: Any) -> None:
    """Put a module where imports look for it, with the packages that it is in."""
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        path = ".".join(parts[:end])
        sys.modules.setdefault(path, ModuleType(path))
    vars(sys.modules[name]).update(contents)


def install() -> None:
    """Stand in for what scvi-tools imports of Ray, hyperopt and scib-metrics."""
    schedulers = ("AsyncHyperBandScheduler", "FIFOScheduler", "HyperBandScheduler", "MedianStoppingRule")
    stand_in("hyperopt")
    stand_in("scib_metrics.benchmark._core", metric_name_cleaner={})
    stand_in("scib_metrics.benchmark", BatchCorrection=Settings, BioConservation=Settings)
    stand_in("ray", init=lambda **options: None)
    stand_in("ray.util.annotations", PublicAPI=lambda function: function)
    stand_in(
        "ray.tune",
        Tuner=Tuner,
        RunConfig=Settings,
        with_parameters=partial,
        with_resources=lambda trainable, resources: trainable,
        get_context=lambda: SimpleNamespace(get_trial_name=lambda: f"trial_{len(REPORTED)}"),
    )
    stand_in("ray.tune.tune_config", TuneConfig=Settings)
    stand_in("ray.tune.schedulers", **dict.fromkeys(schedulers, Settings))
    stand_in("ray.tune.search", BasicVariantGenerator=Settings)
    stand_in("ray.tune.search.hyperopt", HyperOptSearch=Settings)
    stand_in("ray.tune.integration.pytorch_lightning", TuneReportCheckpointCallback=Report)


def main(folder: str) -> None:
    """Search, and print every trial as JSON."""
    install()
    from lightning.pytorch.loggers import CSVLogger
    from scvi.autotune import AutotuneExperiment, run_autotune

    import perturbflow as pf

    # That of TensorBoard is not installed everywhere.
    AutotuneExperiment.get_logger = lambda self, trial: CSVLogger(folder, name=trial)
    adata = pf.datasets.simulated_perturb_seq(
        n_cells=400, n_genes=20, n_perturbations=4, n_combinations=4, control_fraction=0.3
    )
    pf.models.PRiMeFlow.setup_anndata(adata, perturbation_key="perturbation", control="control")
    pf.pp.split_perturbations(adata, task="combination", test_fraction=0.25, valid_fraction=0.5)
    search_space = {
        "model_params": {"width": [8, 16], "n_blocks": 1},
        "train_params": {
            "max_steps": 4,
            "plan_kwargs": {"learning_rate": [1e-3, 1e-2], "batch_size": 16, "validate_every": 2, "calibrate": False},
            "progress_bar": False,
        },
    }
    experiment = run_autotune(
        pf.models.PRiMeFlow,
        adata,
        metrics="valid_energy",
        mode="min",
        search_space=search_space,
        num_samples=4,
        searcher="random",
        seed=0,
        logging_dir=folder,
    )
    assert np.isfinite([trial["metric"] for trial in experiment.result_grid]).all()
    print(json.dumps(experiment.result_grid))  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1])
