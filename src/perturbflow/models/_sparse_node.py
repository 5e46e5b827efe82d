"""Sparse neural ordinary differential equations as a scvi-tools model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scvi import REGISTRY_KEYS
from scvi.data import AnnDataManager
from scvi.data.fields import LayerField, NumericalObsField
from scvi.model.base import BaseModelClass

from perturbflow._dynamics_fields import DYNAMICS_FIELDS_KEY, read_dynamics_fields
from perturbflow._dynamics_store import StoredDynamics
from perturbflow.models._dynamics_module import TIME_KEY, DynamicsModule
from perturbflow.models._fit_dynamics import DynamicsOptions, fit_dynamics
from perturbflow.models._graph import fitted_graph
from perturbflow.pp import setup_dynamics

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from anndata import AnnData
    from numpy.typing import ArrayLike, NDArray


class SparseNODE(BaseModelClass):
    """Sparse neural ordinary differential equations of gene regulation, as a scvi-tools model.

    The same fit as :func:`perturbflow.tl.fit_dynamics`, for those who work with model classes: registration, ``train``,
    ``save`` and ``load`` are those of scvi-tools. Training is perturbflow's own loop and not Lightning's, because its
    stages fit trajectories and not batches of cells. ``load`` unpickles a file, as in every scvi-tools model, and so
    runs code: open only files that you trust.

    Parameters
    ----------
    adata
        Cells that were registered with :meth:`setup_anndata` or :func:`perturbflow.pp.setup_dynamics`.
    registry
        Registry of a saved model that is loaded without cells.
    options
        What to fit, as in :func:`perturbflow.tl.fit_dynamics`: ``field``, ``sparsity``, ``strength``, ...

    Examples
    --------
    >>> import perturbflow as pf
    >>> adata = pf.datasets.hill_network(n_genes=5, n_trajectories=6, n_times=20)
    >>> pf.models.SparseNODE.setup_anndata(adata, time_key="time", trajectory_key="trajectory")
    >>> model = pf.models.SparseNODE(adata, effort=0.02)
    >>> model.train(progress_bar=False)
    >>> model.forecast([0.0, 1.0, 2.0]).shape
    (6, 3, 5)
    """

    _module_cls = DynamicsModule

    def __init__(self, adata: AnnData | None = None, registry: dict | None = None, **options: Any) -> None:
        try:
            super().__init__(adata, registry)
        except ValueError:
            # pp.setup_dynamics does without scvi-tools, which takes seconds to import.
            if adata is None or DYNAMICS_FIELDS_KEY not in adata.uns:
                raise
            self._register(adata)
            super().__init__(adata, registry)
        self.options = DynamicsOptions(**options)
        self.options.check()
        self.module = self._module_cls()
        self._model_summary_string = "SparseNODE with " + (
            ", ".join(f"{name}={value}" for name, value in options.items()) or "the defaults"
        )
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
        control: str = "control",
        separator: str = "+",
        layer: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Register the fields of ``adata``: :func:`perturbflow.pp.setup_dynamics`, and the manager of scvi-tools.

        Parameters
        ----------
        adata
            Cells along time.
        time_key
            See :func:`perturbflow.pp.setup_dynamics`, as for all that follow.
        trajectory_key
            Column of ``obs`` with the trajectory.
        regulators
            Genes that may regulate others.
        prior
            A prior network.
        perturbation_key
            Column of ``obs`` with the genes that an intervention holds.
        control
            Label of cells without intervention.
        separator
            What stands between the genes of a label.
        layer
            Layer with the expression.
        kwargs
            Passed on to scvi-tools.
        """
        setup_dynamics(
            adata,
            time_key=time_key,
            trajectory_key=trajectory_key,
            regulators=regulators,
            prior=prior,
            perturbation_key=perturbation_key,
            control=control,
            separator=separator,
            layer=layer,
        )
        cls._register(adata, **kwargs)

    @classmethod
    def _register(cls, adata: AnnData, **kwargs: Any) -> None:
        fields = read_dynamics_fields(adata)
        manager = AnnDataManager(
            fields=[
                LayerField(REGISTRY_KEYS.X_KEY, fields.layer, is_count_data=False),
                NumericalObsField(TIME_KEY, fields.time_key),
            ],
            setup_method_args={"model_name": cls.__name__, "setup_args": {"time_key": fields.time_key}},
        )
        manager.register_fields(adata, **kwargs)
        cls.register_manager(manager)

    def train(self, *, checkpoint: str | Path | None = None, progress_bar: bool = True) -> None:
        """Fit the model; see :func:`perturbflow.tl.fit_dynamics` for what is done.

        Parameters
        ----------
        checkpoint
            Directory for checkpoints.
        progress_bar
            Whether to show a progress bar.
        """
        stored = fit_dynamics(self.adata, self.options, checkpoint=checkpoint, progress_bar=progress_bar)
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

    def forecast(self, time: ArrayLike, *, start: ArrayLike | None = None) -> NDArray[np.float64]:
        """Predict levels along time.

        Parameters
        ----------
        time
            Times, ascending, shape (n,).
        start
            Levels at the first time (K, d); by default the starts of the trajectories of the fit.

        Returns
        -------
        Levels, shape (K, n, d).
        """
        model = self.fitted.model
        if start is None:
            return model.solve(model.start, time, clamped=model.clamped)
        return model.solve(model.state(np.atleast_2d(np.asarray(start, dtype=float))), time)

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
            Levels at the first time (K, d); by default the starts of the trajectories without intervention.

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
            states = stored.model.state(np.atleast_2d(np.asarray(start, dtype=float)))
        clamp = {stored.position(gene): float(level) for gene, level in levels.items()}
        return stored.model.solve(states, time, clamp=clamp)

    def graph(self, *, method: str = "jacobian", n_bootstraps: int = 0, n_jobs: int = 1, seed: int = 0) -> pd.DataFrame:
        """Return the edges of the gene-dependency graph; see :func:`perturbflow.tl.infer_graph`.

        Parameters
        ----------
        method
            "jacobian" or "gates".
        n_bootstraps
            Number of further fits for the confidence.
        n_jobs
            Fits side by side.
        seed
            Seed of the bootstraps.

        Returns
        -------
        Table with source, target, weight, sign, confidence and evidence.
        """
        stored = self.fitted
        graph = fitted_graph(self.adata, stored, method=method, n_bootstraps=n_bootstraps, n_jobs=n_jobs, seed=seed)
        return graph.edges(stored.genes)
