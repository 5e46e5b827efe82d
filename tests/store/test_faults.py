"""Killed fits, writers of one store and damaged files, in short: the benchmark of them with small numbers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "faults.py"


def test_nothing_is_lost_and_nothing_damaged_is_read(tmp_path):
    options = ("--half", "dynamics", "--kills", "1", "--writer-seconds", "0.5", "--fuzz-minutes", "0.05")
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *options],
        cwd=tmp_path,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "All as it should be." in done.stdout
    for loader in (
        "flow in a store",
        "flow in uns",
        "flow in an h5ad file",
        "dynamics in uns",
        "checkpoint of dynamics",
    ):
        assert f"| {loader} |" in done.stdout
