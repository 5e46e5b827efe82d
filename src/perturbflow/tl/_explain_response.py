"""Parts of the responses of a screen, and how well they are measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from perturbflow._checks import check_whole_number
from perturbflow._warnings import warn
from perturbflow.evaluation._response_parts import judged_cells, response_table, summary_of_parts
from perturbflow.screen._fields import read_screen
from perturbflow.screen._modality import takes_modality
from perturbflow.tl._common import check_result, of_cells, written

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

_FEWEST_CELLS = 4  # one in every quarter


@takes_modality
@of_cells
def explain_response(
    adata: AnnData | MuData,
    *,
    min_cells: int = 10,
    n_resamples: int = 1000,
    seed: int = 0,
    key_added: str = "response_parts",
    modality: str | None = None,
    copy: bool = False,
) -> AnnData | MuData | None:
    r"""Divide the responses of a screen into what all perturbations do, what is conserved over contexts, the rest, and noise.

    It says what there is to predict before any model is judged: a *template* is got right by the mean effect, what is
    *conserved* by carrying the effect of the same perturbation from other contexts, the *interaction* of perturbation
    and context only with cells of both, and *noise* by nobody. All cells are looked at, whatever their split, in one pass.

    With the measured mean effect :math:`d` of a condition, the mean effect :math:`t` of the perturbations of the same
    context that share no component with it, and the mean :math:`k` over its other contexts of what it has there beyond their
    template,

    .. math::

        \lVert d \rVert^2 = \underbrace{d \cdot t - s}_{\text{template}} + \underbrace{d \cdot k}_{\text{conserved}}
        + \text{interaction} + \underbrace{n}_{\text{noise}},

    with the sampling variance n of the effect and s of the controls, which d and t share. :math:`t` and :math:`k` are of
    other cells, so that every part is unbiased. It can be negative: slightly by sampling, and truly where a condition does
    the opposite of what others do.

    Parameters
    ----------
    adata
        Cells with registered fields (:func:`perturbflow.pp.setup_perturbation`).
    min_cells
        Conditions with fewer cells, and contexts with fewer controls, are left out, with a warning. At least 4.
    n_resamples
        Bootstrap samples of perturbations behind the intervals of the summary, at least 1.
    seed
        Seed of the halvings and of the bootstrap.

    Returns
    -------
    None, or the copy with the entries

    `adata.uns["response_parts" | key_added]` : DataFrame
        One row a condition: ``perturbation``, one column per covariate, ``dose`` (if doses are registered), ``n_cells``, and
        as means over genes of squared log1p expression: ``total`` :math:`\lVert d \rVert^2`, ``effect`` (the total
        without noise), ``template``, ``own`` (the effect without the template), ``conserved`` and ``interaction``, into
        which it is divided where the perturbation was measured in several contexts, and ``noise``. ``reliability`` is the
        split-half reliability of the profile over genes, with the correction of Spearman and Brown: the correlation
        with as many new cells. ``own_reliability`` is that without the template; a condition whose reliability is high and
        whose own is about 0 shows what every perturbation shows. NaN for what cannot be told: in a screen of one perturbation
        there is no template, and nothing is taken from any effect.
    `adata.uns["response_parts_summary" | f"{key_added}_summary"]` : DataFrame
        One row a ``part``: ``mean`` over conditions, ``share_of_total``, ``share_of_effect`` with ``lower`` and ``upper``
        (95 %, bootstrap over perturbations), and ``n_conditions``: those that have all parts or, in a screen of one
        context, a template. Shares are ratios of sums: the largest effects decide.

    Raises
    ------
    KeyError
        If fields are missing, with the function to run first.
    ValueError
        If no condition is left, a setting is out of its range, or ``key_added`` names something else.

    Notes
    -----
    Nothing here needs predictions, so that it is a function of its own and no part of :func:`perturbflow.tl.evaluate`. That
    the effects of one perturbation differ between contexts by numbers that add up to about zero makes the interaction too
    large by a share of :math:`1 / (C - 1)` of it at the cost of what is conserved, with C contexts.

    Examples
    --------
    >>> import perturbflow as pf
    >>> adata = pf.datasets.simulated_contexts(4, 10, n_genes=50, seed=1)
    >>> pf.pp.setup_perturbation(adata, perturbation_key="perturbation", control="control", covariate_keys=["context"])
    >>> pf.tl.explain_response(adata)
    >>> summary = adata.uns["response_parts_summary"].set_index("part")
    >>> bool(summary.loc["template", "share_of_effect"] < summary.loc["conserved", "share_of_effect"])
    True
    >>> round(float(summary["share_of_total"].sum()), 6)
    1.0
    """
    check_result(adata, key_added, "response_parts", copy=copy)
    for name, value, least in (("min_cells", min_cells, _FEWEST_CELLS), ("n_resamples", n_resamples, 1)):
        check_whole_number(value, name=name, least=least)
    check_whole_number(seed, name="seed")
    screen, n_left_out = judged_cells(read_screen(adata), min_cells=min_cells)
    if screen.is_control.all():
        msg = (
            f"Expected conditions with at least {min_cells} cells and as many controls in their context, found none of "
            f"{n_left_out}. Lower `min_cells`, or register fewer covariates."
        )
        raise ValueError(msg)
    if n_left_out:
        warn(f"Left out {n_left_out} conditions with fewer than {min_cells} cells, or as few controls.")
    table = response_table(screen, seed=seed)
    summary = summary_of_parts(table, n_resamples=n_resamples, rng=np.random.default_rng(seed))
    return written(adata, copy=copy, uns={key_added: table, f"{key_added}_summary": summary})
