from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from hypothesis import given
from hypothesis import strategies as st

from perturbflow.pp import (
    check_split,
    perturbation_features,
    setup_perturbation,
    split_perturbations,
    split_scenario,
)

from .strategies import ODD_NAMES, attempt, disguises, few, fewer, logged, matrices, perturbed_cells

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # of AnnData, and what the package says

TASKS = ("combination", "covariate_transfer", "unseen_perturbation", "cells")
SCENARIOS = ("perturbench_norman19", "perturbench_srivatsan20", "perturbench_jiang24", "leave_one_out")
HELD_OUT: tuple[Any, ...] = (
    None,
    ["A+B"],
    "A",
    [],
    [("A", {"context": "B"})],
    {"context": "B"},
    pd.DataFrame({"perturbation": ["A+B"]}),
)


@few
@given(data=st.data())
def test_cells_are_registered_and_divided_or_refused(data, unchanged):
    adata = data.draw(perturbed_cells())
    options = {
        "perturbation_key": data.draw(st.sampled_from(("p", "p", "p", "absent"))),
        "control": data.draw(st.sampled_from(("control", "control", ["control"], ["control", "A"], "A+B", "", []))),
        "covariate_keys": data.draw(st.sampled_from(((), ["context"], "context"))),
        "dose_key": data.draw(st.sampled_from((None, None, "dose"))),
        "perturbation_type_key": data.draw(st.sampled_from((None, None, "type"))),
        "separator": data.draw(st.sampled_from(("+", "+", "_", " ", "|"))),
    }
    with unchanged(adata):
        found = attempt(setup_perturbation, adata, **options, copy=True)
    if isinstance(found, Exception):
        return
    divided(data, found, unchanged)


def divided(data, adata, unchanged):
    held_out = data.draw(st.sampled_from(HELD_OUT))
    split: Callable[..., Any]
    if data.draw(st.booleans()):
        options = {"task": data.draw(st.sampled_from(TASKS)), "held_out": held_out}
        split = split_perturbations
    else:
        options = {"scenario": data.draw(st.sampled_from(SCENARIOS)), "held_out": held_out}
        split = split_scenario
    with unchanged(adata):
        found = attempt(split, adata, **options, copy=True)
        if not isinstance(found, Exception):
            check_split(found)
    n = len(adata.uns["perturbation_fields"]["vocabulary"]["components"])
    rows = data.draw(st.sampled_from((0, 1, n, n + 1)))
    names = [*adata.uns["perturbation_fields"]["vocabulary"]["components"], *ODD_NAMES]
    table = pd.DataFrame(
        data.draw(matrices((rows, 3), every_container=False).filter(lambda x: isinstance(x, np.ndarray))),
        index=names[:rows],
    )
    with unchanged(adata):
        attempt(perturbation_features, adata, table, missing=data.draw(st.sampled_from(("error", "mean"))), copy=True)


def screen(seed: int, *, n: int = 48) -> AnnData:
    rng = np.random.default_rng(seed)
    p = np.array(
        [*("control", "control", "A", "B", "A+B", "C", "A+C", "α β"), *rng.choice(["control", "A", "B"], n - 8)]
    )
    obs = pd.DataFrame({"p": p, "context": "B", "dose": rng.choice([1.0, 10.0], n)}, index=[f"c{i}" for i in range(n)])
    obs.iloc[n // 2 :, 1] = "T"
    obs.iloc[-1, 0] = "control"
    return AnnData(logged(n, 6, seed=seed), obs=obs, var=pd.DataFrame(index=[f"g{i}" for i in range(6)]))


@fewer
@given(data=st.data())
def test_registration_and_splits_do_not_depend_on_order_and_containers(data):
    adata = screen(data.draw(st.integers(0, 9)))
    other, cells, genes = data.draw(disguises(adata))
    options = {
        "perturbation_key": "p",
        "control": "control",
        "covariate_keys": data.draw(st.sampled_from(((), ["context"]))),
        "dose_key": data.draw(st.sampled_from((None, "dose"))),
    }
    task = data.draw(st.sampled_from(TASKS[:3] if options["covariate_keys"] else TASKS[::2]))
    for each in (adata, other):
        attempt(setup_perturbation, each, **options)
        result = attempt(split_perturbations, each, task=task)
        assert result is None, result
    assert other.uns["perturbation_fields"] == adata.uns["perturbation_fields"]
    expected = adata.obsm["perturbation_doses"][cells].toarray()
    np.testing.assert_array_equal(other.obsm["perturbation_doses"].toarray(), expected)
    np.testing.assert_array_equal(other.obs["split"], adata.obs["split"].iloc[cells])
    assert other.uns["split"]["hash"] == adata.uns["split"]["hash"]
    pd.testing.assert_frame_equal(other.uns["split"]["held_out"], adata.uns["split"]["held_out"])
