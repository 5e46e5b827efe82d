"""Ctrl-C and the signal that ends a job: what was learned is kept."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Callback

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_STEPS_BETWEEN_AGREEMENTS = 10


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
