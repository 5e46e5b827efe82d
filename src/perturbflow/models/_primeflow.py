"""PRiMeFlow as a scvi-tools model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData
from numpy.typing import NDArray
from scvi import REGISTRY_KEYS
from scvi.data.fields import CategoricalJointObsField, CategoricalObsField, LayerField, ObsmField
from scvi.train import TrainRunner

from perturbflow._checks import check_text
from perturbflow.models._registration import (
    ARGUMENTS,
    FIELDS,
    Module,
    RegisteredModel,
    arguments_of,
    check_anndata,
    field,
    register,
    register_as_saved,
    without_sparse_array,
)
from perturbflow.pp import setup_perturbation
from perturbflow.predict._controls import control_cells
from perturbflow.predict._fitted_flow import FittedFlow
from perturbflow.predict._predicted_uncertainty import warn_of_new_contexts
from perturbflow.predict._prediction import (
    ConditionSampler,
    conditions_to_predict,
    warn_of_extrapolation,
    warn_of_scale,
)
from perturbflow.screen._fields import DOSES_KEY, FIELDS_KEY, check_expression, read_fields
from perturbflow.train._fit import fit
from perturbflow.train._flow_options import FlowModelKwargs, FlowOptions, FlowPlanKwargs
from perturbflow.train._flow_plan import DataModule, FlowData, FlowPlan
from perturbflow.train._transfer import inherited_options

_PERTURBATIONS_KEY = "perturbations"


class FlowModule(Module):
    """The network of a fitted flow, empty before training; the loss is that of the training plan."""

    def __init__(self) -> None:
        super().__init__()
        self.flow: Any = None

    def on_load(self, model: PRiMeFlow, **kwargs: Any) -> None:
        """Rebuild the flow before its weights are read; called by ``load``."""
        del kwargs
        self.flow = FittedFlow.untrained(model.fitted_)

    def take(self, fitted: FittedFlow) -> dict[str, Any]:
        """Take over a flow, and return its other parts: the weights are stored once, as those of the module."""
        self.flow = fitted.flow
        return {name: part for name, part in fitted.to_dict().items() if name not in {"weights", "checksum"}}

    def fitted(self, parts: Mapping[str, Any]) -> FittedFlow:
        """Return the fitted flow of the module and of what :meth:`take` returned."""
        weights = {name: tensor.cpu().numpy() for name, tensor in self.flow.network.state_dict().items()}
        fitted = FittedFlow.from_dict({**parts, "weights": weights})
        fitted.flow = self.flow
        return fitted


class PRiMeFlow(RegisteredModel):
    """Conditional flow matching in gene-expression space, as a scvi-tools model.

    The same fit as :func:`perturbflow.tl.fit_flow`, for those who work with model classes: registration, ``train``,
    ``predict``, ``save`` and ``load`` are those of scvi-tools, its training plan, data splitter and runner are hooks of the
    class. ``load`` unpickles a file, as in every scvi-tools
    model, and so runs code: open only files that you trust, or use the ``store`` of :func:`perturbflow.tl.fit_flow`.

    Parameters
    ----------
    adata
        Cells that were registered with :meth:`setup_anndata`, :meth:`setup_mudata` or
        :func:`perturbflow.pp.setup_perturbation`: an AnnData, or a MuData with one registered modality.
    registry
        Registry of a saved model that is loaded without cells.
    preset
        The recipe that gives every choice that is left out; see :func:`perturbflow.tl.fit_flow`.
    **model_kwargs
        What the flow is made of, such as ``source`` or ``width``: the keys of
        :class:`perturbflow.models.FlowModelKwargs`.

    Examples
    --------
    >>> import perturbflow as pf
    >>> adata = pf.datasets.simulated_perturb_seq(n_cells=600, n_genes=50, n_perturbations=4, n_combinations=2)
    >>> pf.models.PRiMeFlow.setup_anndata(adata, perturbation_key="perturbation", control="control")
    >>> model = pf.models.PRiMeFlow(adata)
    >>> model.train(max_steps=20, progress_bar=False)
    >>> label = adata.obs["perturbation"].cat.categories[0]
    >>> predicted = model.predict(label, seed=1)
    >>> predicted.shape == (int((adata.obs["perturbation"] == "control").sum()), 50)
    True
    >>> from contextlib import redirect_stdout
    >>> from io import StringIO
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder, redirect_stdout(StringIO()):  # scvi-tools says which file it reads
    ...     model.save(folder, overwrite=True)
    ...     again = pf.models.PRiMeFlow.load(folder, adata=adata)
    >>> bool((again.predict(label, seed=1) == predicted).all())
    True
    """

    _fields_key = FIELDS_KEY
    _arguments = ARGUMENTS
    _module_cls = FlowModule
    _training_plan_cls = FlowPlan
    _data_splitter_cls = FlowData
    _train_runner_cls = TrainRunner

    def __init__(
        self,
        adata: AnnData | MuData | None = None,
        registry: dict | None = None,
        *,
        preset: str = "default",
        **model_kwargs: Unpack[FlowModelKwargs],
    ) -> None:
        super().__init__(adata, registry)
        self.preset = preset
        self.model_kwargs = model_kwargs
        options = FlowOptions.of(preset, model_kwargs=model_kwargs)
        self.module = self._module_cls()
        self._model_summary_string = "PRiMeFlow with " + ", ".join(f"{k}={v}" for k, v in options.model.items())
        self.init_params_ = self._get_init_params(locals())

    @classmethod
    def setup_anndata(
        cls,
        adata: AnnData,
        *,
        perturbation_key: str,
        control: str | Sequence[str],
        covariate_keys: Sequence[str] = (),
        dose_key: str | None = None,
        batch_key: str | None = None,
        layer: str | None = None,
        separator: str = "+",
        perturbation_type_key: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Register the fields of ``adata``: :func:`perturbflow.pp.setup_perturbation`, and the manager of scvi-tools.

        Parameters
        ----------
        adata
            Cells with log1p-normalised expression.
        perturbation_key, control, covariate_keys, dose_key, batch_key, layer, separator, perturbation_type_key
            See :func:`perturbflow.pp.setup_perturbation`.
        **kwargs
            What scvi-tools passes when a saved model is loaded.
        """
        given = {name: value for name, value in locals().items() if name in ARGUMENTS}
        check_anndata(adata)
        cls._set_up(adata, None, given | kwargs)

    @classmethod
    def _set_up(cls, data: AnnData | MuData, modality: str | None, arguments: dict[str, Any]) -> None:
        given = cls._take_arguments(arguments)
        saved = arguments.pop(FIELDS, None)
        if saved is None:
            setup_perturbation(data, modality=modality, **given)
        else:
            register_as_saved(data if modality is None else data[modality], saved, arguments)
        cls._register(data, modality, **arguments)

    @classmethod
    def _register(cls, data: AnnData | MuData, modality: str | None = None, **kwargs: Any) -> None:
        adata = data if modality is None else data[modality]
        fields = read_fields(adata)
        without_sparse_array(adata, fields.layer)
        make = partial(field, modality=modality)
        columns = [make(LayerField, REGISTRY_KEYS.X_KEY, fields.layer, is_count_data=False)]
        columns.append(make(ObsmField, _PERTURBATIONS_KEY, DOSES_KEY))
        if fields.context_keys:
            columns.append(make(CategoricalJointObsField, REGISTRY_KEYS.CAT_COVS_KEY, list(fields.context_keys)))
        if fields.batch_key is not None:
            columns.append(make(CategoricalObsField, REGISTRY_KEYS.BATCH_KEY, fields.batch_key))
        register(cls, data, columns, arguments_of(fields), modality=modality, **kwargs)

    def train(
        self,
        max_epochs: int | None = None,
        *,
        max_steps: int = 1500,
        accelerator: str = "auto",
        devices: int | list[int] | str = "auto",
        batch_size: int | None = None,
        plan_kwargs: FlowPlanKwargs | None = None,
        datamodule: DataModule | None = None,
        init_from: FittedFlow | None = None,
        split_key: str = "split",
        seed: int = 0,
        checkpoint: str | Path | None = None,
        progress_bar: bool = True,
        **trainer_kwargs: Any,
    ) -> None:
        """Fit the model with Lightning; see :func:`perturbflow.tl.fit_flow` for what is done.

        Parameters
        ----------
        max_epochs
            Passes over the training cells, instead of ``max_steps``.
        max_steps, plan_kwargs, split_key, seed, checkpoint, progress_bar
            How to fit, as in :func:`perturbflow.tl.fit_flow`.
        accelerator, devices
            Where to train, as in every model of scvi-tools; "auto" takes one GPU where there is one.
        batch_size
            Cells a step, on all devices together; by default that of ``plan_kwargs`` or of the preset.
        datamodule
            Another source of batches.
        init_from
            An earlier flow whose network this one starts from, such as the ``fitted`` of another model.
        **trainer_kwargs
            Options of scvi-tools' trainer, which is Lightning's: ``logger``, ``callbacks``, ``strategy``,
            ``num_nodes`` and so on. The metrics are ``train_loss`` and, at every validation, ``valid_energy``.
        """
        if batch_size is not None:
            plan_kwargs = {**(plan_kwargs or {}), "batch_size": batch_size}
        cells = self._cells()
        options = FlowOptions.of(
            self.preset,
            model_kwargs=self.model_kwargs,
            plan_kwargs=plan_kwargs,
            max_steps=max_steps,
            seed=seed,
            inherited=None if init_from is None else inherited_options(init_from, cells.var_names),
        )
        fitted = fit(
            cells,
            options,
            max_epochs=max_epochs,
            init_from=init_from,
            split_key=split_key,
            checkpoint=checkpoint,
            trainer_kwargs=trainer_kwargs
            | {"accelerator": accelerator}
            | ({} if devices == "auto" else {"devices": devices}),
            datamodule=datamodule,
            run=self._run,
            plan_class=self._training_plan_cls,
            data_class=self._data_splitter_cls,
            progress_bar=progress_bar,
        )
        # Plain arrays and values: what `save` keeps beside the weights of the module.
        self.fitted_ = self.module.take(fitted)
        self.history_ = {
            name: pd.DataFrame({name: fitted.history[name]}, index=pd.Index(fitted.history[steps], name="step"))
            for steps, name in (("step", "loss"), ("step", "learning_rate"), ("valid_step", "valid_energy"))
            if name in fitted.history
        }
        self.is_trained_ = True
        self.module.eval()

    def _run(self, plan: FlowPlan, data: DataModule, **options: Any) -> None:
        """Train with the runner of scvi-tools."""
        options = {name: value for name, value in options.items() if name != "ckpt_path" or value is not None}
        self._train_runner_cls(self, plan, data, **options)()

    @property
    def fitted(self) -> FittedFlow:
        """The fitted flow, independent of AnnData and scvi-tools."""
        self._check_if_trained(warn=False)
        return self.module.fitted(self.fitted_)

    def predict(
        self,
        perturbation: str,
        adata: AnnData | MuData | None = None,
        *,
        covariates: Mapping[str, str] | None = None,
        dose: float | str | Sequence[float] | Mapping[str, float] | None = None,
        guidance: float | None = None,
        n_steps: int | None = None,
        seed: int = 0,
    ) -> NDArray[np.float32]:
        """Predict the perturbed counterparts of control cells.

        Parameters
        ----------
        perturbation
            One label; the order of components does not matter.
        adata
            Control cells, with or without others; by default those of the model. Of a MuData they are in the modality
            that the model was registered with.
        covariates, dose, guidance, n_steps, seed
            As in :func:`perturbflow.tl.predict_perturbation`.

        Returns
        -------
        Predicted cells (number of control cells, G), in the order of the control cells and of the fitted genes: the
        same cells that :func:`perturbflow.tl.predict_perturbation` predicts with the same flow and seed.

        Raises
        ------
        ValueError
            If the perturbation is unknown, its dose cannot be left out, genes are missing, there are no control
            cells, or their expression is not log1p-normalised.
        """
        check_text(perturbation, name="perturbation")
        fitted = self.fitted
        adata = self._cells(adata)
        if adata is None:
            msg = "Expected control cells in `adata`, found none: the model was loaded without cells."
            raise ValueError(msg)
        check_expression(adata, fitted.fields)
        controls = control_cells(adata, fitted.fields, genes=fitted.genes, covariates=covariates)
        sampler = ConditionSampler(fitted, controls, guidance=guidance, n_steps=n_steps, seed=seed)
        conditions = conditions_to_predict(fitted, controls, [perturbation], dose, argument="perturbation")
        warn_of_scale(fitted, controls)
        warn_of_extrapolation(fitted, conditions)
        warn_of_new_contexts(fitted, controls, conditions)
        predicted = np.empty((len(controls.rows), len(fitted.genes)), dtype=np.float32)
        for condition in conditions:
            for batch, cells in sampler.batches(condition, condition.members):
                predicted[condition.members[batch]] = cells
        return predicted
