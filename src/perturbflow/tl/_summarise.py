"""Answer in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perturbflow._checks import check_text
from perturbflow.report._dynamics_findings import dynamics_findings
from perturbflow.report._flow_findings import flow_findings
from perturbflow.report._summary import Findings, Summary
from perturbflow.screen._fields import FIELDS_KEY
from perturbflow.screen._modality import takes_modality
from perturbflow.trajectories._fields import DYNAMICS_FIELDS_KEY

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

CELLS, DYNAMICS = "Perturbed cells", "Dynamics"


@takes_modality
def summarise(
    adata: AnnData | MuData,
    *,
    key: str = "flow",
    evaluation_key: str = "evaluation",
    split_key: str = "split",
    dynamics_key: str = "dynamics",
    graph_key: str = "dynamics_graph",
    modality: str | None = None,
) -> Summary:
    """Say in words what was asked, what was found, what cannot be measured, and what to do next.

    It can be called at any stage: after registration, after a fit, after an evaluation, for perturbed cells, dynamics or
    both. Nothing is fitted, predicted or written.

    Parameters
    ----------
    adata
        Cells that are registered (:func:`perturbflow.pp.setup_perturbation`, :func:`perturbflow.pp.setup_dynamics`).
    key
        The flow in ``adata.uns``, where one was fitted.
    evaluation_key
        The evaluation in ``adata.uns``.
    split_key
        Column of ``adata.obs`` with the split.
    dynamics_key
        The fitted dynamics in ``adata.uns``.
    graph_key
        The graph in ``adata.uns``.

    Returns
    -------
    The summary. ``print`` shows it, a notebook shows it with its table. ``parts`` has the findings by what they are about,
    "Perturbed cells" and "Dynamics": ``asked``, ``found`` and ``not_measurable`` are sentences, ``next_steps`` pairs of a
    ``reason`` and a ``call``, and ``tables`` the tables behind them.

    Raises
    ------
    KeyError
        If nothing is registered.
    ValueError
        If a fit in ``adata.uns`` is damaged, or is something else.

    Notes
    -----
    What is fitted is stored as plain arrays, which print as such: this says what is in them.

    The answer is that of the first held-out split of "test" and "valid" that was judged. An arrow beside a metric points to
    its better side. A model is called better or worse than the best baseline where the 95 % interval of the difference
    over conditions excludes 0. Baselines whose scores are all equal share a column, and columns without any value are left
    out.

    Examples
    --------
    >>> import perturbflow as pf
    >>> adata = pf.datasets.simulated_perturb_seq(n_cells=600, n_genes=50, n_perturbations=4, n_combinations=2)
    >>> pf.pp.setup_perturbation(adata, perturbation_key="perturbation", control="control")
    >>> summary = pf.tl.summarise(adata)
    >>> print(summary)
    Perturbed cells
    ===============
    <BLANKLINE>
    What was asked
      - 6 perturbations (4 alone, 2 in combination), measured in 600 cells of 50 genes; 120 of the cells
        are controls.
      - No condition is held out: all cells are training cells.
    <BLANKLINE>
    What cannot be measured
      - How good predictions of unseen conditions are: nothing is held out.
    <BLANKLINE>
    What to do next
      - Hold out conditions as you want to predict them:
          pf.pp.split_perturbations(adata, task='combination')
      - Fit a flow:
          pf.tl.fit_flow(adata)
    >>> summary.parts["Perturbed cells"].next_steps[1].call
    'pf.tl.fit_flow(adata)'
    """
    keys = {
        "key": key,
        "evaluation_key": evaluation_key,
        "split_key": split_key,
        "dynamics_key": dynamics_key,
        "graph_key": graph_key,
    }
    for name, value in keys.items():
        check_text(value, name=name)
    parts: dict[str, Findings] = {}
    if FIELDS_KEY in adata.uns:
        parts[CELLS] = flow_findings(adata, key=key, evaluation_key=evaluation_key, split_key=split_key)
    if DYNAMICS_FIELDS_KEY in adata.uns:
        parts[DYNAMICS] = dynamics_findings(adata, key=dynamics_key, graph_key=graph_key)
    if not parts:
        msg = (
            f"Expected registered cells, found neither {FIELDS_KEY!r} nor {DYNAMICS_FIELDS_KEY!r} in `adata.uns`. Run "
            "`pf.pp.setup_perturbation(adata, ...)` or `pf.pp.setup_dynamics(adata, ...)` first."
        )
        raise KeyError(msg)
    return Summary(parts)
