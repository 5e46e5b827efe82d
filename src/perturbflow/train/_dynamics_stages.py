"""Stages of a fit of dynamics, as its progress shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perturbflow._progress import count, note, stage

if TYPE_CHECKING:
    from collections.abc import Callable

    from perturbflow.dynamics import DynamicsTrainer

_STEPS_BETWEEN_LOOKS = 50


class DynamicsStages:
    """Follow a fit from stage to stage.

    Parameters
    ----------
    trainer
        The fit, which calls this at every step from now on.
    after_part
        What else to call after every part of it.
    """

    def __init__(self, trainer: DynamicsTrainer, *, after_part: Callable[[], None] | None) -> None:
        self.trainer, self.also = trainer, after_part
        trainer.on_step = self._step
        self._begin()

    def after_part(self) -> None:
        """Begin the next stage, if the part was the last of one."""
        if self.trainer.unfinished.removals is not None:
            count()
        self._begin()
        if self.also is not None:
            self.also()

    def _begin(self) -> None:
        trainer, settings = self.trainer, self.trainer.settings
        n_strengths = len(settings.strengths) if settings.strength is None else 1
        totals = {
            "sparsity path": trainer.n_steps() - settings.matching_steps // 2 - settings.shooting_steps,
            "matching": settings.matching_steps // 2,
            "elimination": settings.n_candidates + 1,
            "shooting": settings.shooting_steps,
            "whole trajectories": None,  # until it is no longer worthwhile
        }
        if trainer.n_done == len(totals):
            return
        # With the path complete, the threshold of elimination is chosen on the same part of the data.
        is_choosing = trainer.n_done == 0 and len(trainer.path.strengths) == n_strengths
        name = "choice of a threshold" if is_choosing else list(totals)[trainer.n_done]
        is_counted_in_rounds = name in {"elimination", "choice of a threshold"}
        total = totals["elimination"] if is_counted_in_rounds else totals[name]
        stage(name, unit="round" if is_counted_in_rounds else "step", total=total)

    def _step(self, name: str, step: int, loss: float) -> None:
        count()
        if step % _STEPS_BETWEEN_LOOKS == 0:
            note(loss=f"{loss:.4f}")
