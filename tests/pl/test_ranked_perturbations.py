from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from perturbflow import pl
from perturbflow.tl import rank_perturbations


def test_points_and_intervals_are_those_of_the_table(fitted):
    rank_perturbations(fitted, {"cell_type": "type_2"}, combinations=True)
    table = fitted.uns["ranked_perturbations"]
    ax: Any = pl.ranked_perturbations(fitted, n_top=6)
    drawn: list[Any] = [c for c in ax.collections if not str(c.get_label()).startswith("_")]
    points = np.concatenate([np.asarray(c.get_offsets()) for c in drawn])
    points = points[np.argsort(points[:, 1])]
    np.testing.assert_allclose(points, np.column_stack([table["score"][:6], np.arange(6)]))
    assert [label.get_text() for label in ax.get_yticklabels()] == table["perturbation"][:6].tolist()
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the best on top
    intervals: list[Any] = [c for c in ax.collections if hasattr(c, "get_segments")]
    ends = {segment[0, 1]: segment[:, 0] for c in intervals for segment in c.get_segments()}
    np.testing.assert_allclose([ends[place] for place in range(6)], table[["lower", "upper"]][:6])
    assert ax.get_xlabel() == "fraction of the squared distance removed\n(0: no shift, 1: target reached; 90% interval)"
    kinds = [text.get_text() for text in ax.get_legend().get_texts()]
    assert kinds == [
        kind for kind in ("seen", "new dose", "combination", "new context", "unseen") if kind in set(table["kind"][:6])
    ]
    assert [line.get_xdata()[0] for line in ax.lines] == [0.0, 1.0]


def test_given_axes_are_drawn_on(fitted):
    rank_perturbations(fitted, {"cell_type": "type_2"}, key_added="r")
    _, ax = plt.subplots()
    assert pl.ranked_perturbations(fitted, key="r", ax=ax) is ax


def test_without_a_ranking(fitted):
    with pytest.raises(KeyError, match="pf.tl.rank_perturbations"):
        pl.ranked_perturbations(fitted)


@pytest.mark.parametrize("entry", [None, {}, pd.DataFrame()])
def test_what_is_no_ranking_is_refused(entry):
    adata = AnnData(np.ones((2, 2)), uns={"ranked_perturbations": entry})
    with pytest.raises(ValueError, match=r"Expected a ranking in .* Run `pf.tl.rank_perturbations"):
        pl.ranked_perturbations(adata)
