"""History of a fit, in numbers and on the screen."""

from __future__ import annotations

import math
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np
from lightning.pytorch import Callback

from perturbflow.train._flow_plan import NonFiniteLossError
from perturbflow.train._progress import progress_bar as bar

if TYPE_CHECKING:
    from lightning.pytorch import Trainer
    from numpy.typing import NDArray

_STEPS_BETWEEN_LOOKS = 10


class History(Callback):
    """Loss, learning rate, time and scores, and a progress bar."""

    def __init__(self, *, progress_bar: bool = False) -> None:
        self.values: dict[str, list[float]] = {
            name: [] for name in ("step", "loss", "learning_rate", "seconds", "valid_step", "valid_energy")
        }
        self.show = progress_bar
        self.seconds = 0.0
        self._stack = ExitStack()

    def arrays(self) -> dict[str, NDArray[np.float64]]:
        """All values by name."""
        return {name: np.array(values, dtype=np.float64) for name, values in self.values.items()}

    @property
    def last_scored(self) -> int | None:
        """Step of the last score."""
        steps = self.values["valid_step"]
        return int(steps[-1]) if steps else None

    def note_score(self, step: int, score: float) -> None:
        """Note the score on the held-out conditions at a step."""
        self.values["valid_step"].append(float(step))
        self.values["valid_energy"].append(score)

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Start the clock and the bar."""
        self._started = time.monotonic() - self.seconds
        total, show = pl_module.settings.max_steps, self.show and trainer.is_global_zero
        self._bar = self._stack.enter_context(
            bar("training", unit="step", total=total, initial=trainer.global_step, show=show)
        )

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Note the loss every now and then, and move the bar."""
        del outputs, batch_idx
        step, settings = batch.number + 1, pl_module.settings
        self.seconds = time.monotonic() - self._started
        self._bar.update()
        if self.show and step % _STEPS_BETWEEN_LOOKS == 0:
            valid = self.values["valid_energy"]
            held_out = {"held_out": f"{valid[-1]:.3f}"} if valid else {}
            self._bar.note(loss=f"{float(pl_module.smoothed):.4f}", **held_out)
        if step % settings.validate_every == 0 or step == settings.max_steps:
            self._note(step, trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Note the last step, and remove the bar."""
        steps = self.values["step"]
        if pl_module.step and (not steps or steps[-1] < pl_module.step):
            self._note(pl_module.step, trainer, pl_module)
        self._stack.close()

    def on_exception(self, trainer: Trainer, pl_module: Any, exception: BaseException) -> None:
        """Remove the bar."""
        del trainer, pl_module, exception
        self._stack.close()

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
