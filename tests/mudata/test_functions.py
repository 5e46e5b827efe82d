"""Every function does to a modality of a MuData what it does to the AnnData alone, from the first call to the last."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import perturbflow as pf

LAYERS = ("pp", "tl", "pl")
COMBINATION = "A+B"


@dataclass
class Step:
    """One call: the function by its name, such as "tl.fit_flow", and its arguments; "FOLDER/" stands for a folder."""

    name: str
    args: tuple = ()
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def function(self):
        layer, name = self.name.split(".")
        return getattr(getattr(pf, layer), name)

    def run(self, cells, folder: Path, **modality):
        args = [
            folder / value.removeprefix("FOLDER/") if isinstance(value, str) and value.startswith("FOLDER/") else value
            for value in self.args
        ]
        return self.function(cells, *args, **self.options, **modality)


def step(name, *args, **options):
    return Step(name, args, options)


def screen() -> AnnData:
    adata = pf.datasets.simulated_perturb_seq(n_cells=400, n_genes=20, n_perturbations=4, n_combinations=3, seed=3)
    labels = adata.obs["perturbation"].astype(str)
    parts = sorted({part for label in labels if label != "control" for part in label.split("+")})
    for part, letter in zip(parts, "ABCD", strict=True):
        labels = labels.str.replace(part, letter)
    del adata.obs["perturbation"]  # which guides tell
    adata.obs["guide"] = labels.str.replace(r"([A-D])", r"\1_g1", regex=True).astype("category")
    return adata


FEATURES = pd.DataFrame(np.eye(4, 2), index=list("ABCD"))
EVALUATE: dict[str, Any] = {"n_resamples": 5, "n_permutations": 5, "n_cells": 30, "n_steps": 2, "progress_bar": False}
EVALUATE |= {"metrics": ["energy_distance", "rmse_of_mean_effects"], "baselines": ["mean effect"]}
FLOW = [
    step("pp.guides_to_genes", "guide", key_added="perturbation"),
    step("pp.setup_perturbation", perturbation_key="perturbation", control="control", covariate_keys=["cell_type"]),
    step("pp.perturbation_features", FEATURES),
    step("pp.split_perturbations", task="combination", test_fraction=0.4, valid_fraction=0.4),
    step("pp.check_split"),
    step("pp.split_scenario", "perturbench_combination", key_added="scenario", fraction=0.7),
    step(
        "tl.fit_flow",
        model_kwargs={"width": 16, "n_blocks": 1, "parametrisation": "velocity"},
        max_steps=2,
        plan_kwargs={"calibrate": False},
        progress_bar=False,
    ),
    step("tl.predict_perturbation", [COMBINATION, "A"], as_anndata=True, n_cells=5),
    step("tl.predict_perturbation", COMBINATION, n_steps=2),
    step("tl.evaluate", **EVALUATE),
    step("tl.export_evaluation", "FOLDER/table.csv"),
    step("tl.write_cell_eval", "FOLDER/cells.h5ad"),
    step("tl.rank_perturbations", {"perturbation": "A"}),
    step("tl.next_perturbations", n=2),
    step("tl.interaction_scores", ["A+B"]),
    step("tl.explain_response", min_cells=4, n_resamples=5),
    step("pl.interaction_scores", source="predicted"),
    step("pl.response_parts", n_top=3),
    step("pl.training"),
    step("pl.guidance"),
    step("pl.calibration", min_cells=4),
    step("pl.evaluation"),
    step("pl.leaderboard", split="test"),
    step("pl.metric_ranks", split="test"),
    step("pl.verdicts", split="test"),
    step("pl.perturbation_effect", COMBINATION),
    step("pl.expression", COMBINATION),
    step("pl.embedding", COMBINATION),
    step("pl.responders", COMBINATION),
    step("pl.ranked_perturbations"),
    step("tl.summarise"),
    step("tl.report", "FOLDER/report.html", progress_bar=False),
]
DOSES = [
    step("pp.setup_perturbation", perturbation_key="perturbation", control="control", dose_key="dose"),
    step("pp.split_perturbations", task="cells"),
    step("tl.fit_flow", preset="prior", plan_kwargs={"calibrate": False}, progress_bar=False),
    step("tl.dose_response", "gene_1", ["A"]),
    step("pl.dose_response", "A"),
]
DYNAMICS = [
    step("pp.assign_lineages", "fates", time_key="time", names=["left", "right"]),
    step("pp.bin_pseudotime", time_key="time", trajectory_key="trajectory", n_bins=5),
    step("pp.setup_dynamics", time_key="time", trajectory_key="trajectory"),
    step(
        "tl.fit_dynamics",
        plan_kwargs={"strengths": [0.01, 0.02], "n_candidates": 2},
        effort=0.01,
        progress_bar=False,
    ),
    step("tl.infer_graph", n_bootstraps=1),
    step("tl.infer_graph", method="correlation", key_added="correlation"),
    step("tl.to_networkx"),
    step("tl.graph_table", min_confidence=0),
    step("tl.forecast"),
    step("tl.simulate_knockout", "gene1"),
    step("pl.sparsity_path"),
    step("pl.dynamics_graph"),
    step("pl.precision_recall", "true_graph"),
    step("pl.graph_comparison", ["dynamics_graph", "correlation"]),
    step("pl.edge_stability"),
    step("pl.regulators"),
    step("pl.trajectories", "gene0"),
    step("pl.knockout_response"),
]


def doses() -> AnnData:
    """One drug at four doses."""
    rng = np.random.default_rng(0)
    obs = pd.DataFrame({"dose": np.repeat(["0", "1", "3", "10", "30"], 40)}, index=[f"cell{k}" for k in range(200)])
    obs["perturbation"] = np.where(obs["dose"] == "0", "control", "A")
    x = rng.normal(3 + np.log1p(obs["dose"].astype(float).to_numpy())[:, None] * [0.3, 0.0], 0.3)
    return AnnData(x.astype(np.float32), obs=obs, var=pd.DataFrame(index=["gene_1", "gene_2"]))


def motion() -> AnnData:
    """Twenty frames of two joints."""
    names = [f"{joint}_{axis}" for joint in ("knee", "foot") for axis in "xyz"]
    return AnnData(
        np.random.default_rng(0).normal(size=(20, 6)),
        obs=pd.DataFrame({"sequence": "a", "time": np.arange(20.0)}, index=[f"frame{k}" for k in range(20)]),
        var=pd.DataFrame({"joint": np.repeat(["knee", "foot"], 3), "axis": list("xyz") * 2}, index=names),
        uns={"joints": pd.DataFrame({"joint": ["knee", "foot"], "parent": ["root", "knee"]})},
    )


def time_courses() -> AnnData:
    adata = pf.datasets.hill_network(n_genes=4, n_trajectories=4, n_times=12, seed=1)
    adata.obsm["fates"] = np.random.default_rng(0).dirichlet([1, 1], adata.n_obs)
    return adata


COURSES = {
    "flow": (screen, FLOW),
    "doses": (doses, DOSES),
    "dynamics": (time_courses, DYNAMICS),
    "motion": (motion, [step("pl.skeleton", "a", n_poses=3)]),
}


def drawn(result) -> list:
    """What a plot shows, as far as it can be compared."""
    axes = result.axes if isinstance(result, Figure) else np.ravel(np.array(result, dtype=object))
    assert all(isinstance(ax, Axes) for ax in axes)
    assert any(ax.has_data() for ax in axes)
    return [
        (ax.get_title(), ax.get_xlim(), ax.get_ylim(), [np.asarray(line.get_xydata()).tolist() for line in ax.lines])
        for ax in axes
    ]


def test_no_function_is_left_out():
    tested = {each.name for _, steps in COURSES.values() for each in steps}
    assert tested == {f"{layer}.{name}" for layer in LAYERS for name in getattr(pf, layer).__all__}


@pytest.mark.filterwarnings("ignore:Left out .* conditions with too few cells")
@pytest.mark.parametrize("course", COURSES)
def test_modality_gets_what_the_cells_alone_get(course, with_protein, assert_same_cells, tmp_path):
    make, steps = COURSES[course]
    adata, mdata = make(), with_protein(make())
    names, columns = list(mdata.mod), list(mdata.obs)
    protein = mdata["protein"].copy()
    folders = [tmp_path / "alone", tmp_path / "modality"]
    for folder in folders:
        folder.mkdir()
    for each in steps:
        alone = each.run(adata, folders[0])
        found = each.run(mdata, folders[1], modality="rna")
        assert type(found) is type(alone), each.name
        if isinstance(alone, AnnData):
            assert_same_cells(found, alone)
        elif isinstance(alone, nx.Graph):
            assert nx.utils.graphs_equal(found, alone)
        elif isinstance(alone, pd.DataFrame):
            pd.testing.assert_frame_equal(found, alone)
        elif each.name in {"tl.summarise", "tl.report"}:
            assert str(found) == str(alone).replace("/alone/", "/modality/")
        elif alone is not None:
            np.testing.assert_equal(drawn(found), drawn(alone))
            plt.close("all")
        for cells in (adata, mdata["rna"]):
            cells.uns.get("flow", {}).get("history", {}).pop("seconds", None)  # how long the fit took
        assert_same_cells(mdata["rna"], adata)
    for path in folders[0].iterdir():
        if path.suffix == ".csv":
            assert (folders[1] / path.name).read_bytes() == path.read_bytes()
        assert (folders[1] / path.name).is_file()
    assert_same_cells(mdata["protein"], protein)
    assert (list(mdata.mod), list(mdata.obs), dict(mdata.uns)) == (names, columns, {})
