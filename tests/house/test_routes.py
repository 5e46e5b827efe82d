"""How far a call of the four main functions goes through the house: which files it enters, and what it reads again."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import perturbflow as pf

if TYPE_CHECKING:
    from collections.abc import Callable

HOUSE = str(Path(pf.__file__).parent) + "/"

# At most so many rooms and files. More files are fine where a room has more to do; another room is a longer route.
MOST = {
    "fit_flow": (7, 72),
    "predict_perturbation": (5, 45),
    "evaluate": (8, 56),
    "infer_graph": (7, 34),
}


def route(function: Callable[[], object]) -> Counter[tuple[str, str]]:
    """Calls by file and function, of everything in the house that runs in this thread."""
    calls: Counter[tuple[str, str]] = Counter()

    def notice(frame, event, argument):
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(HOUSE):
            calls[code.co_filename.removeprefix(HOUSE), code.co_name] += 1

    before = sys.getprofile()
    sys.setprofile(notice)
    try:
        function()
    finally:
        sys.setprofile(before)
    return calls


@pytest.fixture(scope="module")
def routes() -> dict[str, Counter[tuple[str, str]]]:
    screen = pf.datasets.simulated_perturb_seq(n_cells=400, n_genes=20, n_perturbations=4, n_combinations=4)
    pf.pp.setup_perturbation(screen, perturbation_key="perturbation", control="control")
    pf.pp.split_perturbations(screen, task="combination", test_fraction=0.25, valid_fraction=0.5)
    courses = pf.datasets.hill_network(n_genes=4, n_trajectories=4, n_times=12)
    pf.pp.setup_dynamics(courses, time_key="time", trajectory_key="trajectory")
    pf.tl.fit_dynamics(courses, effort=0.02, strength=0.002, eliminate=False, progress_bar=False)
    label = screen.obs.loc[screen.obs["split"] == "test", "perturbation"].iloc[0]
    scores: Any = {
        "metrics": ["rmse_of_mean_effects"],
        "baselines": ["mean effect"],
        "n_permutations": 2,
        "n_resamples": 2,
    }
    calls: dict[str, Callable[[], object]] = {
        "fit_flow": lambda: pf.tl.fit_flow(screen, max_steps=2, progress_bar=False),
        "predict_perturbation": lambda: pf.tl.predict_perturbation(screen, label),
        "evaluate": lambda: pf.tl.evaluate(screen, progress_bar=False, **scores),
        "infer_graph": lambda: pf.tl.infer_graph(courses),
    }
    return {name: route(call) for name, call in calls.items()}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", MOST)
def test_routes_are_short(routes, name):
    files = {file for file, _ in routes[name]}
    rooms = {file.split("/")[0] for file in files if "/" in file}
    n_rooms, n_files = MOST[name]
    assert len(rooms) <= n_rooms, sorted(rooms)
    assert len(files) <= n_files, sorted(files)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_cells_are_read_once_by_a_fit(routes):
    calls = routes["fit_flow"]
    assert calls["screen/_fields.py", "read_fields"] == 1
    assert calls["screen/_fields.py", "read_screen"] == 1
