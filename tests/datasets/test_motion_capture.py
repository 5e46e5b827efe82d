from __future__ import annotations

import gzip

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import perturbflow as pf

SEQUENCES = {
    "07_01": ("07", "walk", "test_subject"),
    "35_02": ("35", "walk", "train"),
    "35_17": ("35", "jog", "test_activity"),
}
# The hip has no channels, so that thigh and root are neighbours.
JOINTS = [("hip", "root"), ("thigh", "hip"), ("shin", "thigh"), ("foot", "shin"), ("back", "root")]
ANGLES = ["root_height", "thigh_rx", "thigh_ry", "shin_rx", "back_rx"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Three short sequences of five channels in the layout of the files."""
    monkeypatch.setenv("PERTURBFLOW_DATA", str(tmp_path))
    folder = tmp_path / "mocap"
    folder.mkdir()
    table = pd.DataFrame(
        [(name, *about, 3) for name, about in SEQUENCES.items()],
        columns=["sequence", "subject", "activity", "split", "n_frames"],
    )
    table.to_csv(folder / "sequences.csv", index=False)
    pd.DataFrame(JOINTS, columns=["joint", "parent"]).to_csv(folder / "skeleton.csv", index=False)
    frames = pd.DataFrame({"sequence": np.repeat(list(SEQUENCES), 3), "time": np.tile([0.2, 0.0, 0.1], 3)})
    values = np.arange(45.0).reshape(9, 5)
    pd.concat([frames, pd.DataFrame(values, columns=ANGLES)], axis=1).to_csv(folder / "angles.csv.gz", index=False)
    positions = [f"{joint}_{axis}" for joint in ("thigh", "back") for axis in "xyz"]
    pd.concat([frames, pd.DataFrame(np.ones((9, 6)), columns=positions)], axis=1).to_csv(
        folder / "positions.csv.gz", index=False
    )
    return folder


@pytest.mark.usefixtures("folder")
def test_frames_are_sorted_and_labelled(tmp_path):
    adata = pf.datasets.motion_capture(splits=["train", "test_subject"])
    assert adata.obs["time"].tolist() == [0.0, 0.1, 0.2] * 2
    np.testing.assert_array_equal(adata.X, np.arange(45.0).reshape(9, 5)[[1, 2, 0, 4, 5, 3]])
    assert adata.X.dtype == np.float32
    assert adata.obs["sequence"].cat.categories.tolist() == ["07_01", "35_02"]
    assert adata.obs["subject"].tolist() == ["07"] * 3 + ["35"] * 3
    assert adata.obs["activity"].cat.categories.tolist() == ["walk"]
    assert adata.obs["split"].tolist() == ["test_subject"] * 3 + ["train"] * 3
    assert adata.obs_names.tolist()[:2] == ["07_01 0", "07_01 1"]
    assert adata.var["joint"].tolist() == ["root", "thigh", "thigh", "shin", "back"]
    assert adata.var["axis"].tolist() == ["height", "rx", "ry", "rx", "rx"]
    assert adata.uns["joints"].to_numpy().tolist() == [list(pair) for pair in JOINTS]
    adata.write_h5ad(tmp_path / "frames.h5ad")
    assert ad.read_h5ad(tmp_path / "frames.h5ad").obs["subject"].tolist() == adata.obs["subject"].tolist()


@pytest.mark.usefixtures("folder")
def test_neighbours_are_joined_across_joints_without_channels():
    adata = pf.datasets.motion_capture()
    expected = [[0, 1, 1, 0, 1], [1, 0, 1, 1, 0], [1, 1, 0, 1, 0], [0, 1, 1, 0, 0], [1, 0, 0, 0, 0]]
    np.testing.assert_array_equal(adata.varp["skeleton"].toarray(), expected)
    # Thigh and back meet at joints that have no position.
    positions = pf.datasets.motion_capture("positions")
    np.testing.assert_array_equal(positions.varp["skeleton"].toarray(), 1 - np.eye(6))


def test_absent_file_says_where_to_get_it(folder):
    (folder / "angles.csv.gz").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"angles.csv.gz, found none. Download it from its source .*mocap.cs.cmu.edu"
    ):
        pf.datasets.motion_capture()
    assert pf.datasets.motion_capture("positions").n_obs == 9


def test_files_that_do_not_belong_together(folder):
    with gzip.open(folder / "angles.csv.gz", "at") as file:
        file.write("99_01,0.0,1,2,3,4,5\n")
    with pytest.raises(ValueError, match=r"found \['99_01'\] in only one of them. Download both files again"):
        pf.datasets.motion_capture()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"kind": "pixels"}, r"`kind` to be one of \['angles', 'positions'\], found 'pixels'"),
        ({"splits": ["test"]}, "`splits` to be one of .*, found 'test'"),
        ({"splits": ["train", "train"]}, r"`splits` to be unique, found repeated \['train'\]"),
        ({"splits": []}, "`splits` to name at least one of .*, found none"),
    ],
)
def test_bad_input(options, match):
    with pytest.raises(ValueError, match=match):
        pf.datasets.motion_capture(**options)


@pytest.mark.parametrize(("kind", "n_channels"), [("angles", 49), ("positions", 78)])
def test_release(data_folder, monkeypatch, kind, n_channels):
    monkeypatch.setenv("PERTURBFLOW_DATA", str(data_folder))
    if not (data_folder / "mocap").is_dir():
        pytest.skip("no folder mocap among the data sets")
    adata = pf.datasets.motion_capture(kind)
    assert adata.shape == (3065, n_channels)
    assert adata.obs["split"].value_counts().to_dict() == {
        "train": 1252,
        "test_subject": 716,
        "test_trial": 407,
        "valid": 318,
        "test_activity": 207,
        "test_both": 165,
    }
    assert set(adata.obs["subject"]) == {"02", "07", "35"}
    assert len(adata.uns["joints"]) == 30
    joint = adata.var["joint"].to_numpy()
    graph = adata.varp["skeleton"].toarray()
    assert (graph == graph.T).all()
    assert graph[joint == "ltibia"][:, joint == "lfoot"].all()
    assert not graph[joint == "ltibia"][:, joint == "rtibia"].any()
    train = adata.X[(adata.obs["split"] == "train").to_numpy()].astype(np.float64)
    scale = {"angles": 6.2841, "positions": 7.6292}[kind]
    assert np.sqrt(train.var(axis=0).mean()) == pytest.approx(scale, abs=1e-4)
