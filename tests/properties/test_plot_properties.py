from __future__ import annotations

from inspect import signature
from typing import Any

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from hypothesis import given
from hypothesis import strategies as st

from perturbflow import pl
from perturbflow.tl import export_evaluation, to_networkx, write_cell_eval

from .strategies import ODD_NAMES, few, logged

ENTRIES: tuple[Any, ...] = (
    None,
    {},
    [],
    3,
    "text",
    np.zeros(3),
    pd.DataFrame(),
    pd.DataFrame({"model": ["a"]}),
    {"edges": None},
    {"edges": 3},
)
KEYS = {
    name: next(p for p in signature(getattr(pl, name)).parameters.values() if p.name in ("key", "keys"))
    for name in pl.__all__
    if name != "skeleton"  # which draws no result
}


@pytest.mark.parametrize("name", KEYS)
@few
@given(data=st.data())
def test_results_that_are_absent_or_something_else_are_refused(name, data, unchanged):
    n, d = data.draw(st.sampled_from((0, 1, 4))), data.draw(st.sampled_from((0, 1, 5)))
    adata = AnnData(logged(n, d, seed=0))
    default = KEYS[name].default if isinstance(KEYS[name].default, str) else "dynamics_graph"
    key = data.draw(st.sampled_from((default, *ODD_NAMES[:4])))
    if data.draw(st.booleans()):
        adata.uns[key] = data.draw(st.sampled_from(ENTRIES))
    arguments: dict[str, list[Any]] = {"trajectories": [["gene0"]], "precision_recall": ["truth"]}
    named = arguments.get(name, ["A"] if "perturbation" in signature(getattr(pl, name)).parameters else [])
    with unchanged(adata), pytest.raises((KeyError, TypeError, ValueError), match="^['\"]?Expected"):
        getattr(pl, name)(adata, *named, **{KEYS[name].name: key if KEYS[name].name == "key" else [key, key]})


@few
@given(entry=st.sampled_from(ENTRIES), key=st.sampled_from(("evaluation", "dynamics_graph", "predicted", "")))
def test_results_that_are_something_else_are_not_written(entry, key, tmp_path_factory):
    adata, folder = AnnData(logged(2, 2, seed=0), uns={key: entry}), tmp_path_factory.getbasetemp()
    for write in (
        lambda: export_evaluation(adata, folder / "scores.csv", key=key),
        lambda: to_networkx(adata, key=key),
        lambda: write_cell_eval(adata, folder / "cells.h5ad", key=key),
    ):
        with pytest.raises((KeyError, TypeError, ValueError), match="^['\"]?Expected"):
            write()
