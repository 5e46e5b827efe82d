"""Training at a budget of seconds: networks by name, the clock of a training, and the flow between principal components."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from lightning.pytorch import Callback
from scipy import sparse
from sklearn.decomposition import PCA

from perturbflow.flow import (
    AdditiveHurdlePrior,
    CellData,
    ConditionalFlow,
    FlowConfig,
    TrainingSettings,
    Velocity,
)
from perturbflow.models import FlowOptions
from perturbflow.train import PRESETS, AveragedWeights

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

BEST_UNET = "token_unet"
UNET_WIDTH = 8
# Name in tables: preset whose training settings are taken, and what differs from it.
NETWORKS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    # Half as wide as the preset: on a CPU more steps are worth more than wider ones.
    "U-Net": ("primeflow", {"width": UNET_WIDTH}),
    "best U-Net": ("default", {"network": BEST_UNET}),
    "MLP": ("default", {}),
}
# Where shifted control cells enter the path, unless validation has chosen.
ENTRY_TIME = 0.7
SAMPLING = ("method", "n_steps", "stratified")
N_PRINCIPAL_COMPONENTS = 50
_LONGEST_WARM_UP = 50


def recipe(network: str, parametrisation: str, *, seed: int) -> tuple[dict[str, Any], TrainingSettings]:
    """Settings of the flow and of its training, for a network of the table."""
    preset, changes = NETWORKS[network]
    options = FlowOptions.of(preset, model_kwargs={**changes, "parametrisation": parametrisation}, seed=seed)
    return dict(options.model), options.training


def new_flow(cells: CellData, prior: AdditiveHurdlePrior, options: Mapping[str, Any], *, seed: int) -> ConditionalFlow:
    """An untrained flow for the conditions of some cells, always sampled with the solver of the default."""
    default = PRESETS["default"][0]
    of_sampling = {name: default[name] for name in SAMPLING if name in default}
    options = {name: value for name, value in options.items() if name not in SAMPLING} | of_sampling
    n_categories = tuple(int(n) for n in cells.covariates.max(axis=0) + 1)
    config = FlowConfig(
        n_genes=cells.n_genes,
        n_components=cells.perturbations.shape[1],
        n_categories=n_categories,
        **options,
    )
    return ConditionalFlow(config, prior, seed=seed)


class Budget(Callback):
    """Ends a training when its seconds are used up, and plans its schedule to end there.

    After every step it plans the number of steps anew from the seconds that a step has taken so far: the cosine
    decay then ends with the budget, and the warm-up takes at most a tenth of it. What is done at the points in between is
    not counted.

    Parameters
    ----------
    seconds
        The budget.
    clock
        Seconds of this process.
    used
        Seconds that are used already, for example to fit a prior.
    points
        Seconds at which to look at the flow, ascending.
    look
        Called there with the number of steps, while the flow has the averaged weights, and the seconds used.
    """

    def __init__(
        self,
        seconds: float,
        *,
        clock: Callable[[], float],
        used: float = 0.0,
        points: Sequence[float] = (),
        look: Callable[[int, float], None] | None = None,
    ) -> None:
        self.seconds, self.clock, self.points, self.look = seconds, clock, list(points), look
        self.started = clock() - used
        self.first = 0.0

    @property
    def used(self) -> float:
        """Seconds used so far."""
        return self.clock() - self.started

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Plan anew, and look."""
        used, step = self.used, batch.number + 1
        if step == 1:
            self.first = used  # memory is allocated in the first step: it says little about the next
        per_step = (used - self.first) / (step - 1) if step > 1 else 0.0
        left = int((self.seconds - used) / per_step) if per_step else int(used < self.seconds)
        n_steps = step + max(0, left)
        warmup = max(1, min(_LONGEST_WARM_UP, n_steps // 10))
        pl_module.settings = replace(pl_module.settings, max_steps=n_steps, warmup_steps=warmup)
        trainer.should_stop = trainer.should_stop or n_steps == step
        if self.points and (used >= self.points[0] or n_steps == step):
            self.points = [point for point in self.points if point > used and n_steps > step]
            averaged = next(own for own in trainer.callbacks if isinstance(own, AveragedWeights))
            averaged.swap_in(pl_module)
            pl_module.eval()
            self.look_at(step)
            averaged.swap_out(pl_module)
            pl_module.train()

    def look_at(self, step: int) -> None:
        """Look at the flow; the clock stands still."""
        if self.look is None:
            return
        used = self.used
        self.look(step, used)
        self.started += self.used - used


@dataclass(frozen=True, eq=False)
class PCAFlow:
    """The paper's ablation: a plain-velocity flow from noise to standardised principal components of the cells.

    ``scores`` are the training cells by components (n, 50), whitened; predictions are mapped back, and clipped at 0.
    """

    pca: PCA
    scores: CellData
    flow: ConditionalFlow

    @classmethod
    def untrained(cls, cells: CellData, options: Mapping[str, Any], *, seed: int) -> PCAFlow:
        """Fit the components to training cells."""
        pca = PCA(min(N_PRINCIPAL_COMPONENTS, *(size - 1 for size in cells.x.shape)), whiten=True, random_state=seed)
        x = pca.fit_transform(_dense(cells.x)).astype(np.float32)
        scores = CellData(x, cells.perturbations, cells.covariates)
        # The plain velocity knows no distribution: of this prior only the dose units are used.
        flow = new_flow(scores, AdditiveHurdlePrior.fit(scores), {**options, "source": "noise"}, seed=seed)
        flow.parametrisation = _OfScores()
        return cls(pca, scores, flow)

    def sample(
        self, controls: np.ndarray, perturbation: np.ndarray, covariates: np.ndarray, *, rng: np.random.Generator
    ) -> np.ndarray:
        """Predict perturbed cells (n, G); of the controls only their number matters."""
        blank = np.zeros((len(controls), self.scores.n_genes), dtype=np.float32)
        drawn = self.flow.sample(blank, perturbation, covariates, rng=rng)
        return np.clip(self.pca.inverse_transform(drawn), 0, None).astype(np.float32)


class _OfScores(Velocity):
    """A velocity of what may be negative."""

    def finish(self, x: Tensor, *_: Any) -> Tensor:
        return x


def _dense(x: Any) -> np.ndarray:
    return x.toarray() if sparse.issparse(x) else np.asarray(x)
