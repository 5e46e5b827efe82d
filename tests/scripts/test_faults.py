"""Killed fits, writers of one store and damaged files, in short: the benchmark of them with small numbers."""

from __future__ import annotations

from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "faults.py"


def test_nothing_is_lost_and_nothing_damaged_is_read(run, tmp_path):
    options = ("--half", "dynamics", "--kills", "1", "--writer-seconds", "0.5", "--fuzz-minutes", "0.05")
    output = run(str(SCRIPT), *options, TMPDIR=str(tmp_path))
    assert "All as it should be." in output
    for loader in (
        "flow in a store",
        "flow in uns",
        "flow in an h5ad file",
        "dynamics in uns",
        "checkpoint of dynamics",
    ):
        assert f"| {loader} |" in output
