from __future__ import annotations

import re

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from perturbflow.trajectories import DynamicsFields, read_dynamics_fields, trajectories_of
from perturbflow.trajectories._fields import (
    DYNAMICS_FIELDS_KEY,
    DYNAMICS_PRIOR_KEY,
    finite_expression,
    mean_of_groups,
    sum_of_groups,
    time_column,
    write_dynamics_fields,
)

GENES = ["GATA1", "SPI1", "KLF1"]
FORMATS = {
    "dense": np.asarray,
    "csr_matrix": sparse.csr_matrix,
    "csc_matrix": sparse.csc_matrix,
    "csr_array": sparse.csr_array,
    "csc_array": sparse.csc_array,
}
FULL = DynamicsFields("time", trajectory_key="donor", perturbation_key="perturbation", regulators=tuple(GENES))


def make(time, *, form=np.asarray, **columns) -> AnnData:
    time = np.asarray(time)
    obs = pd.DataFrame({"time": time, **columns}, index=[f"cell_{i}" for i in range(len(time))])
    x = np.arange(3.0 * len(time)).reshape(-1, 3) % 7
    return AnnData(form(x), obs=obs, var=pd.DataFrame(index=GENES))


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
def test_cells_of_equal_time_are_averaged_and_weigh_their_number(form):
    adata = make([2.0, 0.0, 2.0, 1.0], form=form)
    x = np.arange(12.0).reshape(4, 3) % 7
    (one,) = trajectories_of(adata, DynamicsFields("time"))
    assert one.name == "all"
    assert one.time.tolist() == [0, 1, 2]
    assert one.weight.tolist() == [1, 1, 2]
    assert isinstance(one.values, np.ndarray)
    assert one.values.dtype == one.weight.dtype == np.float64
    np.testing.assert_array_equal(one.values, [x[1], x[3], (x[0] + x[2]) / 2])
    assert not one.clamped.any()


def test_order_names_and_clamped_genes():
    labels = ["SPI1+GATA1", "GATA1 + SPI1", "control", "KLF1+control", "KLF1", "control", "control", "control"]
    donors = ["2", "2", "10", "1", "1", "10", "2", "2"]
    adata = make([0, 1, 0, 0, 1, 1, 1, 0], donor=donors, perturbation=labels)
    found = trajectories_of(adata, FULL)
    assert [one.name for one in found] == ["2|control", "10|control", "1|KLF1", "2|GATA1+SPI1"]
    assert [one.clamped.tolist() for one in found] == [
        [False, False, False],
        [False, False, False],
        [False, False, True],
        [True, True, False],
    ]
    names = [one.name for one in trajectories_of(adata, DynamicsFields("time", perturbation_key="perturbation"))]
    assert names == ["all|control", "all|GATA1+SPI1", "all|KLF1"]
    names = [one.name for one in trajectories_of(adata, DynamicsFields("time", trajectory_key="donor"))]
    assert names == ["1", "2", "10"]


def test_several_controls_count_as_the_first():
    labels = ["N+1", "KLF1+N+1", "ntc", "KLF1"]
    adata = make([0, 0, 1, 1], perturbation=labels)
    fields = DynamicsFields("time", perturbation_key="perturbation", control="ntc", other_controls=("N+1",))
    controls, knockout = trajectories_of(adata, fields)
    assert (controls.name, knockout.name) == ("all|ntc", "all|KLF1")
    np.testing.assert_array_equal(controls.values, adata.X[[0, 2]])
    np.testing.assert_array_equal(knockout.values, adata.X[[1, 3]])
    assert DynamicsFields.from_dict(fields.to_dict()) == fields


def test_another_layer_separator_and_control():
    adata = make([0, 1, 0, 1], perturbation=["ntc", "ntc", "KLF1,SPI1", "SPI1,KLF1"])
    adata.layers["smooth"] = adata.X + 1
    fields = DynamicsFields("time", perturbation_key="perturbation", control="ntc", separator=",", layer="smooth")
    wild, perturbed = trajectories_of(adata, fields)
    assert (wild.name, perturbed.name) == ("all|ntc", "all|KLF1,SPI1")
    assert perturbed.clamped.tolist() == [False, True, True]
    np.testing.assert_array_equal(wild.values, adata.X[:2] + 1)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.sampled_from("ab"), st.sampled_from(["control", "KLF1"])), min_size=1),
    st.randoms(use_true_random=False),
    st.sampled_from(sorted(FORMATS)),
)
def test_the_order_of_cells_does_not_matter(cells, random, form):
    cells = cells + [(time, donor, label) for time in (0, 9) for _, donor, label in cells]  # two times at least
    time, donor, label = zip(*cells, strict=True)
    adata = make(np.array(time, dtype=float), form=FORMATS[form], donor=donor, perturbation=label)
    order = list(range(len(cells)))
    random.shuffle(order)
    before, after = trajectories_of(adata, FULL), trajectories_of(adata[order].copy(), FULL)
    assert [one.name for one in before] == [one.name for one in after]
    assert sum(one.weight.sum() for one in before) == len(cells)
    for one, other in zip(before, after, strict=True):
        assert (np.diff(one.time) > 0).all()
        np.testing.assert_array_equal(one.time, other.time)
        np.testing.assert_array_equal(one.weight, other.weight)
        np.testing.assert_allclose(one.values, other.values, rtol=1e-12)


def test_names_that_would_be_confused_are_refused():
    donors = ["a", "a", "a|KLF1", "a|KLF1"]
    adata = make([0, 1, 0, 1], donor=donors, perturbation=["KLF1|KLF1"] * 2 + ["KLF1"] * 2)
    with pytest.raises(ValueError, match=r"names of trajectories to be unique, found repeated \['a\|KLF1\|KLF1'\]"):
        trajectories_of(adata, FULL)


@pytest.mark.parametrize(
    "times",
    [
        [0, 6, 12],
        [0.0, 6.0, 12.0],
        ["0", "6.0", "12"],
        pd.Categorical(["0", "6", "12"], categories=["12", "6", "0"]),
        pd.Categorical([0, 6, 12]),
        pd.Categorical(["0", "6", "12"], categories=["iPSC", "12", "0", "6"]),
        pd.Categorical([0, 6, 12], categories=[0, 6, 12, np.inf], ordered=True),
        pd.array([0, 6, 12], dtype="Int64"),
    ],
    ids=[
        "integers",
        "floats",
        "text",
        "categories_of_text",
        "categories_of_numbers",
        "unused",
        "infinite_unused",
        "nullable",
    ],
)
def test_times_of_every_type(times):
    adata = make([0, 0, 0])
    adata.obs["time"] = times
    found = time_column(adata, "time")
    assert found.dtype == np.float64
    assert found.tolist() == [0, 6, 12]


@pytest.mark.parametrize(
    ("times", "message"),
    [
        (["0h", "6", "6h"], r"Expected times in `adata.obs\['time'\]` to be numbers.* found \['0h', '6h'\]"),
        ([True, False, True], r"numbers.* found \[False, True\] of type bool"),
        (pd.to_datetime(["2020-01-01"] * 3), "numbers.* of type datetime64"),
        (pd.cut([0.5, 1.5, 2.5], [0, 1, 2, 3]), "numbers.* of type category"),
        ([0, np.nan, 1], r"finite time for every cell .*found it missing in 1 cells: \['cell_1'\]"),
        (["0", None, "1"], r"finite time for every cell .*found it missing in 1 cells: \['cell_1'\]"),
        ([0, np.inf, -np.inf], r"found it infinite in 2 cells: \['cell_1', 'cell_2'\]"),
    ],
    ids=["units", "booleans", "dates", "intervals", "nan", "none", "infinite"],
)
def test_wrong_times(times, message):
    adata = make([0, 0, 0])
    adata.obs["time"] = times
    with pytest.raises(ValueError, match=message):
        time_column(adata, "time")


def test_missing_times_may_be_allowed():
    np.testing.assert_array_equal(time_column(make([1, np.nan]), "time", allow_missing=True), [1, np.nan])
    with pytest.raises(ValueError, match="infinite in 1 cells"):
        time_column(make([1, np.nan, np.inf]), "time", allow_missing=True)


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_expression_that_is_not_finite(form, value):
    x = np.ones((2, 3))
    x[1, 2] = value
    adata = AnnData(form(x))
    with pytest.raises(ValueError, match=r"finite expression in `adata.X`, found 1 NaN or infinite values"):
        finite_expression(adata, None)


def test_expression_may_be_anything_finite():
    x = np.array([[-1e308, -1e308], [0, 3]])  # of which the sum overflows
    assert finite_expression(AnnData(x), None) is not None
    assert finite_expression(AnnData(np.array([[1000, 2000]])), None).dtype.kind == "i"


def test_expression_that_is_no_matrix_of_numbers():
    adata = AnnData(np.array([[True, False]]))
    with pytest.raises(TypeError, match=r"`adata.X` to be a NumPy array or .* found ndarray of bool"):
        finite_expression(adata, None)
    with pytest.raises(ValueError, match=r"at least one cell and one gene in `adata.X`, found shape \(0, 2\)"):
        finite_expression(AnnData(np.ones((0, 2))), None)


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
def test_sums_and_means_of_groups(form):
    x = form(np.array([[1, 0], [2, 4], [3, 2]], dtype=np.float32))
    codes = np.array([1, 0, 1])
    assert sum_of_groups(x, codes, n_groups=2).tolist() == [[2, 4], [4, 2]]
    means = mean_of_groups(x, codes, n_groups=2)
    assert means.dtype == np.float64
    assert means.tolist() == [[2, 4], [2, 1]]


@pytest.mark.parametrize("prior", [None, sparse.csr_matrix(([-1.5], ([0], [2])), shape=(3, 3), dtype=np.float32)])
def test_fields_survive_h5ad(tmp_path, prior):
    fields = DynamicsFields(
        "time", trajectory_key="donor", control="ntc", regulators=("GATA1", "SPI1"), has_prior=prior is not None
    )
    adata = make([0.0, 1.0, 2.0], donor=["a"] * 3)
    write_dynamics_fields(adata, fields, prior)
    adata.write_h5ad(tmp_path / "adata.h5ad")
    found = anndata.read_h5ad(tmp_path / "adata.h5ad")
    assert read_dynamics_fields(found) == fields
    assert set(found.uns[DYNAMICS_FIELDS_KEY]) == {
        *("time_key", "trajectory_key", "control", "separator", "regulators", "has_prior")
    }
    if prior is not None:
        assert found.varp[DYNAMICS_PRIOR_KEY].dtype == np.float32
        assert abs(found.varp[DYNAMICS_PRIOR_KEY] - prior).max() == 0
    (before,), (after,) = trajectories_of(adata, fields), trajectories_of(found, fields)
    np.testing.assert_array_equal(before.values, after.values)


def test_an_earlier_prior_is_removed():
    adata = make([0, 1, 2])
    write_dynamics_fields(adata, DynamicsFields("time", has_prior=True), sparse.eye(3, format="csr"))
    write_dynamics_fields(adata, DynamicsFields("time"), None)
    assert DYNAMICS_PRIOR_KEY not in adata.varp
    assert not read_dynamics_fields(adata).has_prior


def test_nothing_registered():
    with pytest.raises(KeyError, match=r"Run `pf.pp.setup_dynamics\(adata, ...\)` first"):
        read_dynamics_fields(make([0, 1]))


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (lambda adata: adata.obs.pop("time"), KeyError, "'time' in `adata.obs`"),
        (lambda adata: adata.obs.pop("donor"), KeyError, "'donor' in `adata.obs`"),
        (lambda adata: adata.obs.pop("perturbation"), KeyError, "'perturbation' in `adata.obs`"),
        (lambda adata: adata.layers.pop("smooth"), KeyError, "'smooth' in `adata.layers`"),
        (lambda adata: adata.varp.pop(DYNAMICS_PRIOR_KEY), KeyError, "'dynamics_prior' in `adata.varp`"),
        (lambda adata: adata[:, :2].copy(), ValueError, r"3 registered regulators .* 1 are missing: \['KLF1'\]"),
    ],
    ids=["time", "trajectory", "perturbation", "layer", "prior", "genes"],
)
def test_what_has_gone_since(spoil, error, message):
    adata = make([0, 1], donor=["a"] * 2, perturbation=["control"] * 2)
    adata.layers["smooth"] = adata.X
    fields = DynamicsFields(
        "time",
        trajectory_key="donor",
        perturbation_key="perturbation",
        layer="smooth",
        regulators=tuple(GENES),
        has_prior=True,
    )
    write_dynamics_fields(adata, fields, sparse.eye(3, format="csr"))
    spoiled = spoil(adata)
    with pytest.raises(error, match=rf"{message}.* Run `pf.pp.setup_dynamics\(adata, ...\)` again"):
        read_dynamics_fields(spoiled if isinstance(spoiled, AnnData) else adata)


@pytest.mark.parametrize(
    ("times", "cells", "expected"),
    [
        (["0h", "12h", "6h"], r"3 cells: \['cell_0', 'cell_1', 'cell_2'\]", [0, 12, 6]),
        (["0", "day 3", "day 7.5"], r"2 cells: \['cell_1', 'cell_2'\]", [0, 3, 7.5]),
        (["E10.5", "E8.5", "E9.5"], r"3 cells", [10.5, 8.5, 9.5]),
        (pd.to_datetime(["2020-01-02 00:00", "2020-01-01 12:00", "2020-01-01 00:00"]), r"3 cells", [24, 12, 0]),
        (pd.to_timedelta([90, 0, 60], unit="min"), r"3 cells", [1.5, 0, 1]),
    ],
    ids=["hours", "days", "embryos", "dates", "durations"],
)
@pytest.mark.parametrize("categorical", [False, True])
def test_advice_on_times_makes_numbers(times, cells, expected, categorical):
    adata = make([0, 0, 0])
    adata.obs["time"] = pd.Categorical(times) if categorical else times
    with pytest.raises(ValueError, match=rf"found .* in {cells}") as error:
        time_column(adata, "time")
    exec(re.findall("`([^`]*)`", str(error.value))[-1], {"adata": adata, "pandas": pd})
    assert time_column(adata, "time").tolist() == expected


@pytest.mark.parametrize("times", [["0", "6", "iPSC"], ["0", "6h", "2d"], ["0", "6", "-12h"]])
def test_advice_on_times_of_different_units_leaves_them_to_be_filled_in(times):
    adata = make([0, 0, 0])
    adata.obs["time"] = pd.Categorical(times)
    with pytest.raises(ValueError, match=r"Give every value a number in one unit") as error:
        time_column(adata, "time")
    advice = re.findall("`([^`]*)`", str(error.value))[-1].replace("...", "24")
    exec(advice, {"adata": adata})
    assert time_column(adata, "time").tolist() == [0, 24 if times[1] == "6h" else 6, 24]


@pytest.mark.parametrize("times", [[0, np.inf, 1], [0, np.nan, 1], ["0", None, "1"], pd.Categorical(["0", "inf", "1"])])
def test_advice_on_missing_and_infinite_times_leaves_the_others(times):
    adata = make([0, 0, 0])
    adata.obs["time"] = times
    with pytest.raises(ValueError, match=r"in 1 cells: \['cell_1'\]") as error:
        time_column(adata, "time")
    scope = {"adata": adata, "numpy": np}
    exec(re.findall("`([^`]*)`", str(error.value))[-1], scope)
    assert time_column(scope["adata"], "time").tolist() == [0, 1]
