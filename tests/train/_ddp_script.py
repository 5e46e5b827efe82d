"""Trains a small flow on the devices that the command line asks for; run by a test."""

from __future__ import annotations

import os
import sys
import warnings
from typing import Any

import numpy as np

from perturbflow.flow import AdditiveHurdlePrior, CellData, ConditionalFlow, FlowConfig, TrainingSettings
from perturbflow.train._train_flow import train_flow

if __name__ == "__main__":
    warnings.simplefilter("ignore")  # Lightning and torch advise on how to start processes
    n_devices, output = int(sys.argv[1]), sys.argv[2]
    rng = np.random.default_rng(0)
    perturbed = np.arange(300) % 3 == 0
    x = rng.gamma(1.0, size=(300, 6)).astype(np.float32) * (rng.random((300, 6)) < 0.5 + 0.3 * perturbed[:, None])
    cells = CellData(x, perturbed[:, None], np.zeros((300, 0), dtype=int))
    flow = ConditionalFlow(FlowConfig(6, 1, (), width=16), AdditiveHurdlePrior.fit(cells))

    def score(flow: ConditionalFlow) -> float:
        """A score that depends on the weights."""
        return float(sum(weight.abs().sum() for weight in flow.network.state_dict().values()))

    options: dict[str, Any] = {"accelerator": "cpu", "devices": n_devices} | (
        {"strategy": "ddp"} if n_devices > 1 else {}
    )
    settings = TrainingSettings(max_steps=30, batch_size=32, validate_every=5, warmup_steps=4, learning_rate=1e-2)
    trained = train_flow(flow, cells, settings, validate=score, trainer_options=options)
    if os.environ.get("LOCAL_RANK", "0") == "0":
        weights: dict[str, Any] = {name: tensor.numpy() for name, tensor in flow.network.state_dict().items()}
        np.savez(output, **(weights | trained.history | {"trained_steps": trained.steps}))
