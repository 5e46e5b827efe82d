"""Tables of an evaluation as files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from perturbflow._checks import check_one_of
from perturbflow.evaluation._leaderboard import (
    BOUNDS,
    TABLES,
    Leaderboard,
    by_mean_rank,
    higher_is_better,
    metrics_in,
    models_in,
    read_table,
    splits_of,
)
from perturbflow.screen._modality import takes_modality

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from mudata import MuData


@takes_modality
def export_evaluation(
    adata: AnnData | MuData,
    path: str | Path,
    *,
    key: str = "evaluation",
    table: Literal["summary", "scores", "verdicts"] = "summary",
    modality: str | None = None,
) -> None:
    """Write an evaluation as CSV, or its leaderboard as Markdown.

    Parameters
    ----------
    adata
        Cells with an evaluation (:func:`perturbflow.tl.evaluate`).
    path
        File to write, replaced if it exists. With the suffix ``.csv`` it holds the table as it is in ``adata.uns``. With
        ``.md`` it has a table of models by metrics for every split, each entry the mean over conditions with its
        interval (95 %), bold for the best; arrows say which direction is better, triangles which models are better than
        the best baseline (the interval of the paired difference excludes 0).
    key
        The evaluation in ``adata.uns``.
    table
        Which of its tables: "summary", "scores" (a row per condition, model and metric) or "verdicts". Markdown is of
        the summary.

    Returns
    -------
    None

    Raises
    ------
    KeyError
        If there is no evaluation, with the call that makes it.
    ValueError
        If the suffix or the table is another one, or the table is not the summary with Markdown.

    Notes
    -----
    Numbers in CSV have all their digits. A text such as "NA" is read back as text by
    ``pd.read_csv(path, keep_default_na=False, na_values={column: "" for column in numbers})``.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import pandas as pd
    >>> import perturbflow as pf
    >>> adata = pf.datasets.simulated_perturb_seq(n_cells=600, n_genes=50, n_perturbations=4, n_combinations=2)
    >>> pf.pp.setup_perturbation(adata, perturbation_key="perturbation", control="control")
    >>> pf.pp.split_perturbations(adata, task="combination", seed=0)
    >>> pf.tl.evaluate(adata, key=None, metrics=["energy_distance"], progress_bar=False)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     pf.tl.export_evaluation(adata, Path(folder) / "scores.csv", table="scores")
    ...     scores = pd.read_csv(Path(folder) / "scores.csv")
    >>> len(scores) == len(adata.uns["evaluation"])
    True
    """
    path = Path(path)
    check_one_of(table, TABLES, name="table")
    check_one_of(path.suffix.lower(), (".csv", ".md"), name="path.suffix")
    found = read_table(adata, key, table)
    if path.suffix.lower() == ".csv":
        found.to_csv(path, index=False)
        return
    if table != "summary":
        msg = f"Expected `table` to be 'summary' for a leaderboard in Markdown, found {table!r}. Write a .csv file."
        raise ValueError(msg)
    metrics, models = metrics_in(found, None), models_in(found, None)
    boards = {split: Leaderboard.of(found, split, metrics, models) for split in splits_of(found, None)}
    order = by_mean_rank(list(boards.values()))
    blocks = [f"## {split}\n\n{_markdown(board, order)}" for split, board in boards.items()]
    note = (
        "Mean over conditions with its 95 % interval; **bold**: the best; ▲: better than the best baseline (the "
        "interval of the paired difference excludes 0)."
    )
    path.write_text("\n\n".join([*blocks, note]) + "\n", encoding="utf-8")


def _markdown(board: Leaderboard, order: Sequence[str]) -> str:
    heads = [f"{metric.replace('_', ' ')} {'↑' if higher_is_better(metric) else '↓'}" for metric in board.metrics]
    best = board.is_best()
    lines = [_row(["model", *heads]), _row(["---", *["---:"] * len(heads)])]
    for model in order:
        row = board.models.index(model)
        entries = [
            _entry(
                board.means[row, column],
                (board.lower[row, column], board.upper[row, column]),
                is_best=bool(best[row, column]),
                beats=bool(board.beats_baselines[row, column]),
            )
            for column in range(len(heads))
        ]
        lines.append(_row([BOUNDS.get(model, model), *entries]))
    return "\n".join(lines)


def _row(entries: Sequence[str]) -> str:
    escaped = [entry.replace("|", "\\|") for entry in entries]
    return f"| {' | '.join(escaped)} |"


def _entry(mean: float, interval: tuple[float, float], *, is_best: bool, beats: bool) -> str:
    if np.isnan(mean):
        return "–"
    text = f"**{mean:.3g}**" if is_best else f"{mean:.3g}"
    if not np.isnan(interval).any():
        text += f" [{interval[0]:.3g}, {interval[1]:.3g}]"
    return f"{text} ▲" if beats else text
