from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import sparse

from perturbflow.pl import expression


def sources_of(compared, adata, genes):
    comparison = compared(adata)
    return comparison.sources(adata.var_names.get_indexer(genes))


def test_genes_with_the_largest_observed_effects(compared, adata):
    ax: Any = expression(adata, adata.uns["label"], n_genes=4)
    effect = compared(adata).mean_effects()["observed"]
    expected = adata.var_names[np.argsort(-np.abs(effect))[:4]].tolist()
    assert [text.get_text() for text in ax.get_xticklabels()] == expected
    assert ax.get_ylabel() == "expression (log1p)"


def test_zeros_and_means_are_those_of_the_cells(compared, adata):
    genes = ["GENE_003", "GENE_001"]
    ax: Any = expression(adata, adata.uns["label"], genes=genes)
    sources = sources_of(compared, adata, genes)
    assert list(sources) == ["control", "observed", "predicted"]
    zeros = [np.mean(values[:, place] == 0) for values in sources.values() for place in range(2)]
    means = [values[:, place].mean() for values in sources.values() for place in range(2)]
    assert [text.get_text() for text in ax.texts] == [f"{100 * share:.0f}" for share in zeros]
    np.testing.assert_allclose([bar.get_width() for bar in ax.patches], 0.9 * 0.3 * np.array(zeros))
    lines = [line.get_ydata() for line in ax.lines if line.get_color() == "black"]
    np.testing.assert_allclose([line[0] for line in lines], means, rtol=1e-5)


def test_violins_show_expressing_cells_only(compared, adata):
    gene = adata.var_names[np.asarray((adata.X > 0).sum(axis=0)).argmax()]
    ax: Any = expression(adata, adata.uns["label"], genes=[gene])
    for body, values in zip(ax.collections, sources_of(compared, adata, [gene]).values(), strict=True):
        heights = body.get_paths()[0].vertices[:, 1]
        assert heights.min() == pytest.approx(values[values > 0].min())
        assert heights.max() == pytest.approx(values.max())


def test_few_expressing_cells_are_points(adata):
    predicted = adata.obsm["predicted"].toarray()
    predicted[:, 0] = 0
    predicted[np.flatnonzero(predicted.any(axis=1))[:2], 0] = [1.5, 2.5]
    adata.obsm["predicted"] = sparse.csr_matrix(predicted)
    ax: Any = expression(adata, adata.uns["label"], genes=[adata.var_names[0]])
    points = [line for line in ax.lines if line.get_marker() == "."]
    assert [line.get_ydata().tolist() for line in points] == [[1.5, 2.5]]


def test_fifty_genes_stand_in_rows_that_share_a_scale(compared, adata):
    genes = adata.var_names.tolist()
    assert len(genes) == 50
    ax: Any = expression(adata, adata.uns["label"], genes=genes)
    assert [text.get_text() for text in ax.texts if text.get_gid() == "gene"] == genes
    assert ax.figure.get_figwidth() < 12
    zeros = sorted({line.get_ydata()[0] for line in ax.lines if line.get_color() == "#BBBBBB"}, reverse=True)
    assert len(zeros) == 5
    assert ([tick.get_text() for tick in ax.get_yticklabels()].count("0"), zeros[0]) == (5, 0.0)
    # Means are read from the zero of the row of the gene.
    drawn = [line.get_ydata()[0] for line in ax.lines if line.get_color() == "black"]
    means = np.concatenate([values.mean(axis=0) for values in sources_of(compared, adata, genes).values()])
    expected = means + np.tile(np.repeat(zeros, 10), 3)
    np.testing.assert_allclose(drawn, expected, rtol=1e-5, atol=1e-5)
    # Rows do not touch: the numbers of one stand above the names of the next.
    ax.figure.draw_without_rendering()
    names = [text.get_window_extent() for text in ax.texts if text.get_gid() == "gene"]
    numbers = [text.get_window_extent() for text in ax.texts if text.get_gid() != "gene"]
    assert not any(name.overlaps(number) for name in names for number in numbers)


@pytest.mark.parametrize("n_genes", [5, 20])
def test_long_names_do_not_touch(adata, n_genes):
    adata.var_names = [f"ENSG0000012{number:04}" for number in range(50)]
    ax: Any = expression(adata, adata.uns["label"], n_genes=n_genes)
    ax.figure.draw_without_rendering()
    texts = [text for text in ax.texts if text.get_gid() == "gene"] or ax.get_xticklabels()
    boxes = [text.get_window_extent() for text in texts]
    assert len(boxes) == n_genes
    assert not any(box.overlaps(other) for place, box in enumerate(boxes) for other in boxes[place + 1 :])


def test_legend_counts_cells(compared, adata):
    ax: Any = expression(adata, adata.uns["label"], n_genes=1)
    sources = sources_of(compared, adata, [adata.var_names[0]])
    expected = [f"{name} ({len(values):,} cells)" for name, values in sources.items()]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == expected


def test_unknown_gene(adata):
    with pytest.raises(
        KeyError, match=r"Expected `genes` from `adata.var_names` that are predicted, found \['nothing'\]"
    ):
        expression(adata, adata.uns["label"], genes=["GENE_001", "nothing"])
