"""Poses of a motion along time, as measured and as predicted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, get_args

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perturbflow._checks import check_key, check_one_of, check_whole_number
from perturbflow.metrics._cells import dense
from perturbflow.pl._drawing import DARK, PALETTE, plot
from perturbflow.pl._dynamics_results import as_list, positions_of

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.figure import Figure
    from mudata import MuData

View = Literal["side", "front", "3d"]
VIEWS: tuple[View, ...] = get_args(View)
ROOT, X_NAME = "root", "observed"
_MIDLINE = 0.15  # of the largest distance from it: joints that are nearer are on neither side
_TURN, _TILT = np.radians(35), np.radians(15)
_PLANES: Mapping[str, NDArray[np.float64]] = {  # from x, y and z to what is drawn across and upwards
    "side": np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0]]),
    "front": np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]),
    "3d": np.array(
        [
            [-np.sin(_TURN), 0.0, np.cos(_TURN)],
            [-np.sin(_TILT) * np.cos(_TURN), np.cos(_TILT), -np.sin(_TILT) * np.sin(_TURN)],
        ]
    ),
}


@plot
def skeleton(
    adata: AnnData | MuData,
    sequence: str,
    *,
    layers: str | Sequence[str] = (),
    n_poses: int = 8,
    view: View = "side",
    sequence_key: str = "sequence",
    time_key: str = "time",
    modality: str | None = None,
    show: bool | None = None,
    save: bool | str | None = None,
) -> Figure:
    """Draw poses of one sequence along time, one row for the observed ones and one for each layer.

    Bones are lines between neighbouring joints; those on the right of the body are paler. All rows show the same times, of
    which every layer has values, so that poses can be compared from row to row.

    Parameters
    ----------
    adata
        Positions of joints, one row per frame, as of
        :func:`perturbflow.datasets.motion_capture` with "positions": ``var`` has ``joint`` and ``axis``, and
        ``uns["joints"]`` the parent of every joint. The joint "root" is the origin.
    sequence
        The sequence to draw.
    layers
        Layers with other positions of the same frames, such as predicted ones; NaN where there are none.
    n_poses
        Number of poses in a row, at most, evenly spaced in time.
    view
        "side": from the side, ahead to the right; "front": as one faces the person; "3d": from a height, ahead and to the left.
    sequence_key, time_key
        Columns of ``obs`` with the sequence and the time of each frame.

    Returns
    -------
    The figure, with one Axes per row.

    Raises
    ------
    KeyError
        If a column, the tree of joints, the sequence or a layer is missing.
    ValueError
        If channels are no positions, no frame has values in every layer, or an option is out of range.

    Examples
    --------
    >>> import anndata, numpy as np, pandas as pd, perturbflow as pf
    >>> angle = np.sin(np.linspace(0.0, 6.0, 20))  # a leg that swings
    >>> knee = np.column_stack([np.zeros(20), -np.cos(angle), np.sin(angle)])
    >>> frames = anndata.AnnData(
    ...     np.hstack([knee, 2 * knee]),
    ...     obs=pd.DataFrame({"sequence": "leg", "time": np.arange(20.0)}, index=[f"frame_{i}" for i in range(20)]),
    ...     var=pd.DataFrame(
    ...         {"joint": ["knee"] * 3 + ["foot"] * 3, "axis": list("xyzxyz")}, index=[f"channel_{i}" for i in range(6)]
    ...     ),
    ...     uns={"joints": pd.DataFrame({"joint": ["knee", "foot"], "parent": ["root", "knee"]})},
    ... )
    >>> figure = pf.pl.skeleton(frames, "leg", n_poses=5)
    >>> len(figure.axes)
    1
    """
    check_one_of(view, VIEWS, name="view")
    check_whole_number(n_poses, name="n_poses", least=1)
    for key in (sequence_key, time_key):
        check_key(key, adata.obs.columns, where="adata.obs")
    check_key(
        "joints", adata.uns, where="adata.uns", hint="Read positions with `pf.datasets.motion_capture('positions')`."
    )
    names = [X_NAME, *(as_list(layers, parameter="layers") if len(layers) else [])]
    positions_of(names[1:], adata.layers, parameter="layers", where="`adata.layers`")
    labels = adata.obs[sequence_key].astype(str).to_numpy()
    positions_of([sequence], pd.unique(labels), parameter="sequence", where=f"`adata.obs[{sequence_key!r}]`")
    of_sequence = adata[labels == sequence]
    joints, columns = _columns(adata.var)
    poses = {name: dense(of_sequence.X if name == X_NAME else of_sequence.layers[name])[:, columns] for name in names}
    rows = np.flatnonzero(np.all([np.isfinite(values).all(axis=(1, 2)) for values in poses.values()], axis=0))
    if not len(rows):
        msg = f"Expected a frame of {sequence!r} with finite positions in {names}, found none. Show fewer layers."
        raise ValueError(msg)
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, min(n_poses, len(rows))).round().astype(int))]
    time = of_sequence.obs[time_key].to_numpy(dtype=np.float64)[rows]
    drawn = np.stack([values[rows] for values in poses.values()])  # (row of the figure, pose, joint, axis)
    figure = _draw(drawn, _bones(joints, adata.uns["joints"]), _sides(drawn[0]), names=names, time=time, view=view)
    figure.supxlabel(time_key)
    return figure


def _columns(var: pd.DataFrame) -> tuple[list[str], NDArray[np.intp]]:
    """Return the joints, and the columns of their positions (n_joints, 3)."""
    hint = "Read positions with `pf.datasets.motion_capture('positions')`."
    for key in ("joint", "axis"):
        check_key(key, var.columns, where="adata.var", hint=hint)
    place = {pair: at for at, pair in enumerate(zip(var["joint"].astype(str), var["axis"].astype(str), strict=True))}
    joints = list(dict.fromkeys(var["joint"].astype(str)))
    missing = [f"{joint}_{axis}" for joint in joints for axis in "xyz" if (joint, axis) not in place]
    if missing:
        msg = f"Expected the axes x, y and z of every joint in `adata.var`, found {len(missing)} missing: {missing[:5]}. {hint}"
        raise ValueError(msg)
    return joints, np.array([[place[joint, axis] for axis in "xyz"] for joint in joints])


def _bones(joints: Sequence[str], tree: pd.DataFrame) -> list[tuple[int, int]]:
    """Return pairs of joints to connect; -1 is the root, and joints without positions are passed over."""
    parent_of = dict(zip(tree["joint"].astype(str), tree["parent"].astype(str), strict=True))
    place = {joint: at for at, joint in enumerate(joints)}
    bones = []
    for joint in joints:
        parent = parent_of.get(joint, ROOT)
        while parent not in place and parent in parent_of:
            parent = parent_of[parent]
        bones.append((place[joint], place.get(parent, -1)))
    return bones


def _sides(poses: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which joints are on the right of the body, that is on the negative side of x."""
    mean = poses[..., 0].mean(axis=0)
    return mean < -_MIDLINE * max(np.abs(mean).max(), np.finfo(float).tiny)


def _draw(
    poses: NDArray[np.float64],
    bones: Sequence[tuple[int, int]],
    is_right: NDArray[np.bool_],
    *,
    names: Sequence[str],
    time: NDArray[np.float64],
    view: View,
) -> Figure:
    """Draw all rows of poses (n_rows, n_poses, n_joints, 3)."""
    n_rows, n_poses = poses.shape[:2]
    poses = np.concatenate([poses, np.zeros((n_rows, n_poses, 1, 3))], axis=2)  # the root, at place -1
    placed = poses @ _PLANES[view].T
    height = max(np.ptp(placed[..., 1]), np.finfo(float).tiny)
    step = 1.1 * max(np.ptp(placed[..., 0]), 0.4 * height)
    places = step * np.arange(n_poses)
    placed[..., 0] += places[:, None]
    width = float(
        np.clip(1.6 * step * n_poses / height, 3, 12)
    )  # as wide as the poses are to their height, within reason
    figure, axes = plt.subplots(
        n_rows, 1, figsize=(width, 0.4 + 1.9 * n_rows), layout="constrained", squeeze=False, sharex=True, sharey=True
    )
    colors = [DARK, *(PALETTE[k % len(PALETTE)] for k in range(n_rows - 1))]
    for ax, row, name, color in zip(axes[:, 0], placed, names, colors, strict=True):
        for joint, parent in bones:
            is_pale = is_right[joint]
            for pose in row[:, [joint, parent]]:
                ax.plot(
                    pose[:, 0],
                    pose[:, 1],
                    color=color,
                    alpha=0.4 if is_pale else 1.0,
                    linewidth=1.3,
                    solid_capstyle="round",
                    zorder=1 if is_pale else 2,
                )
        ax.set_title(name, loc="left", fontsize="medium")
        ax.set_aspect("equal")
        ax.spines[["top", "right", "left", "bottom"]].set_visible(False)
        ax.set_xticks(places, [f"{value:.2f}" for value in time], fontsize="small")
        ax.tick_params(length=0)
        ax.set_yticks([])
    return figure
