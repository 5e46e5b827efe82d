from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perturbflow.pp import assign_lineages, bin_pseudotime, setup_dynamics
from perturbflow.tl import forecast, infer_graph, simulate_knockout

from .strategies import ODD_NAMES, attempt, disguises, few, fewer, matrices, timed_cells

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # of AnnData, and what the package says

KEYS = {
    "time_key": ("time", "time", "time", "absent"),
    "trajectory_key": (None, "trajectory", "trajectory", "time"),
    "perturbation_key": (None, None, "held"),
}


@pytest.fixture(scope="session")
def courses(_time_courses):
    return _time_courses


@pytest.fixture(scope="session")
def dynamics(_fitted_dynamics):
    return _fitted_dynamics


@few
@given(data=st.data())
def test_times_are_registered_and_binned_or_refused(data, unchanged):
    adata = data.draw(timed_cells())
    keys = {name: data.draw(st.sampled_from(some)) for name, some in KEYS.items()}
    prior = data.draw(
        st.sampled_from(
            (
                None,
                None,
                pd.DataFrame({"source": ["g0"], "target": ["g1"]}),
                pd.DataFrame({"source": ["g0"], "target": ["g1"], "weight": [np.inf]}),
                pd.DataFrame({"source": [1], "target": [None], "weight": ["a"]}),
                pd.DataFrame(),
            )
        )
    )
    regulators = data.draw(st.sampled_from((None, None, ["g0"], [], "g0", ["x"])))
    n_bins = data.draw(st.sampled_from((3, 5, 0, 2.5)))
    with unchanged(adata):
        found = attempt(setup_dynamics, adata, **keys, prior=prior, regulators=regulators, copy=True)
        attempt(bin_pseudotime, adata, **keys, n_bins=n_bins, drop_missing=data.draw(st.booleans()))
    if not isinstance(found, Exception):
        with unchanged(found):
            attempt(
                infer_graph, found, method=data.draw(st.sampled_from(("correlation", "partial_correlation"))), copy=True
            )
    n_lineages = data.draw(st.sampled_from((0, 1, 2)))
    fates = data.draw(matrices((adata.n_obs, n_lineages)))
    if isinstance(fates, np.ndarray) and data.draw(st.booleans()):
        fates = pd.DataFrame(fates, index=adata.obs_names, columns=data.draw(st.permutations(ODD_NAMES))[:n_lineages])
    adata = adata.copy()
    adata.obsm["fates"] = fates
    names = data.draw(st.sampled_from((None, ["a", "b"], ["a"], "ab", ["a", "a"])))
    with unchanged(adata):
        attempt(assign_lineages, adata, "fates", time_key="time", names=names)


@fewer
@given(data=st.data())
def test_times_and_bins_do_not_depend_on_order_and_containers(data, courses):
    other, cells, genes = data.draw(disguises(courses))
    expected, found = (
        bin_pseudotime(each, time_key="time", trajectory_key="trajectory", perturbation_key="perturbation", n_bins=4)
        for each in (courses, other)
    )
    pd.testing.assert_frame_equal(found.obs, expected.obs, check_dtype=False, check_categorical=False)
    np.testing.assert_allclose(found.X, expected.X[:, genes], rtol=1e-5)
    expected, found = courses.copy(), other.copy()
    for each in (expected, found):
        infer_graph(each, method="correlation")
    weights = [each.varp["dynamics_graph"].toarray() for each in (expected, found)]
    np.testing.assert_allclose(weights[1], weights[0][np.ix_(genes, genes)], atol=1e-5)


@few
@given(data=st.data())
def test_starts_are_solved_or_refused(data, dynamics, unchanged):
    adata = dynamics
    n, d = data.draw(st.sampled_from((0, 1, 2))), data.draw(st.sampled_from((5, 5, 5, 0, 4)))
    start = data.draw(matrices((n, d), every_container=True))
    if isinstance(start, np.ndarray) and start.ndim == 2:
        names = data.draw(
            st.sampled_from((list(adata.var_names), list(adata.var_names)[::-1], ["gene0"] * 5, [*"abcde"]))
        )
        kind = data.draw(st.sampled_from(("array", "table", "row", "Series", "list")))
        start = {
            "array": lambda: start,
            "table": lambda: pd.DataFrame(start, columns=names[:d]),
            "row": lambda: np.ravel(start)[:d],
            "Series": lambda: pd.Series(np.ravel(start)[:d], index=names[: min(d, start.size)]),
            "list": lambda: start.tolist(),
        }[kind]()
    until = data.draw(st.sampled_from((None, None, 0, -1.0, np.nan, 1e9, "5", True)))
    with unchanged(adata):
        attempt(
            forecast, adata, start=start, until=until, n_times=data.draw(st.sampled_from((5, 2, 1, 2.0))), copy=True
        )
        genes = data.draw(
            st.sampled_from(
                (
                    "gene0",
                    ["gene0", "gene1"],
                    ["gene0"] * 2,
                    [],
                    "x",
                    {"gene0": 1e38},
                    {"gene0": np.nan},
                    {"gene0": "1"},
                    3,
                )
            )
        )
        kind = data.draw(st.sampled_from(("knockout", "knockdown", "overexpression", "")))
        attempt(simulate_knockout, adata, genes, kind=kind, start=start, n_times=5, copy=True)
