"""The search of scvi-tools over settings runs on PRiMeFlow as on its own models."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).with_name("_autotune_script.py")


def test_search_tries_settings_of_model_and_training(tmp_path):
    run = subprocess.run(
        [sys.executable, "-W", "ignore", str(SCRIPT), str(tmp_path)],
        check=False,
        capture_output=True,
        text=True,
        env=os.environ,
    )
    assert run.returncode == 0, run.stderr
    trials = json.loads(run.stdout.splitlines()[-1])
    assert [(trial["width"], trial["learning_rate"]) for trial in trials] == [(8, 1e-3), (16, 1e-2)]
    assert len({trial["metric"] for trial in trials}) == 2  # a number for each, and each of its own
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"trial_{i}" for i in (1, 2)]  # of the loggers
