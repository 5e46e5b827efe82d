"""Sparse neural ordinary differential equations as a scvi-tools model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, Unpack

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData
from numpy.typing import ArrayLike, NDArray
from scvi import REGISTRY_KEYS
from scvi.data.fields import LayerField, NumericalObsField

from perturbflow.models._registration import Module, RegisteredModel, check_anndata, field, register
from perturbflow.pp import setup_dynamics
from perturbflow.predict._dynamics_store import StoredDynamics
from perturbflow.predict._solutions import start_levels, warn_beyond, warn_without_effect
from perturbflow.predict._torch_state import usual_torch
from perturbflow.train._dynamics_options import (
    DynamicsModelKwargs,
    DynamicsOptions,
    DynamicsPlanKwargs,
    check_dynamics_model,
    check_dynamics_plan,
)
from perturbflow.train._fit_dynamics import fit_dynamics
from perturbflow.train._graph import fitted_graph
from perturbflow.trajectories._fields import DYNAMICS_FIELDS_KEY, DYNAMICS_PRIOR_KEY, read_dynamics_fields

# Of the registration, named like the fields that it writes.
_ARGUMENTS = ("time_key", "trajectory_key", "regulators", "perturbation_key", "control", "separator", "layer")


_TIME_KEY = "time"


class DynamicsModule(Module):
    """The vector field of fitted dynamics, empty before training; dynamics are fitted to whole courses."""

    def __init__(self) -> None:
        super().__init__()
        self.field: Any = None

    def on_load(self, model: SparseNODE, **kwargs: Any) -> None:
        """Rebuild the field before its weights are read; called by ``load``."""
        del kwargs
        self.field = StoredDynamics.from_dict(model.fitted_).model.field


class SparseNODE(RegisteredModel):
    """Sparse neural ordinary differential equations of gene regulation, as a scvi-tools model.

    The same fit as :func:`perturbflow.tl.fit_dynamics`, for those who work with model classes: registration, ``train``,
    ``save`` and ``load`` are those of scvi-tools. Training is perturbflow's own loop and not Lightning's, because its
    stages fit trajectories and not batches of cells. ``load`` unpickles a file, as in every scvi-tools model, and so
    runs code: open only files that you trust.

    Parameters
    ----------
    adata
        Cells that were registered with :meth:`setup_anndata`, :meth:`setup_mudata` or
        :func:`perturbflow.pp.setup_dynamics`: an AnnData, or a MuData with one registered modality.
    registry
        Registry of a saved model that is loaded without cells.
    field, sparsity, order
        What to fit, as in :func:`perturbflow.tl.fit_dynamics`.
    **model_kwargs
        What the field is made of besides: the keys of :class:`perturbflow.models.DynamicsModelKwargs`.

    Examples
    --------
    >>> import perturbflow as pf
    >>> adata = pf.datasets.hill_network(n_genes=5, n_trajectories=6, n_times=20)
    >>> pf.models.SparseNODE.setup_anndata(adata, time_key="time", trajectory_key="trajectory")
    >>> model = pf.models.SparseNODE(adata)
    >>> model.train(effort=0.02, progress_bar=False)
    >>> model.forecast([0.0, 1.0, 2.0]).shape  # trajectories, times, genes
    (6, 3, 5)
    >>> held = model.simulate_knockout({"gene0": 0.0}, [0.0, 1.0, 2.0])
    >>> held.shape, float(abs(held[..., 0]).max())
    ((6, 3, 5), 0.0)
    >>> model.graph().columns.tolist()
    ['source', 'target', 'weight', 'sign', 'confidence', 'evidence', 'kept']
    """

    _fields_key = DYNAMICS_FIELDS_KEY
    _arguments = (*_ARGUMENTS, "prior")
    _module_cls = DynamicsModule

    def __init__(
        self,
        adata: AnnData | MuData | None = None,
        registry: dict | None = None,
        *,
        field: str = "per_target",
        sparsity: str = "group_lasso",
        order: int = 1,
        **model_kwargs: Unpack[DynamicsModelKwargs],
    ) -> None:
        super().__init__(adata, registry)
        self.options = DynamicsOptions(
            field=field, sparsity=sparsity, order=order, **check_dynamics_model(model_kwargs)
        )
        self.module = self._module_cls()
        chosen = {"field": field, "sparsity": sparsity, "order": order, **model_kwargs}
        self._model_summary_string = "SparseNODE with " + ", ".join(f"{name}={value}" for name, value in chosen.items())
        self.init_params_ = self._get_init_params(locals())

    @classmethod
    def setup_anndata(
        cls,
        adata: AnnData,
        *,
        time_key: str,
        trajectory_key: str | None = None,
        regulators: Sequence[str] | str | None = None,
        prior: Any = None,
        perturbation_key: str | None = None,
        control: str | Sequence[str] = "control",
        separator: str = "+",
        layer: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Register the fields of ``adata``: :func:`perturbflow.pp.setup_dynamics`, and the manager of scvi-tools.

        Parameters
        ----------
        adata
            Cells along time.
        time_key, trajectory_key, regulators, prior, perturbation_key, control, separator, layer
            See :func:`perturbflow.pp.setup_dynamics`.
        **kwargs
            What scvi-tools passes when a saved model is loaded.
        """
        given = {name: value for name, value in locals().items() if name in cls._arguments}
        check_anndata(adata)
        cls._set_up(adata, None, given | kwargs)

    @classmethod
    def _set_up(cls, data: AnnData | MuData, modality: str | None, arguments: dict[str, Any]) -> None:
        given = cls._take_arguments(arguments)
        if isinstance(given.get("prior"), dict):  # the lists of a saved model
            given["prior"] = pd.DataFrame(given["prior"])
        setup_dynamics(data, modality=modality, **given)
        cls._register(data, modality, **arguments)

    @classmethod
    def _register(cls, data: AnnData | MuData, modality: str | None = None, **kwargs: Any) -> None:
        adata = data if modality is None else data[modality]
        fields = read_dynamics_fields(adata)
        make = partial(field, modality=modality)
        columns = [
            make(LayerField, REGISTRY_KEYS.X_KEY, fields.layer, is_count_data=False),
            make(NumericalObsField, _TIME_KEY, fields.time_key),
        ]
        arguments = {name: getattr(fields, name) for name in _ARGUMENTS}
        arguments["regulators"] = list(fields.regulators)
        if fields.other_controls:
            arguments["control"] = list(fields.controls)
        if fields.has_prior:
            arguments["prior"] = _edges(adata)
        register(cls, data, columns, arguments, modality=modality, **kwargs)

    def train(
        self,
        *,
        strength: float | Literal["auto"] = "auto",
        eliminate: bool = True,
        effort: float = 1.0,
        plan_kwargs: DynamicsPlanKwargs | None = None,
        seed: int = 0,
        checkpoint: str | Path | None = None,
        progress_bar: bool = True,
    ) -> None:
        """Fit the model; see :func:`perturbflow.tl.fit_dynamics` for what is done.

        Parameters
        ----------
        strength, eliminate, effort, plan_kwargs, seed, checkpoint, progress_bar
            How to fit, as in :func:`perturbflow.tl.fit_dynamics`.
        """
        options = replace(
            self.options,
            strength=strength,
            eliminate=eliminate,
            effort=effort,
            seed=seed,
            **check_dynamics_plan(plan_kwargs),
        )
        stored = fit_dynamics(self._cells(), options, checkpoint=checkpoint, progress_bar=progress_bar)
        # Plain arrays and values: what `save` keeps, and what `load` rebuilds the module from.
        self.fitted_ = stored.to_dict()
        self.module.field = stored.model.field
        history = pd.DataFrame(stored.model.history)
        self.history_ = {
            str(stage): part.set_index("step")[["loss"]] for stage, part in history.groupby("stage", sort=False)
        }
        self.is_trained_ = True
        self.module.eval()

    @property
    def fitted(self) -> StoredDynamics:
        """The fitted dynamics, independent of AnnData and scvi-tools."""
        self._check_if_trained(warn=False)
        return StoredDynamics.from_dict(self.fitted_)

    @usual_torch()
    def forecast(self, time: ArrayLike, *, start: ArrayLike | None = None) -> NDArray[np.float64]:
        """Predict levels along time.

        Parameters
        ----------
        time
            Times, ascending, shape (n,).
        start
            Levels at the first time (K, d): a table with names of genes, or an array in the order of the fit. By default
            the starts of the trajectories of the fit.

        Returns
        -------
        Levels, shape (K, n, d).
        """
        stored = self.fitted
        model = stored.model
        if start is None:
            values = model.solve(model.start, time, clamped=model.clamped)
        else:
            values = model.solve(model.state(start_levels(start, stored.genes, order=stored.genes)), time)
        warn_beyond(stored, values)
        return values

    @usual_torch()
    def simulate_knockout(
        self, levels: Mapping[str, float], time: ArrayLike, *, start: ArrayLike | None = None
    ) -> NDArray[np.float64]:
        """Predict levels along time while genes are held.

        Parameters
        ----------
        levels
            Level at which each gene is held; 0 in a knock-out.
        time
            Times, ascending, shape (n,).
        start
            Levels at the first time (K, d), as in :meth:`forecast`; by default the starts of the trajectories without
            intervention.

        Returns
        -------
        Levels, shape (K, n, d).

        Raises
        ------
        KeyError
            If a gene is unknown.
        """
        stored = self.fitted
        free = ~stored.model.clamped.any(axis=1)
        states = stored.model.start[free] if free.any() else stored.model.start
        if start is not None:
            states = stored.model.state(start_levels(start, stored.genes, order=stored.genes))
        clamp = {stored.position(gene): float(level) for gene, level in levels.items()}
        warn_without_effect(stored, levels)
        values = stored.model.solve(states, time, clamp=clamp)
        warn_beyond(stored, values, held=list(levels))
        return values

    def graph(self, *, method: str = "jacobian", n_bootstraps: int = 0, n_jobs: int = 1, seed: int = 0) -> pd.DataFrame:
        """Return all pairs of the gene-dependency graph, ranked; see :func:`perturbflow.tl.infer_graph`.

        Parameters
        ----------
        method, n_bootstraps, n_jobs, seed
            As in :func:`perturbflow.tl.infer_graph`; its baselines are no methods of the model.

        Returns
        -------
        Table with source, target, weight, sign, confidence, evidence and whether the graph keeps the pair.
        """
        stored = self.fitted
        graph = fitted_graph(self._cells(), stored, method=method, n_bootstraps=n_bootstraps, n_jobs=n_jobs, seed=seed)
        return graph.edges(stored.genes)


def _edges(adata: AnnData) -> dict[str, list[Any]]:
    """Return the registered prior network as plain lists."""
    network = adata.varp[DYNAMICS_PRIOR_KEY].tocoo()
    genes = adata.var_names.to_numpy(dtype=object)
    return {
        "source": genes[network.row].tolist(),
        "target": genes[network.col].tolist(),
        "weight": network.data.tolist(),
    }
