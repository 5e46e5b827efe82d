from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from perturbflow.pl import skeleton

JOINTS = ["lknee", "lfoot", "rknee", "rfoot"]
TREE = [("hip", "root"), ("lknee", "hip"), ("lfoot", "lknee"), ("rknee", "root"), ("rfoot", "rknee")]
PLACES = np.array([[1, -1, 0], [1, -2, 0.5], [-1, -1, 0], [-1, -2, -0.5]], dtype=float)


@pytest.fixture
def adata():
    """Two sequences of two legs, of which the hip has no positions; the second half of each is predicted, too."""
    frames = PLACES + 0.01 * np.arange(12)[:, None, None] * [0, 0, 1]
    cells = AnnData(
        np.concatenate([frames, 2 * frames]).reshape(24, 12).astype(np.float32),
        obs=pd.DataFrame(
            {"sequence": ["a"] * 12 + ["b"] * 12, "time": np.tile(np.arange(12) / 30, 2)},
            index=[f"frame_{i}" for i in range(24)],
        ),
        var=pd.DataFrame(
            {"joint": np.repeat(JOINTS, 3), "axis": ["x", "y", "z"] * 4},
            index=[f"{joint}_{axis}" for joint in JOINTS for axis in "xyz"],
        ),
        uns={"joints": pd.DataFrame(TREE, columns=["joint", "parent"])},
    )
    predicted = np.array(cells.X) + 0.1
    predicted[:6] = np.nan
    cells.layers["forecast"] = predicted
    return cells


def bones(ax: Any) -> list[np.ndarray]:
    return [line.get_xydata() for line in ax.lines]


def test_bones_of_every_pose(adata):
    (ax,) = skeleton(adata, "a", n_poses=3).axes
    assert ax.get_title(loc="left") == "observed"
    assert len(ax.lines) == 3 * 4
    lines = bones(ax)
    # From the side: z across and y upwards; the left knee hangs at the root, since the hip has no positions.
    np.testing.assert_allclose(lines[0], [[0, -1], [0, 0]], atol=1e-6)
    np.testing.assert_allclose(lines[3], [[0.5, -2.0], [0.0, -1.0]], atol=1e-6)
    step = ax.get_xticks()[1]
    assert ax.get_xticks().tolist() == pytest.approx([0, step, 2 * step])
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0.00", "0.20", "0.37"]  # frames 0, 6 and 11
    np.testing.assert_allclose(lines[5], lines[3] + [2 * step + 0.11, 0], atol=1e-6)


def test_right_is_paler(adata):
    (ax,) = skeleton(adata, "a", n_poses=1).axes
    assert [line.get_alpha() for line in ax.lines] == [1.0, 1.0, 0.4, 0.4]


def test_layers_are_rows_at_the_times_that_all_have(adata):
    figure = skeleton(adata, "a", layers="forecast", n_poses=20)
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["observed", "forecast"]
    truth, predicted = figure.axes
    assert len(truth.lines) == len(predicted.lines) == 6 * 4
    np.testing.assert_allclose(bones(predicted)[0], bones(truth)[0] + np.array([[0.1, 0.1], [0, 0]]), atol=1e-6)
    assert truth.lines[0].get_color() != predicted.lines[0].get_color()
    assert figure.get_supxlabel() == "time"


@pytest.mark.parametrize(
    ("view", "knee"),
    [
        ("side", [0, -1]),
        ("front", [1, -1]),
        ("3d", [-np.sin(np.radians(35)), -np.cos(np.radians(15)) - np.sin(np.radians(15)) * np.cos(np.radians(35))]),
    ],
)
def test_views(adata, view, knee):
    (ax,) = skeleton(adata, "a", n_poses=1, view=view).axes
    np.testing.assert_allclose(bones(ax)[0], np.array([knee, [0.0, 0.0]], dtype=float), atol=1e-6)


def test_another_column_of_sequences(adata):
    adata.obs = adata.obs.rename(columns={"sequence": "run", "time": "second"})
    figure = skeleton(adata, "b", n_poses=2, sequence_key="run", time_key="second")
    np.testing.assert_allclose(bones(figure.axes[0])[0], [[0, -2], [0, 0]], atol=1e-6)
    assert figure.get_supxlabel() == "second"


def test_nothing_is_written(adata, unchanged):
    with unchanged(adata):
        skeleton(adata, "a", layers=["forecast"])


def test_no_frame_that_all_have(adata):
    adata.layers["forecast"][:12] = np.nan
    with pytest.raises(ValueError, match="a frame of 'a' with finite positions in .*'forecast'.*, found none"):
        skeleton(adata, "a", layers=["forecast"])


def test_channels_that_are_no_positions(adata):
    with pytest.raises(ValueError, match=r"every joint in `adata.var`, found 1 missing: \['lknee_y'\]"):
        skeleton(adata[:, adata.var_names != "lknee_y"], "a")
    del adata.var["axis"]
    with pytest.raises(KeyError, match=r"'axis' in `adata.var`.*motion_capture\('positions'\)"):
        skeleton(adata, "a")


def test_without_a_tree(adata):
    del adata.uns["joints"]
    with pytest.raises(KeyError, match=r"joints.*motion_capture\('positions'\)"):
        skeleton(adata, "a")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"sequence": "c"}, KeyError, r"`sequence` to be from `adata.obs\['sequence'\]`, found \['c'\]"),
        ({"layers": "forecasts"}, KeyError, r"`layers` to be from `adata.layers`, found \['forecasts'\].*'forecast'"),
        ({"view": "top"}, ValueError, "`view` to be one of .*, found 'top'"),
        ({"n_poses": 0}, ValueError, "`n_poses` to be at least 1, found 0"),
        ({"time_key": "hour"}, KeyError, "'hour' in `adata.obs`"),
    ],
)
def test_bad_options(adata, options, error, message):
    with pytest.raises(error, match=message):
        skeleton(adata, **({"sequence": "a"} | options))
