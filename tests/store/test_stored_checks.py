"""What was damaged or changed since it was stored predicts nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np
import pandas as pd
import pytest

from perturbflow.flow import AdditiveHurdlePrior, Calibration, CellData
from perturbflow.predict import read_flow, write_flow
from perturbflow.predict._fitted_flow import FILE
from perturbflow.predict._flow_arrays import CALIBRATION, PRIOR
from perturbflow.store import checksum
from perturbflow.store._stored_checks import Array, check_arrays, check_like
from perturbflow.tl import forecast, predict_perturbation

Change = Callable[[dict[str, Any]], object]


def put(part: str, name: str, value: Any, *, at: int | None = 0) -> Change:
    """Change one entry of an array, or all."""

    def change(stored: dict[str, Any]) -> None:
        parts = stored[part] if part else stored
        if at is None:
            parts[name] = value(parts[name]) if callable(value) else value
        else:
            parts[name].flat[at] = value

    return change


FLOW: dict[str, tuple[Change, str]] = {
    "not a number": (put("prior", "variance", np.nan), "NaN or infinite values in `prior/variance`"),
    "infinite": (put("prior", "effect_steps", np.inf), "NaN or infinite values in `prior/effect_steps`"),
    "negative variance": (put("prior", "variance", -1), "values from -1 .* in `prior/variance`, which should be above 0"),
    "no variance": (put("prior", "variance", 0), "in `prior/variance`, which should be above 0"),
    "negative variance of effects": (put("prior", "effect_sds", -1), "should be at least 0"),
    "probability": (put("prior", "control_expressed", 1.5), "should be at least 0 and at most 1"),
    "weights": (put("weights", "read.weight", np.nan), "NaN or infinite values in `weights/read.weight`"),
    "calibration": (put("calibration", "factors", np.nan), "NaN or infinite values in `calibration/factors`"),
    "scales": (put("calibration", "scales", lambda a: a[1:], at=None), "`calibration/weights` of shape"),
    "strata": (put("calibration", "edges", lambda a: a[:, 1:], at=None), r"with 3 instead of 4 = strata - 1"),
    "fewer genes": (put("prior", "effect_codes", lambda a: a[..., 1:], at=None), r"of shape \(2, 4, 2, 39\) instead of \(2, L, C, G\)"),
    "fewer contexts": (put("prior", "n_controls", lambda a: a[1:], at=None), "`prior/n_controls` of shape"),
    "context": (put("prior", "group_contexts", 9), "the number 9 of a context, of which there are 2"),
    "component of a group": (put("prior", "group_components", 9), "the number 9 of a component, of which there are 4"),
    "start of a group": (put("prior", "group_starts", 9, at=1), "inconsistent content"),
    "doses": (put("prior", "group_starts", 9, at=-1), "found 9 doses of training groups instead of 12"),
    "component": (put("prior", "level_components", 9), "the number 9 of a component, of which there are 4"),
    "category": (put("prior", "contexts", 7), "the number 7 of a category, of which there are 2"),
    "no array": (lambda stored: stored["prior"].pop("effect_codes"), "no entry 'effect_codes'"),
    "no part": (lambda stored: stored.pop("calibration"), "no entry 'calibration'"),
    "no weight": (lambda stored: stored["weights"].pop("read.weight"), "no entry 'weights/read.weight'"),
    "another weight": (put("weights", "more", np.zeros(3), at=None), r"`weights/more` of shape and type .* instead of None"),
    "shape": (put("weights", "read.bias", lambda a: a[1:], at=None), r"`weights/read.bias` of shape and type \(\(15,\), 'float32'\) instead of \(\(16,\), 'float32'\)"),
    "type": (put("weights", "read.bias", lambda a: a.astype(float), at=None), "'float64'. instead of"),
    "text": (put("prior", "variance", lambda a: a.astype(str), at=None), "`prior/variance` of type <U.*, which is not numeric"),
    "another part": (put("", "more", 1, at=None), r"unknown entries, \['more'\]"),
    "names of genes": (put("", "genes", lambda a: a[1:], at=None), "39 genes instead of 40"),
    "components": (lambda stored: stored["fields"]["vocabulary"]["components"].pop(), "3 components instead of 4"),
    "width": (put("config", "width", 7, at=None), r"`weights/.*` of shape and type"),
    "a width beyond all memory": (put("config", "width", 10**7, at=None), r"`weights/.*` of shape and type"),
    "blocks beyond all memory": (put("config", "n_blocks", 10**9, at=None), "1000000000 blocks with"),
    "genes beyond all memory": (put("config", "n_genes", 10**12, at=None), "40 genes instead of 1000000000000"),
}  # fmt: skip
# What only the checksum can tell.
CHANGED: dict[str, Change] = {
    "effects": put("prior", "effect_codes", 12_345),
    "weights": put("weights", "read.weight", 0.25),
    "calibration": put("calibration", "factors", 2.0),
    "genes": put("", "genes", "another"),
    "settings": put("settings", "seed", 99, at=None),
    "fields": put("fields", "perturbation_key", "other", at=None),
}


@pytest.mark.parametrize(("change", "match"), FLOW.values(), ids=FLOW)
@pytest.mark.parametrize("with_checksum", [True, False])
def test_a_damaged_flow_predicts_nothing(fitted, unchanged, change, match, with_checksum):
    change(fitted.uns["flow"])
    if not with_checksum:  # as earlier versions have stored it
        del fitted.uns["flow"]["checksum"]
    with unchanged(fitted), pytest.raises(ValueError, match=match) as error:
        predict_perturbation(fitted, "A")
    assert str(error.value).startswith("Expected a fitted flow in `adata.uns['flow']`, complete and as it was written")
    assert "Fit again with `pf.tl.fit_flow`" in str(error.value)


@pytest.mark.parametrize("change", CHANGED.values(), ids=CHANGED)
def test_a_changed_flow_is_told_by_its_checksum(fitted, change):
    change(fitted.uns["flow"])
    with pytest.raises(ValueError, match="found values whose checksum differs from the stored one"):
        read_flow(fitted)
    del fitted.uns["flow"]["checksum"]
    read_flow(fitted)


def test_settings_of_prediction_and_the_history_may_change(fitted):
    fitted.uns["flow"]["config"] |= {"guidance": 2.0, "n_steps": 3}
    del fitted.uns["flow"]["history"]["seconds"]
    assert read_flow(fitted).flow.config.guidance == 2


def test_a_changed_file_is_named(fitted, tmp_path, rewrite):
    write_flow(fitted, read_flow(fitted), store=tmp_path)

    def more(arrays, values):
        arrays["prior/variance"][0] += 1

    rewrite(tmp_path / FILE, more, kind="a fitted flow")
    with pytest.raises(ValueError, match=r"Expected a fitted flow in the file .*flow.safetensors.*checksum differs"):
        predict_perturbation(fitted, "A")
    (tmp_path / FILE).write_bytes((tmp_path / FILE).read_bytes()[:-10])
    with pytest.raises(ValueError, match=r"Expected a fitted flow in .*flow.safetensors.*found a damaged file"):
        predict_perturbation(fitted, "A")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (put("weights", "raw_decay", np.nan), "NaN or infinite values in `weights/raw_decay`"),
        (put("weights", "raw_decay", 0.25), "checksum differs"),
        (put("", "scale", 0.0), "in `scale`, which should be above 0"),
        (put("", "time_scale", -1.0, at=None), "in `time_scale`, which should be above 0"),
        (put("", "start", lambda a: a[:, 1:], at=None), r"`start` of shape \(\d+, 4\) instead of \(N, s\)"),
        (put("", "genes", lambda a: a[1:], at=None), "4 genes instead of 5"),
        (put("config", "regulators", [0, 9], at=None), "the number 9 of a regulator, of which there are 5"),
        (put("config", "at_rest", [9], at=None), "the number 9 of a gene held at rest, of which there are 5"),
        (put("config", "hidden", [10**12], at=None), "1000000000000 units in layer 1 instead of 10"),
        (put("", "span", lambda a: a.astype(str), at=None), "`span` of type <U.*, which is not numeric"),
        (put("", "more", 1, at=None), r"unknown entries, \['more'\]"),
        (lambda stored: stored.pop("rates"), "no entry 'rates'"),
        (lambda stored: stored["weights"].pop("raw_decay"), "checksum differs"),
        # Earlier versions stored no checksum.
        (lambda stored: [stored.pop("checksum"), stored["weights"].pop("raw_decay")], "no entry 'raw_decay'"),
    ],
)
def test_damaged_dynamics_forecast_nothing(fitted_dynamics, unchanged, change, match):
    change(fitted_dynamics.uns["dynamics"])
    with unchanged(fitted_dynamics), pytest.raises(ValueError, match=match) as error:
        forecast(fitted_dynamics)
    assert str(error.value).startswith("Expected fitted dynamics in `adata.uns['dynamics']`, complete and as it was")
    assert "Fit again with `pf.tl.fit_dynamics`" in str(error.value)


def test_tables_know_every_array():
    doses = np.repeat([[0.0], [1.0]], 20, axis=0)
    prior = AdditiveHurdlePrior.fit(CellData(np.ones((40, 2)), doses, np.zeros((40, 0), dtype=int)))
    assert set(PRIOR) == set(prior.to_arrays())
    assert set(CALIBRATION) == {field.name for field in fields(Calibration)}


def test_arrays_that_nothing_is_known_of_are_finite():
    with pytest.raises(ValueError, match="NaN or infinite values in `prior/new`"):
        check_arrays({"new": np.array([np.nan])}, {}, part="prior")
    check_arrays(
        {"new": np.ones(3), "text": np.array(["a"], dtype=object)}, {"text": Array((1,), is_text=True)}, part="prior"
    )
    with pytest.raises(ValueError, match="`prior/text` of type object, which is not numeric"):
        check_arrays({"text": np.array(["a"], dtype=object)}, {}, part="prior")
    check_arrays({"a": np.array([np.inf]), "b": np.empty(0)}, {"a": Array((1,), finite=False), "b": Array((7, 7), or_empty=True)}, part="")  # fmt: skip


def test_arrays_are_those_of_a_thing():
    expected = {"a": ((2,), "float32")}
    check_like({"a": np.ones(2, dtype=np.float32)}, expected, part="weights")
    with pytest.raises(KeyError, match="weights/a"):
        check_like({}, expected, part="weights")
    for wrong in (np.ones(2), np.ones(3, dtype=np.float32), "text"):
        with pytest.raises(ValueError, match="`weights/a` of shape and type .* instead of"):
            check_like({"a": wrong}, expected, part="weights")


def test_checksum_is_of_values_and_not_of_how_a_file_keeps_them():
    one = {
        "a": [1, 2],
        "b": {"c": "text", "d": True, "e": 0.5},
        "f": [],
        "g": ["x", "y"],
        "h": pd.DataFrame({"i": [1.5]}),
    }
    other = {
        "b": {"d": np.bool_(True), "e": np.float64(0.5), "c": np.str_("text")},
        "a": np.array([1, 2], dtype=np.int32),
        "g": np.array(["x", "y"], dtype=object),
        "h": pd.DataFrame({"i": [1.5]}),
        "checksum": "of another time",
    }
    assert checksum(one) == checksum(other)
    for change in ({"a": [2, 1]}, {"g": ["xy", ""]}, {"z": 1}, {"b": {"c": "text"}}, {"a": [[1, 2]]}):
        assert checksum(one | change) != checksum(one)
    assert checksum(one | {"a": 3}, without=["a"]) == checksum(one, without=["a"])
