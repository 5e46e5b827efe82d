"""Several devices share a fit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perturbflow.flow import AdditiveHurdlePrior, CellData, ConditionalFlow, FlowConfig, TrainingSettings
from perturbflow.train import train_flow

from ._ddp_script import trained

SCRIPT = Path(__file__).parent / "_ddp_script.py"


@pytest.fixture(scope="module")
def in_two_processes(tmp_path_factory) -> Path:
    """Where two processes have left what they found."""
    folder = tmp_path_factory.mktemp("ddp")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "COV"))}
    command = [sys.executable, str(SCRIPT), str(folder)]
    done = subprocess.run(
        command, env=environment | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


def test_two_processes_give_the_fit_of_one(in_two_processes):
    one, two = trained(accelerator="cpu", devices=1), dict(np.load(in_two_processes / "0.npz"))
    assert one["trained_steps"] == two["trained_steps"] == 30
    assert one.keys() == two.keys()
    for name in one.keys() - {"seconds"}:
        np.testing.assert_allclose(two[name], one[name], rtol=1e-5, atol=1e-5, err_msg=name)


def test_the_first_process_alone_writes_files(in_two_processes):
    entries = [json.loads((in_two_processes / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert entries[0] == ["id", "store"]
    assert "weights" in entries[1]
    first, second = (np.load(in_two_processes / f"{rank}_weights.npz") for rank in (0, 1))
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)
    assert len(list((in_two_processes / "store").iterdir())) == 1
    assert not (in_two_processes / "checkpoint").exists()


def test_a_batch_that_devices_cannot_share_is_refused():
    cells = CellData(np.ones((30, 2)), np.arange(30)[:, None] % 2, np.zeros((30, 0), dtype=int))
    flow = ConditionalFlow(FlowConfig(2, 1, (), width=4), AdditiveHurdlePrior.fit(cells))
    from perturbflow.train._flow_plan import FlowData

    class Pretends(FlowData):
        def setup(self, stage):
            strategy: Any = self.trainer.strategy
            self.trainer: Any = type("Trainer", (), {"world_size": 2, "strategy": strategy})()
            super().setup(stage)

    with pytest.raises(ValueError, match="`batch_size` to be a multiple of the 2 devices that share it, found 7"):
        train_flow(flow, cells, TrainingSettings(max_steps=2, batch_size=7), data_class=Pretends)
