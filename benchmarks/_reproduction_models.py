"""The networks of the reproduction, in gene space and between principal components, and how they are trained."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from _gpu_work import Training
from _gpu_work import new_flow as new_gene_flow
from _training import PCAFlow

from perturbflow.models import FlowOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from _reproduction_panels import Panel
    from numpy.typing import NDArray

    from perturbflow.flow import ConditionalFlow, Group

SOLVER = {"method": "multistep", "n_steps": 15, "stratified": False}


@dataclass(frozen=True)
class Recipe:
    """A network and how it is trained.

    Parameters
    ----------
    options
        Settings of the flow besides plain velocity and noise.
    learning_rate
        Peak of the schedule.
    """

    options: Mapping[str, Any]
    learning_rate: float


PRESET = FlowOptions.of("primeflow")
UNET = {name: PRESET.model[name] for name in ("network", "width", "n_blocks", "network_options")}
MODELS: Mapping[tuple[str, str], Recipe] = {
    ("genes", "U-Net"): Recipe(UNET, 2e-3),
    ("genes", "MLP"): Recipe({"network": "mlp", "width": 256, "n_blocks": 2}, 1e-3),
    # Narrower than the panel: what an MLP of a usual width is to a whole transcriptome.
    ("genes", "narrow MLP"): Recipe({"network": "mlp", "width": 32, "n_blocks": 2}, 1e-3),
    ("components", "U-Net"): Recipe(UNET, 2e-3),
    ("components", "MLP"): Recipe({"network": "mlp", "width": 256, "n_blocks": 2}, 1e-3),
}


class Model:
    """A flow of a panel in one of the two spaces, with its training.

    Parameters
    ----------
    panel
        The cells.
    space, network
        Name in :data:`MODELS`.
    n_cells
        Cells that it is trained on, each batch of them drawn anew.
    batch_size
        Cells a step.
    seed
        Of weights, batches and noise.
    changes
        Settings of the network that differ, for a short run.
    learning_rate
        Peak of the schedule, if not that of the recipe.
    """

    def __init__(
        self,
        panel: Panel,
        space: str,
        network: str,
        *,
        n_cells: int,
        batch_size: int,
        seed: int,
        changes: Mapping[str, Any] | None = None,
        learning_rate: float | None = None,
    ) -> None:
        recipe, device = MODELS[space, network], torch.device("cpu")
        options = {"parametrisation": "velocity", "source": "noise", **recipe.options, **(changes or {})}
        cells = panel.training
        self.n_genes = cells.n_genes
        self.pca: PCAFlow | None = None
        self.flow: ConditionalFlow
        if space == "components":
            self.pca = PCAFlow.untrained(cells, options, seed=seed)
            self.flow, cells = self.pca.flow.to(device), self.pca.scores
        else:
            torch.manual_seed(seed)
            self.flow = new_gene_flow(cells, dict(options), device, mixed=False)
        n_steps = max(1, round(n_cells / batch_size))
        settings = replace(
            PRESET.training,
            max_steps=n_steps,
            batch_size=batch_size,
            learning_rate=recipe.learning_rate if learning_rate is None else learning_rate,
            seed=seed,
        )
        self.training = Training(self.flow, cells, settings)

    def train(self, shares: Sequence[float]) -> Iterator[tuple[int, float]]:
        """Train, and stop at shares of the whole with the averaged weights in the flow; cells seen and seconds so far."""
        seconds, n_steps = 0.0, self.training.settings.max_steps
        for share in shares:
            started = time.process_time()
            while self.training.number < round(share * n_steps):
                self.training.step()
            seconds += time.process_time() - started
            network = self.flow.network
            current = {name: weight.detach().clone() for name, weight in network.state_dict().items()}
            network.load_state_dict(self.training.average)
            yield self.training.number * self.training.settings.batch_size, seconds
            network.load_state_dict(current)

    def sampler(self, guidance: float = 1.0) -> Callable[[int, Group, np.random.Generator], NDArray[np.float32]]:
        """A function that predicts cells of a condition."""
        chosen: dict[str, Any] = {**SOLVER, "guidance": guidance}

        def sample(n_cells: int, group: Group, rng: np.random.Generator) -> NDArray[np.float32]:
            flow = self.flow if self.pca is None else self.pca.flow
            size = self.n_genes if self.pca is None else self.pca.scores.n_genes
            blank = np.zeros((n_cells, size), dtype=np.float32)
            drawn = flow.sample(blank, group.perturbation, group.covariates, rng=rng, **chosen)
            return drawn if self.pca is None else np.asarray(self.pca.pca.inverse_transform(drawn), dtype=np.float32)

        return sample
