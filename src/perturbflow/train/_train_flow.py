"""Training the network of a flow with Lightning."""

from __future__ import annotations

import inspect
import logging
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping
from numpy.typing import NDArray

from perturbflow._checks import check_options
from perturbflow._progress import progress_bar as counted
from perturbflow._settings import settings as package_settings
from perturbflow.flow import CellData, ConditionalFlow, TrainingSettings
from perturbflow.predict._torch_state import device_of, usual_torch
from perturbflow.screen._screen import Screen
from perturbflow.train._callbacks import AveragedWeights, History, Interruption
from perturbflow.train._checkpoint import Checkpoint, SafeCheckpoints, SaveAfterValidation
from perturbflow.train._flow_plan import FlowData, FlowPlan, NonFiniteLossError

# Options of the trainer that would make steps, batches and the schedule disagree, and what to use in their place.
_DECIDED = {
    "accumulate_grad_batches": "a larger `batch_size`",
    "limit_train_batches": "`max_steps`",
    "limit_val_batches": "fewer validation conditions in the split",
    "max_epochs": "`max_steps`",
    "max_steps": "`max_steps` of the fit",
    "val_check_interval": "`validate_every` among the settings of training",
}
# Advice on how to load data faster or save what is fitted, which does not concern what is done here.
_KNOWN_WARNINGS = (
    "The '?(train|val)_dataloader'? does not have many workers",
    "You're resuming from a checkpoint that ended before the epoch ended",
    "You are trying to `self.log",
    "The number of training batches",
    ".*LeafSpec.* is deprecated",
)


@dataclass(frozen=True)
class Trained:
    """Results of training beside the weights."""

    history: dict[str, NDArray]  # named arrays
    steps: int  # number of the last
    interrupted: bool  # by the user, or by a loss that is not finite
    failure: NonFiniteLossError | None  # the latter


def run_lightning(plan: FlowPlan, data: LightningDataModule, *, ckpt_path: str | None, **options: Any) -> Trainer:
    """Train with Lightning's trainer, which is returned."""
    trainer = Trainer(**options)
    trainer.fit(plan, datamodule=data, ckpt_path=ckpt_path)
    return trainer


@usual_torch()
def train_flow(
    flow: ConditionalFlow,
    cells: CellData | Screen,
    settings: TrainingSettings,
    *,
    validate: Callable[[ConditionalFlow], float] | None = None,
    checkpoint: Checkpoint | None = None,
    run: Callable[..., Trainer] = run_lightning,
    plan_class: type[FlowPlan] = FlowPlan,
    data_class: type[FlowData] = FlowData,
    datamodule: LightningDataModule | None = None,
    trainer_options: Mapping[str, Any] | None = None,
    progress_bar: bool = False,
) -> Trained:
    """Train the network of a flow, whose prior is fitted, in place; NonFiniteLossError if it fails before any validation.

    The flow is left with the averaged weights of the best validation (``validate`` is a score, lower is better) or, without
    one, of the last step.
    """
    options = dict(trainer_options or {})
    settings, options["precision"] = _precision(settings, options.get("precision"))
    grouping = cells.grouping()
    plan = plan_class(flow, grouping, settings, validate=validate)
    data = data_class(cells, grouping, settings) if datamodule is None else datamodule
    history = History()
    interruption = Interruption(lambda: history.seconds)
    averaging = AveragedWeights(history)
    callbacks: list[Any] = [averaging, history, interruption]
    stopping = None
    if validate is not None:
        stopping = EarlyStopping(
            "valid_energy", patience=settings.patience, check_finite=False, check_on_train_epoch_end=False
        )
        callbacks.append(stopping)
    before = None if checkpoint is None else checkpoint.trainer.checkpoint
    if checkpoint is not None:
        callbacks.append(SaveAfterValidation(checkpoint.path))
    waited = 0 if before is None or stopping is None else before["callbacks"][stopping.state_key]["wait_count"]
    if before is not None and (before["global_step"] >= settings.max_steps or waited >= settings.patience):
        for callback in (averaging, history):
            callback.load_state_dict(before["callbacks"][callback.state_key])
        plan.on_load_checkpoint(before)
        averaging.finish(plan, validate=True)
        return Trained(history.arrays(), plan.step, interrupted=False, failure=None)
    failure = None
    flow.train()
    done = 0 if before is None else before["global_step"]
    bar = counted("training", unit="step", total=settings.max_steps, initial=done, show=progress_bar)
    with _quiet(), bar as history.bar:
        try:
            run(
                plan,
                data,
                ckpt_path=None if checkpoint is None or before is None else str(checkpoint.path),
                **{
                    "max_steps": settings.max_steps,
                    "max_epochs": -1,
                    "accelerator": "cpu",
                    "devices": 1,
                    "logger": False,
                    "gradient_clip_val": settings.gradient_clip,
                    "check_val_every_n_epoch": 1,
                    "num_sanity_val_steps": 0,
                    "limit_val_batches": 1.0 if validate is not None else 0,
                    "enable_checkpointing": False,
                    "enable_progress_bar": False,
                    "enable_model_summary": False,
                    "use_distributed_sampler": False,
                }
                | options
                | {
                    "callbacks": [*callbacks, *_listed(options.get("callbacks"))],
                    "plugins": [
                        *([] if checkpoint is None else [SafeCheckpoints(checkpoint)]),
                        *_listed(options.get("plugins")),
                    ],
                },
            )
        except SystemExit:  # Lightning's answer to an interruption
            if not interruption.interrupted:
                raise
        except NonFiniteLossError as error:
            if not averaging.best:
                averaging.finish(plan, validate=False)
                raise
            failure = error
    cut_short = interruption.interrupted or failure is not None
    averaging.finish(plan, validate=not cut_short)
    return Trained(history.arrays(), plan.step, cut_short, failure)


def check_trainer_options(options: Mapping[str, Any] | None, *, is_lightning: bool) -> dict[str, Any]:
    """Return options of a trainer; TypeError if a fit decides one itself, or Lightning's own trainer has none such."""
    known = inspect.signature(Trainer).parameters if is_lightning else options or {}
    asked = check_options(options, known, name="trainer_kwargs")
    decided = sorted(asked.keys() & _DECIDED.keys())
    if decided:
        advice = "; ".join(f"`{name}`: {_DECIDED[name]}" for name in decided)
        msg = f"Expected trainer options that are not set by the fit, found {decided}. Instead of {advice}."
        raise TypeError(msg)
    return asked


def placed(options: Mapping[str, Any]) -> tuple[torch.device, dict[str, Any]]:
    """Say where a fit computes: the device, the first of several, and the options of the trainer with it."""
    target = device_of(options.get("accelerator", package_settings.device or "auto"), argument="accelerator")
    devices = options.get("devices", 1)
    if target.type == "cuda" and isinstance(devices, list | tuple) and devices:
        target = torch.device(target.type, devices[0])
    accelerator = {"cuda": "gpu"}.get(target.type, target.type)
    return target, {**options, "accelerator": accelerator, "devices": devices}


def _listed(given: Any) -> list[Any]:
    """Several, one or none, as Lightning takes callbacks and plugins."""
    if given is None:
        return []
    return list(given) if isinstance(given, list | tuple) else [given]


def _precision(settings: TrainingSettings, asked: str | int | None) -> tuple[TrainingSettings, str]:
    """Settings and Lightning's precision: what is in bfloat16 are the products of the network, and nothing else."""
    if asked in ("32-true", "32", 32):
        settings = replace(settings, precision="full")
    elif asked == "bf16-mixed":
        settings = replace(settings, precision="bfloat16")
    elif asked is not None:
        msg = f"Expected `precision` to be '32-true' or 'bf16-mixed', found {asked!r}."
        raise ValueError(msg)
    return settings, "32-true"


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Lightning's advice to itself, and leave random states and Ctrl-C as they were."""
    log = logging.getLogger("lightning.pytorch")
    level, handler = log.level, signal.getsignal(signal.SIGINT)
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            for message in _KNOWN_WARNINGS:
                warnings.filterwarnings("ignore", message=message)
            yield
    finally:
        log.setLevel(level)
        if threading.current_thread() is threading.main_thread() and handler is not None:
            signal.signal(signal.SIGINT, handler)
