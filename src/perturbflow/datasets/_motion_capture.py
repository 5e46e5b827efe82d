"""Human motion capture: walks of one person, and of others, as joint angles or positions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Literal, get_args

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from perturbflow._checks import check_none, check_one_of, check_unique_names
from perturbflow.datasets._local import local_file, of_local

Kind = Literal["angles", "positions"]
Split = Literal["train", "valid", "test_trial", "test_subject", "test_activity", "test_both"]
KINDS: tuple[Kind, ...] = get_args(Kind)
SPLITS: tuple[Split, ...] = get_args(Split)
FOLDER = "mocap"
SOURCE = "the CMU Graphics Lab Motion Capture Database, mocap.cs.cmu.edu"
ABOUT = ("subject", "activity", "split")
SKELETON_KEY = "skeleton"


@of_local
def motion_capture(kind: Kind = "angles", *, splits: Sequence[Split] = SPLITS) -> AnnData:
    """Whole-body motion of three people, walking, jogging, running and jumping (CMU motion capture).

    34 sequences of 1.4 to 4 seconds at 30 frames per second, 3,065 frames in all. Heading and horizontal position are left
    out. Training and validation sequences are walks of one person; the test sequences are new walks of the same person
    ("test_trial"), walks of two others ("test_subject"), jogs of the same person ("test_activity"), and a run and a bout
    of jumping of another one ("test_both").

    Parameters
    ----------
    kind
        "angles": 48 joint angles in degrees and the height of the root in cm. "positions": coordinates of 26 joints in cm
        (78 channels); the root is the origin, x points to the left of the person, y up and z ahead.
    splits
        Splits to read.

    Returns
    -------
    AnnData, one row per frame, sorted by sequence and time, with

    `adata.X` : float32
        The channels.
    `adata.obs`
        ``sequence``, ``time`` in seconds, ``subject`` (a string with leading zeros), ``activity`` and ``split``.
    `adata.var`
        ``joint`` and ``axis`` of every channel.
    `adata.varp["skeleton"]` : CSR, float32
        1 between channels of one joint or of neighbouring joints, also where joints between them have no channel. It
        makes learned edges plausible, and is no truth.
    `adata.uns["joints"]`
        Table, ``joint`` and ``parent``: the tree of all joints below "root".

    Notes
    -----
    The data used in this project was obtained from mocap.cs.cmu.edu. The database was created with funding from NSF
    EIA-0196217.

    Examples
    --------
    >>> from contextlib import suppress
    >>> import perturbflow as pf
    >>> with suppress(FileNotFoundError):  # where the files are not on this machine
    ...     frames = pf.datasets.motion_capture("angles", splits=["train"])
    ...     assert frames.shape == (1252, 49) and set(frames.obs["subject"]) == {"35"}
    ...     pf.pp.setup_dynamics(frames, time_key="time", trajectory_key="sequence")
    >>> pf.datasets.motion_capture("pixels")
    Traceback (most recent call last):
    ValueError: Expected `kind` to be one of ['angles', 'positions'], found 'pixels'...
    """
    check_one_of(kind, KINDS, name="kind")
    for split in splits:
        check_one_of(split, SPLITS, name="splits")
    check_unique_names(splits, what="`splits`", hint="Name each once.")
    if not splits:
        msg = f"Expected `splits` to name at least one of {sorted(SPLITS)}, found none."
        raise ValueError(msg)
    sequences = _table("sequences.csv", dtype=dict.fromkeys(("sequence", *ABOUT), str))
    joints = _table("skeleton.csv", dtype=str)
    frames = _table(f"{kind}.csv.gz", dtype={"sequence": str})
    unknown = sorted(set(frames["sequence"]) ^ set(sequences["sequence"]))
    expected = f"the same sequences in {kind}.csv.gz and sequences.csv"
    check_none(unknown, expected, which=" in only one of them", hint=f"Download both files again from {SOURCE}.")

    chosen = sequences[sequences["split"].isin(splits)].set_index("sequence")
    frames = frames[frames["sequence"].isin(chosen.index)]
    frames = frames.assign(sequence=pd.Categorical(frames["sequence"], categories=chosen.index)).sort_values(
        ["sequence", "time"], kind="stable", ignore_index=True
    )
    channels = frames.columns.drop(["sequence", "time"])
    obs = frames[["sequence", "time"]].assign(
        **{name: pd.Categorical(frames["sequence"].map(chosen[name]).astype(str)) for name in ABOUT}
    )
    of_sequence = frames.groupby("sequence", observed=True).cumcount()
    obs.index = frames["sequence"].astype(str) + " " + of_sequence.astype(str)
    obs.index.name = None
    joint, axis = zip(*(name.rsplit("_", 1) for name in channels), strict=True)
    return AnnData(
        frames[channels].to_numpy(dtype=np.float32),
        obs=obs,
        var=pd.DataFrame({"joint": joint, "axis": axis}, index=channels.astype(str)),
        varp={SKELETON_KEY: _neighbours(joint, joints)},
        uns={"joints": joints},
    )


def _table(name: str, **options: object) -> pd.DataFrame:
    return pd.read_csv(local_file(f"{FOLDER}/{name}", source=SOURCE), **options)


def _neighbours(joint: Sequence[str], joints: pd.DataFrame) -> sparse.csr_matrix:
    """Return 1 between channels whose joints are the same or neighbours, joints without channels being contracted."""
    import networkx as nx

    recorded, codes = np.unique(joint, return_inverse=True)
    tree = nx.from_pandas_edgelist(joints, "joint", "parent")
    near = nx.Graph(tree.subgraph(recorded))
    near.add_edges_from((name, name) for name in recorded)
    for group in nx.connected_components(tree.subgraph(set(tree) - set(recorded))):
        near.add_edges_from(combinations(nx.node_boundary(tree, group), 2))
    graph = nx.to_numpy_array(near, nodelist=recorded, dtype=np.float32)[codes][:, codes]
    np.fill_diagonal(graph, 0)
    return sparse.csr_matrix(graph)
