from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

from perturbflow import tl
from perturbflow.datasets import simulated_perturb_seq
from perturbflow.evaluation import registered_cells
from perturbflow.metrics import METRICS
from perturbflow.pl._predictions import read_comparison
from perturbflow.pp import setup_perturbation
from perturbflow.screen import read_fields


def write_prediction(adata, label, *, key="predicted", cell_types=None):
    """Write a prediction as the tool does: for every control cell a real cell of the condition."""
    rng = np.random.default_rng(0)
    cells: Any = registered_cells(adata)
    vector = read_fields(adata).vocabulary.encode_perturbations([label]).toarray()
    observed = np.flatnonzero((cells.perturbations.toarray() == vector).all(axis=1))
    predicted = np.full(adata.shape, np.nan, dtype=np.float32)
    is_control = (adata.obs["perturbation"] == "control").to_numpy()
    for cell_type in cell_types or adata.obs["cell_type"].unique():
        of_type = (adata.obs["cell_type"] == cell_type).to_numpy()
        rows = np.flatnonzero(is_control & of_type)
        predicted[rows] = cells.x[rng.choice(observed[of_type[observed]], len(rows))].toarray()
    adata.obsm[key] = sparse.csr_matrix(np.nan_to_num(predicted))
    adata.varm[f"{key}_sd"] = pd.DataFrame({label: 0.1}, index=adata.var_names)
    adata.uns[key] = {"perturbations": [label], "obsm": [key], "params": {}}


@pytest.fixture(scope="session")
def screen():
    adata = simulated_perturb_seq(n_cells=700, n_genes=50, n_perturbations=4, n_combinations=2)
    setup_perturbation(adata, perturbation_key="perturbation", control="control", covariate_keys=["cell_type"])
    adata.uns["label"] = next(label for label in sorted(adata.obs["perturbation"].unique()) if "+" in label)
    adata.obs["split"] = np.where(adata.obs["perturbation"] == adata.uns["label"], "test", "train")
    write_prediction(adata, adata.uns["label"])
    return adata


@pytest.fixture
def adata(screen):
    """A screen with a prediction of the combination ``adata.uns["label"]``, which is held out."""
    return screen.copy()


@pytest.fixture
def unobserved(adata):
    """The same without real cells of the combination."""
    return adata[(adata.obs["perturbation"] != adata.uns["label"]).to_numpy()].copy()


@pytest.fixture
def compared():
    """Reads what plots compare: control, observed and predicted cells of a perturbation."""

    def read(adata, label=None, covariates=None, key="predicted"):
        return read_comparison(adata, label or adata.uns["label"], covariates=covariates, key=key)

    return read


@pytest.fixture(scope="session")
def _judged_screen(_fitted):
    """A screen with all that a plot of perturbed cells can show."""
    adata = _fitted.copy()
    adata.uns["label"] = str(adata.uns["split"]["held_out"]["perturbation"].iloc[0])
    tl.predict_perturbation(adata, adata.uns["label"])
    metrics = ["energy_distance", "cosine_of_mean_effects"]
    tl.evaluate(adata, metrics=metrics, n_permutations=10, min_cells=5, progress_bar=False)
    tl.rank_perturbations(adata, {"perturbation": adata.uns["label"]})
    tl.explain_response(adata, min_cells=4)
    tl.interaction_scores(adata)
    adata.uns |= dose_tables()
    return adata


def dose_tables():
    """The tables of two drugs in two contexts: the first has a response, the second none."""
    fits, points, lines = [], [], []
    for drug, plateau, status in (("A", 1.0, "covered"), ("B", 0.0, "no response")):
        for context in ("T", "U"):
            for source in ("measured", "predicted"):
                about = {"perturbation": drug, "cell_type": context, "source": source}
                fits.append(about | {"ec50": 10.0, "ec50_lower": 5.0, "ec50_upper": 2000.0, "status": status})
                for dose in (1.0, 10.0, 100.0):
                    effect = plateau * dose / (dose + 10)
                    points.append(about | {"dose": dose, "effect": effect, "sd": 0.1, "n_cells": 50})
                    lines.append(about | {"dose": dose, "effect": effect, "lower": effect - 0.2, "upper": effect + 0.2})
    tables = {"": fits, "_points": points, "_curves": lines}
    uns: dict[str, Any] = {f"dose_response{suffix}": pd.DataFrame(rows) for suffix, rows in tables.items()}
    return uns | {"dose_response_params": {"level": 0.95, "readout": {"g0": 1.0}}}


@pytest.fixture
def curves():
    """Cells with these tables."""
    return AnnData(np.ones((1, 1), dtype=np.float32), uns=dose_tables())


@pytest.fixture(scope="session")
def analysed_dynamics(_fitted_dynamics):
    """Time courses with all that a plot of dynamics can show."""
    adata = _fitted_dynamics.copy()
    tl.infer_graph(adata, n_bootstraps=0)
    tl.infer_graph(adata, method="correlation", key_added="correlation")
    tl.forecast(adata)
    tl.simulate_knockout(adata, "gene0")
    return adata


@pytest.fixture(autouse=True)
def _no_change_of_global_state():
    import matplotlib.pyplot as plt

    before = dict(plt.rcParams)
    yield
    assert dict(plt.rcParams) == before


@pytest.fixture
def tables():
    """What makes the tables of an evaluation: see ``evaluated_cells``."""
    return evaluated_cells


def evaluated_cells(means, *, splits=("test",), beats=(), n_conditions=7):
    """Tables of an evaluation with these means by metric and model; ``beats`` are (model, metric) that beat baselines."""
    rows = []
    for split in splits:
        for metric, by_model in means.items():
            sign = 1 if metric not in METRICS or METRICS[metric].higher_is_better else -1
            for model, mean in by_model.items():
                difference = sign * (0.2 if (model, metric) in beats else 0.05)
                row = {"split": split, "model": model, "metric": metric, "mean": mean, "sd": 0.1}
                row |= {"n_conditions": n_conditions, "lower": mean - 0.1, "upper": mean + 0.1}
                row |= {"best_baseline": "mean effect", "difference": difference}
                rows.append(row | {"difference_lower": difference - 0.1, "difference_upper": difference + 0.1})
    adata = AnnData(np.zeros((1, 1), dtype=np.float32))
    adata.uns["evaluation_summary"] = pd.DataFrame(rows)
    adata.uns["evaluation"] = (
        adata.uns["evaluation_summary"].rename(columns={"mean": "value"}).assign(perturbation="A", n_cells=30)
    )
    return adata
