"""Several devices share a fit."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perturbflow.flow import AdditiveHurdlePrior, CellData, ConditionalFlow, FlowConfig, TrainingSettings
from perturbflow.train._train_flow import train_flow

SCRIPT = Path(__file__).parent / "_ddp_script.py"


def run(n_devices: int, folder: Path) -> dict:
    output = folder / f"{n_devices}.npz"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "COV"))}
    command = [sys.executable, str(SCRIPT), str(n_devices), str(output)]
    done = subprocess.run(
        command, env=environment | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(np.load(output))


def test_two_processes_give_the_fit_of_one(tmp_path):
    one, two = run(1, tmp_path), run(2, tmp_path)
    assert one["trained_steps"] == two["trained_steps"] == 30
    assert one.keys() == two.keys()
    for name in one.keys() - {"seconds"}:
        np.testing.assert_allclose(two[name], one[name], rtol=1e-5, atol=1e-5, err_msg=name)


def test_a_batch_that_devices_cannot_share_is_refused():
    cells = CellData(np.ones((30, 2)), np.arange(30)[:, None] % 2, np.zeros((30, 0), dtype=int))
    flow = ConditionalFlow(FlowConfig(2, 1, (), width=4), AdditiveHurdlePrior.fit(cells))
    from perturbflow.train._flow_data import FlowData

    class Pretends(FlowData):
        def setup(self, stage):
            strategy: Any = self.trainer.strategy
            self.trainer: Any = type("Trainer", (), {"world_size": 2, "strategy": strategy})()
            super().setup(stage)

    with pytest.raises(ValueError, match="`batch_size` to be a multiple of the 2 devices that share it, found 7"):
        train_flow(flow, cells, TrainingSettings(max_steps=2, batch_size=7), data_class=Pretends)
