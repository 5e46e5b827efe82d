"""What a fit does beside its steps: averaged weights, history and progress, and an end that keeps what was learned."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning.pytorch import Callback

from perturbflow.train._flow_plan import NonFiniteLossError

if TYPE_CHECKING:
    from lightning.pytorch import Trainer
    from numpy.typing import NDArray
    from torch import Tensor

    from perturbflow._progress import Progress

_DECAY = 0.995


_STEPS_BETWEEN_LOOKS = 10
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_STEPS_BETWEEN_AGREEMENTS = 10


class AveragedWeights(Callback):
    """Moving average of the weights, and the best; Lightning's own would copy the prior of the flow, too."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.average: dict[str, Tensor] = {}
        self.best: dict[str, Tensor] = {}
        self.best_score = math.inf
        self.n_averaged = 0
        self._current: dict[str, Tensor] = {}

    def on_fit_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Move what a checkpoint held to the device."""
        del trainer
        self.average = {name: tensor.to(pl_module.device) for name, tensor in self.average.items()}

    @torch.no_grad()
    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Let the average follow the weights."""
        del trainer, outputs, batch, batch_idx
        weights = pl_module.flow.network.state_dict()
        if not self.average:
            self.average = _copy(weights)
        else:
            share = 1 - min(_DECAY, (1 + self.n_averaged) / (10 + self.n_averaged))
            for name, average in self.average.items():
                average.lerp_(weights[name], share) if average.is_floating_point() else average.copy_(weights[name])
        self.n_averaged += 1

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Put the average in place of the weights."""
        del trainer
        self.swap_in(pl_module)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Put the weights back."""
        del trainer
        self.swap_out(pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Keep the average if it is the best so far."""
        score = trainer.callback_metrics.get("valid_energy")
        if score is not None:
            self.judge(pl_module, float(score))

    def swap_in(self, plan: Any) -> None:
        """Put the average in place of the weights, until :meth:`swap_out`."""
        self._current = _copy(plan.flow.network.state_dict())
        plan.flow.network.load_state_dict(self.average or self._current)

    def swap_out(self, plan: Any) -> None:
        """Put the weights back."""
        plan.flow.network.load_state_dict(self._current)
        self._current = {}

    def judge(self, plan: Any, score: float) -> None:
        """Note the score of the average, and keep it if it is the best so far."""
        self.history.values["valid_step"].append(float(plan.step))
        self.history.values["valid_energy"].append(score)
        if score < self.best_score:
            self.best_score, self.best = score, _copy(self.average)

    def finish(self, plan: Any, *, validate: bool) -> None:
        """Leave the best weights in the flow, or the average without scores; if ``validate``, the last are scored."""
        if self._current or not self.average:  # interrupted within a validation, or before the first step
            self._current = {}
        elif validate and plan.validate is not None and self.history.values["valid_step"][-1:] != [plan.step]:
            plan.flow.network.load_state_dict(self.average)
            plan.flow.eval()
            self.judge(plan, plan.score())
        if self.average:
            plan.flow.network.load_state_dict(self.best or self.average)
        plan.flow.eval()

    def state_dict(self) -> dict[str, Any]:
        """Everything, for a checkpoint."""
        names = ("average", "best", "best_score", "n_averaged")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a checkpoint."""
        for name, value in state_dict.items():
            setattr(self, name, value)


def _copy(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in weights.items()}


class History(Callback):
    """Loss, learning rate, time and scores, which the bar of the fit shows."""

    def __init__(self) -> None:
        self.values: dict[str, list[float]] = {
            name: [] for name in ("step", "loss", "learning_rate", "seconds", "valid_step", "valid_energy")
        }
        self.seconds = 0.0
        self.bar: Progress | None = None

    def arrays(self) -> dict[str, NDArray[np.float64]]:
        """All values by name."""
        return {name: np.array(values, dtype=np.float64) for name, values in self.values.items()}

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Start the clock."""
        del trainer, pl_module
        self._started = time.monotonic() - self.seconds

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Note the loss every now and then, and move the bar."""
        del outputs, batch_idx
        step, settings = batch.number + 1, pl_module.settings
        self.seconds = time.monotonic() - self._started
        if self.bar is not None:
            self.bar.update()
            if self.bar.is_drawn and step % _STEPS_BETWEEN_LOOKS == 0:
                valid = self.values["valid_energy"]
                held_out = {"held_out": f"{valid[-1]:.3f}"} if valid else {}
                self.bar.note(loss=f"{float(pl_module.smoothed):.4f}", **held_out)
        if step % settings.validate_every == 0 or step == settings.max_steps:
            self._note(step, trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Note the last step."""
        steps = self.values["step"]
        if pl_module.step and (not steps or steps[-1] < pl_module.step):
            self._note(pl_module.step, trainer, pl_module)

    def _note(self, step: int, trainer: Trainer, plan: Any) -> None:
        loss = float(trainer.strategy.reduce(plan.smoothed, reduce_op="mean"))
        if not math.isfinite(loss):  # on a CPU the step itself has noticed
            raise NonFiniteLossError(step, [], [])
        rate = plan.share_of_learning_rate(step - 1) * plan.settings.learning_rate
        for name, value in zip(
            ("step", "loss", "learning_rate", "seconds"), (step, loss, rate, self.seconds), strict=True
        ):
            self.values[name].append(float(value))

    def state_dict(self) -> dict[str, Any]:
        """Everything, for a checkpoint."""
        return {"values": self.values, "seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a checkpoint."""
        self.values, self.seconds = state_dict["values"], state_dict["seconds"]


class Interruption(Callback):
    """Ends training after the step in which a signal comes, a second one at once, and when the time is up."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.interrupted = self._asked = False
        self._before: dict[int, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Listen to the signals, as far as this thread may."""
        del pl_module
        if threading.current_thread() is not threading.main_thread():
            return

        def stop(number: int, frame: Any) -> None:
            del number, frame
            if self._asked:
                raise KeyboardInterrupt
            self._asked = True

        self._before = {number: signal.signal(number, stop) for number in _SIGNALS}

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Stop if a signal has come, or the time is up."""
        del outputs, batch_idx
        limit = pl_module.settings.max_minutes
        stop = self._asked or (limit is not None and self.clock() > 60 * limit)
        if trainer.world_size > 1:  # processes that stop after different steps would wait for each other for ever
            if (batch.number + 1) % _STEPS_BETWEEN_AGREEMENTS:
                return
            stop = trainer.strategy.reduce_boolean_decision(stop, all=False)
            self._asked = trainer.strategy.reduce_boolean_decision(self._asked, all=False)
        self.interrupted |= self._asked
        trainer.should_stop |= stop

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Leave the signals as they were."""
        del trainer, pl_module
        self._restore()

    def on_exception(self, trainer: Trainer, pl_module: Any, exception: BaseException) -> None:
        """Note an interruption, and leave the signals as they were."""
        del trainer, pl_module
        self.interrupted |= isinstance(exception, KeyboardInterrupt)
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}


@contextmanager
def termination_interrupts() -> Iterator[None]:
    """Take the signal that ends a job for Ctrl-C, as far as this thread may."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: Any) -> None:
        del number, frame
        raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in _SIGNALS}
    signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:  # it was not set from Python
                signal.signal(number, handler)
