"""Other packages are handed the known cells alone, in a process of their own, and their cells come back."""

from __future__ import annotations

import dataclasses
import importlib
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import perturbflow as pf

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
HEAD = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(BENCHMARKS)!r})
from _peer_files import answer
"""
# Predicts control cells plus a hundredth of the number of iterations; fails if it is told a cell of a held-out condition.
SHIFT = """
def predict(task):
    obs = task.cells.obs[["perturbation", "cell_type"]]
    assert not len(obs.merge(task.held_out))
    return [task.controls(name).X.toarray() + task.settings["n_iterations"] / 100 for name in task.held_out["cell_type"]]
answer(Path(sys.argv[1]), predict)
"""


@pytest.fixture
def peers(monkeypatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("_peers")


@pytest.fixture
def split_cells():
    cells = pf.datasets.simulated_perturb_seq(n_cells=300, n_genes=20, n_perturbations=3, n_combinations=3)
    pf.pp.setup_perturbation(cells, perturbation_key="perturbation", control="control", covariate_keys=["cell_type"])
    pf.pp.split_scenario(cells, "perturbench_norman19", seed=0)
    return cells


def peer_of(peers, monkeypatch, tmp_path, text) -> None:
    """Put a script in the place of a package's."""
    script = tmp_path / "script.py"
    script.write_text(HEAD + text)
    changed = dataclasses.replace(peers.PEERS["scgen"], script=str(script))
    monkeypatch.setattr(peers, "PEERS", {"scgen": changed})


def test_known_cells_go_out_and_predicted_ones_come_back(peers, split_cells, monkeypatch, tmp_path):
    peer_of(peers, monkeypatch, tmp_path, SHIFT)
    found, seconds = peers.predicted_by("scgen", split_cells, seed=0, n_iterations=3, python=Path(sys.executable))
    assert seconds >= 0
    wanted = peers.held_out(split_cells)
    assert set(zip(found.obs["perturbation"], found.obs["cell_type"], strict=True)) == set(
        wanted.itertuples(index=False, name=None)
    )
    of_first = found[(found.obs[["perturbation", "cell_type"]] == wanted.iloc[0]).all(axis=1).to_numpy()]
    obs = split_cells.obs
    is_control = (obs["perturbation"] == "control") & (obs["cell_type"] == wanted["cell_type"][0])
    expected = split_cells.X[(is_control & (obs["split"] != "test")).to_numpy()].toarray() + 0.03
    np.testing.assert_allclose(np.sort(of_first.X, axis=0), np.sort(expected, axis=0), rtol=1e-6)
    pf.tl.evaluate(
        split_cells, {"shifted": found}, key=None, splits=["test"], baselines=["control cells"], n_permutations=0
    )
    assert {"shifted", "control cells", "ceiling"} <= set(split_cells.uns["evaluation"]["model"])


def test_error_of_a_package_is_told(peers, split_cells, monkeypatch, tmp_path):
    peer_of(peers, monkeypatch, tmp_path, "raise OSError('no such layer')")
    with pytest.raises(RuntimeError, match=r"(?s)Expected cells from scgen, found an error.*no such layer"):
        peers.predicted_by("scgen", split_cells, seed=0, python=Path(sys.executable))


def test_missing_environment_says_how_to_make_it(peers, monkeypatch, tmp_path):
    monkeypatch.setattr(peers, "HERE", tmp_path)
    with pytest.raises(FileNotFoundError, match="make peers"):
        peers.interpreter("cellflow")


def test_combinations_are_asked_of_packages_that_know_them(peers, split_cells):
    assert peers.PEERS["cellflow"].can_predict(split_cells)
    assert not peers.PEERS["scgen"].can_predict(split_cells)
