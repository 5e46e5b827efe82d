from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from perturbflow.evaluation import summary_table
from perturbflow.tl import export_evaluation

MEANS = {"flow|2": 0.5, "mean effect": 1.5, "control cells": 2.0, "ceiling": 0.25}


@pytest.fixture
def judged():
    """Scores of 8 conditions around known means: lower is better under the first metric, higher under the second."""
    spread = np.linspace(-0.1, 0.1, 8)
    rows = [
        {"split": split, "perturbation": f"P{i}", "model": model, "metric": metric, "value": mean + spread[i] / 3}
        for split in ("valid", "test")
        for metric in ("energy_distance", "pearson_of_mean_effects")
        for model, mean in MEANS.items()
        for i in range(8)
    ]
    adata = AnnData(np.zeros((1, 1), dtype=np.float32))
    adata.uns["evaluation"] = pd.DataFrame(rows).assign(n_cells=50)
    adata.uns["evaluation_summary"] = summary_table(
        adata.uns["evaluation"],
        baselines=["mean effect", "control cells"],
        n_resamples=50,
        rng=np.random.default_rng(0),
    )
    adata.uns["evaluation_verdicts"] = pd.DataFrame(
        {"split": ["test"], "perturbation": ["P,0"], "difference": [1 / 3], "verdict": ["model better"]}
    )
    return adata


@pytest.mark.parametrize(
    ("table", "entry"),
    [("scores", "evaluation"), ("summary", "evaluation_summary"), ("verdicts", "evaluation_verdicts")],
)
def test_csv_is_read_back_as_it_was(judged, tmp_path, table, entry):
    path = tmp_path / "table.csv"
    export_evaluation(judged, path, table=table)
    found = pd.read_csv(path)
    if "best_baseline" in found:
        found["best_baseline"] = found["best_baseline"].fillna("")
    pd.testing.assert_frame_equal(found, judged.uns[entry], rtol=1e-14, check_dtype=False)


def read_markdown(path):
    """Tables by their headings, as data frames of text with models as rows."""
    parts = re.split(r"^## (.*)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    tables = {}
    for split, text in zip(parts[::2], parts[1::2], strict=True):
        lines = [line for line in text.splitlines() if line.startswith("|")]
        rows = [[cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
        assert set(rows[1][1:]) == {"---:"}
        tables[split] = pd.DataFrame(rows[2:], columns=rows[0]).set_index("model")
    return tables


def test_markdown_has_a_leaderboard_for_every_split(judged, tmp_path):
    path = tmp_path / "board.md"
    export_evaluation(judged, path)
    tables = read_markdown(path)
    assert list(tables) == ["valid", "test"]
    table = tables["test"]
    assert list(table.columns) == ["energy distance ↓", "pearson of mean effects ↑"]
    assert list(table.index) == ["flow|2", "mean effect", "control cells (floor)", "real halves (ceiling)"]
    summary = judged.uns["evaluation_summary"].query("split == 'test' and metric == 'energy_distance'")
    summary = summary.set_index("model")
    for model, text in zip(("flow|2", "mean effect", "control cells", "ceiling"), table.iloc[:, 0], strict=True):
        numbers = [float(number) for number in re.findall(r"-?\d[\d.e-]*", text)]
        expected = summary.loc[model, ["mean", "lower", "upper"]].to_numpy(dtype=float)
        np.testing.assert_allclose(numbers, expected, rtol=6e-3)


def test_the_best_are_bold_and_what_beats_baselines_is_marked(judged, tmp_path):
    export_evaluation(judged, tmp_path / "board.md")
    table = read_markdown(tmp_path / "board.md")["test"]
    bold = table.map(lambda text: text.startswith("**")).to_numpy()
    # The ceiling does not compete.
    assert bold.tolist() == [[True, False], [False, False], [False, True], [False, False]]
    marked = table.map(lambda text: text.endswith("▲")).to_numpy()
    assert marked.tolist() == [[True, False], *[[False, False]] * 3]


def test_unknown_scores_are_a_dash(judged, tmp_path):
    summary = judged.uns["evaluation_summary"]
    summary.loc[summary["model"] == "flow|2", ["mean", "lower", "upper"]] = np.nan
    export_evaluation(judged, tmp_path / "board.md")
    assert set(read_markdown(tmp_path / "board.md")["test"].loc["flow|2"]) == {"–"}


@pytest.mark.parametrize(
    ("name", "options", "error", "match"),
    [
        ("board.txt", {}, ValueError, r"Expected `path.suffix` to be one of \['.csv', '.md'\], found '.txt'"),
        (
            "board.csv",
            {"table": "left_out"},
            ValueError,
            r"Expected `table` to be one of \['scores', 'summary', 'verdicts'",
        ),
        ("board.md", {"table": "scores"}, ValueError, "Expected `table` to be 'summary' for a leaderboard"),
        ("board.csv", {"key": "other"}, KeyError, r"Run pf.tl.evaluate\(adata, key_added='other'\) first"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_written(judged, tmp_path, name, options, error, match):
    with pytest.raises(error, match=match):
        export_evaluation(judged, tmp_path / name, **options)
    assert list(tmp_path.iterdir()) == []
