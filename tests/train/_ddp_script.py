"""Trains small flows on two devices; run by a test, which trains one on one device itself."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

import perturbflow as pf
from perturbflow.flow import AdditiveHurdlePrior, CellData, ConditionalFlow, FlowConfig, TrainingSettings
from perturbflow.predict import read_flow
from perturbflow.train import train_flow


def trained(**options: Any) -> dict[str, Any]:
    """Weights and history of a flow that was trained with some options of the trainer."""
    rng = np.random.default_rng(0)
    perturbed = np.arange(300) % 3 == 0
    x = rng.gamma(1.0, size=(300, 6)).astype(np.float32) * (rng.random((300, 6)) < 0.5 + 0.3 * perturbed[:, None])
    cells = CellData(x, perturbed[:, None], np.zeros((300, 0), dtype=int))
    flow = ConditionalFlow(FlowConfig(6, 1, (), width=16), AdditiveHurdlePrior.fit(cells))

    def score(flow: ConditionalFlow) -> float:
        """A score that depends on the weights."""
        return float(sum(weight.abs().sum() for weight in flow.network.state_dict().values()))

    settings = TrainingSettings(max_steps=30, batch_size=32, validate_every=5, warmup_steps=4, learning_rate=1e-2)
    found = train_flow(flow, cells, settings, validate=score, trainer_options=options)
    weights = {name: tensor.numpy() for name, tensor in flow.network.state_dict().items()}
    return weights | found.history | {"trained_steps": found.steps}


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # Lightning and torch advise on how to start processes
    folder = Path(sys.argv[1])
    shared: dict[str, Any] = {"accelerator": "cpu", "devices": 2, "strategy": "ddp"}
    found = trained(**shared)
    rank = torch.distributed.get_rank()
    np.savez(folder / f"{rank}.npz", **found)
    adata = pf.datasets.simulated_perturb_seq(n_cells=200, n_genes=12, n_perturbations=2, n_combinations=1)
    pf.pp.setup_perturbation(adata, perturbation_key="perturbation", control="control")
    quick: dict[str, Any] = {
        "model_kwargs": {"width": 8, "n_blocks": 1},
        "max_steps": 4,
        "plan_kwargs": {"batch_size": 16, "calibrate": False},
    }
    quick |= {"store": folder / "store", "checkpoint": folder / "checkpoint"}
    pf.tl.fit_flow(adata, **quick, trainer_kwargs=shared, progress_bar=False)
    (folder / f"{rank}.json").write_text(json.dumps(sorted(adata.uns["flow"])))
    np.savez(folder / f"{rank}_weights.npz", **read_flow(adata).to_dict()["weights"])
