"""Labels of perturbed genes from the names of guides."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from perturbflow._checks import check_key, check_text, check_type, listing, nearest
from perturbflow.pp._check_labels import MISSING, control_labels
from perturbflow.screen._conditions import canonical_label
from perturbflow.screen._fields import writable
from perturbflow.screen._modality import takes_modality

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

logger = logging.getLogger(__name__)

_NUMBER = re.compile(r"[_.-](?:(?:sg|g|gRNA|sgRNA|guide|guide_)?[_-]?\d+)$", flags=re.IGNORECASE)


@takes_modality
def guides_to_genes(
    adata: AnnData | MuData,
    guide_key: str,
    *,
    genes: Mapping[str, str] | None = None,
    control: str | Sequence[str] = "control",
    separator: str = "+",
    key_added: str = "perturbation",
    modality: str | None = None,
    copy: bool = False,
) -> AnnData | MuData | None:
    """Write the perturbed genes of every cell, from the guides that were found in it.

    ``"KLF1_g1"`` and ``"KLF1_sg2"`` become ``"KLF1"``, ``"SET_g2+KLF1_g1"`` becomes ``"KLF1+SET"``, several guides of one
    gene become this gene once, and controls beside it do not count. :func:`setup_perturbation` takes the column.

    Parameters
    ----------
    adata
        Cells.
    guide_key
        Column of ``adata.obs`` with the guide of every cell, or several joined by ``separator``.
    genes
        Gene of every guide; those of controls need none. By default what stands before the last number of its name, after
        one of "_", "-" and "." ("KLF1_g1", "KLF1-2", "KLF1.sgRNA3"); names without a number, and those of
        ``adata.var_names`` ("NKX2-5"), are genes.
    control
        What guides without a target are called, as guides or as genes: ``"control"``, or several such as
        ``["NegCtrl", "non-targeting"]``. The first is what control cells are called.
    separator
        What stands between the guides of a cell, and between the genes that are written.
    key_added
        Column of ``adata.obs`` to write. It may be there already; it is overwritten.

    Returns
    -------
    None, or the copy with the entry

    `adata.obs["perturbation" | key_added]` : categorical
        Genes in alphabetical order, joined by ``separator``; the first label of ``control`` where there is none.

    Raises
    ------
    KeyError
        If the column is missing, or ``genes`` lacks a guide, with the most similar ones.
    TypeError
        If an argument is of the wrong type.
    ValueError
        If a cell has no guide, no guide is a control, or ``key_added`` is ``guide_key`` or another
        column that is there.

    Examples
    --------
    >>> import perturbflow as pf
    >>> from anndata import AnnData
    >>> adata = AnnData(obs={"guide": ["NegCtrl_1", "KLF1_g1", "SET_g2+KLF1_g1", "KLF1_g2+NegCtrl_2"]})
    >>> pf.pp.guides_to_genes(adata, "guide", control="NegCtrl")
    >>> adata.obs["perturbation"].tolist()
    ['NegCtrl', 'KLF1', 'KLF1+SET', 'KLF1']
    """
    check_text(guide_key, name="guide_key")
    check_text(separator, name="separator")
    check_text(key_added, name="key_added")
    check_type(genes, (Mapping, type(None)), name="genes", expected="a dictionary of genes by guide")
    if key_added == guide_key:
        msg = f"Expected `key_added` to differ from `guide_key`, found {key_added!r} in both. Choose a new column."
        raise ValueError(msg)
    check_key(guide_key, adata.obs.columns, where="adata.obs")
    controls = control_labels(control)
    guides = adata.obs[guide_key].astype(object)
    text = guides.astype(str)
    missing = guides.isna() | text.str.strip().isin({"", *MISSING} - {*controls})
    if missing.any():
        msg = (
            f"Expected a guide for every cell in `adata.obs[{guide_key!r}]`, found {int(missing.sum())} of {len(text)} cells "
            "without. Remove them, or label controls with the name of a control."
        )
        raise ValueError(msg)
    measured = set(adata.var_names)
    names = {label: _genes_of(label, genes, controls, separator, measured) for label in set(text)}
    if all(names.values()):
        known = sorted({guide for label in names for guide in label.split(separator)})
        msg = (
            f"Expected non-targeting guides named {listing(controls)} in `adata.obs[{guide_key!r}]`, found only "
            f"{listing(nearest(controls[0], known))}. Pass their names as `control`."
        )
        raise ValueError(msg)
    labels = {each: canonical_label(some, control=controls[0], separator=separator) for each, some in names.items()}
    found = text.map(labels)
    if key_added in adata.obs and adata.obs[key_added].astype(str).tolist() != found.tolist():
        msg = (
            "Expected `key_added` to be a new column or one with the same genes, found other values in "
            f"`adata.obs[{key_added!r}]`. Choose another column, or remove this one."
        )
        raise ValueError(msg)
    adata = writable(adata, copy=copy)
    adata.obs[key_added] = pd.Categorical(found)
    logger.info("Read %d perturbations from %d guide labels.", len(set(labels.values())) - 1, len(labels))
    return adata if copy else None


def _genes_of(
    label: str, genes: Mapping[str, str] | None, controls: Sequence[str], separator: str, measured: set[str]
) -> frozenset[str]:
    """Genes of the guides of one cell, without controls."""
    found = set()
    for guide in (part.strip() for part in label.split(separator)):
        if guide in controls:
            continue
        plain = guide if guide in measured else _NUMBER.sub("", guide)
        if genes is not None and guide not in genes and plain not in controls:
            msg = (
                f"Expected the gene of every guide in `genes`, found none for {guide!r}. The most similar guides are "
                f"{nearest(guide, map(str, genes), n=3)}. Add the guide, or pass it in `control`."
            )
            raise KeyError(msg)
        gene = plain if genes is None or guide not in genes else str(genes[guide])
        if gene not in controls:
            found.add(gene)
    return frozenset(found)
