"""What the model classes share: registration of an AnnData, or of one modality of a MuData, and the place of the module."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from anndata import AnnData
from mudata import MuData
from scipy import sparse
from scvi import REGISTRY_KEYS
from scvi.data import AnnDataManager
from scvi.data.fields import MuDataWrapper
from scvi.model.base import BaseModelClass
from torch import nn

from perturbflow._checks import check_none, check_options, check_type, listing
from perturbflow.screen._fields import (
    PerturbationFields,
    check_expression,
    check_fields_are_free,
    perturbation_columns,
    text_column,
    write_fields,
)
from perturbflow.screen._modality import is_mudata, resolved

logger = logging.getLogger(__name__)

MODALITIES = "modalities"
# Of the registration, named like the fields that it writes.
ARGUMENTS = (
    *("perturbation_key", "control", "covariate_keys", "dose_key", "batch_key"),
    *("layer", "separator", "perturbation_type_key"),
)
FIELDS = "fields"  # argument with the fields of a saved model


class Module(nn.Module):
    """What is fitted, without inference and generation of scvi-tools' kind."""

    @property
    def device(self) -> torch.device:
        """Return where the weights are."""
        return next((weight.device for weight in self.parameters()), torch.device("cpu"))


class RegisteredModel(BaseModelClass):
    """A model of cells that `pf.pp` registers, in an AnnData or in one modality of a MuData.

    A subclass names the entry of ``uns`` with the fields, and registers them with scvi-tools in ``_register``.
    """

    _fields_key: str
    _arguments: tuple[str, ...]  # of the registration, named like the fields that it writes

    def __init__(self, adata: AnnData | MuData | None, registry: dict | None) -> None:
        try:
            super().__init__(adata, registry)
        except ValueError:
            # The functions of pf.pp do without scvi-tools, which takes seconds to import.
            if is_mudata(adata):
                self._register(adata, self._registered_modality(adata))
            elif adata is not None and self._fields_key in adata.uns:
                self._register(adata)
            else:
                raise
            super().__init__(adata, registry)

    @classmethod
    def _registered_modality(cls, mdata: MuData) -> str:
        """Return the one modality whose fields a function of pf.pp has registered."""
        names = [name for name, adata in mdata.mod.items() if cls._fields_key in adata.uns]
        if len(names) != 1:
            msg = (
                f"Expected registered fields in one modality, found them in {names}. "
                f"Run `{cls.__name__}.setup_mudata(mdata, modalities=..., ...)` first."
            )
            raise ValueError(msg)
        return names[0]

    @classmethod
    def setup_mudata(cls, mdata: MuData, *, modalities: Mapping[str, str], **arguments: Any) -> None:
        """Register the fields of one modality of ``mdata``, as ``setup_anndata`` does for an AnnData.

        Parameters
        ----------
        mdata
            Modalities of the same cells.
        modalities
            Modality of the arguments below, such as ``{"layer": "rna"}``. There is one for all of them, so that naming
            one argument is enough.
        **arguments
            Those of ``setup_anndata``.
        """
        cls._set_up(mdata, one_modality(mdata, modalities, arguments=cls._arguments), arguments)

    @classmethod
    @abstractmethod
    def _set_up(cls, data: AnnData | MuData, modality: str | None, arguments: dict[str, Any]) -> None:
        """Register with :mod:`perturbflow.pp`, then with scvi-tools, whose own arguments are among them."""

    @classmethod
    def _take_arguments(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        """Take those of the registration out; what scvi-tools passes is left, and goes with the registry of a saved model."""
        if "source_registry" not in arguments:
            check_options(arguments, (*cls._arguments, FIELDS), name=f"{cls.__name__}.setup_anndata")
        return {name: arguments.pop(name) for name in cls._arguments if name in arguments}

    @classmethod
    @abstractmethod
    def _register(cls, data: AnnData | MuData, modality: str | None = None, **kwargs: Any) -> None:
        """Register with scvi-tools what :mod:`perturbflow.pp` has registered."""

    def _cells(self, data: AnnData | MuData | None = None) -> AnnData:
        """Return the cells that are meant, by default those of the model; of a MuData its registered modality."""
        data = self.adata if data is None else data
        return resolved(data, self.registry_["setup_args"].get(MODALITIES, {}).get("layer"), name="adata")


def field(kind: Any, *args: Any, modality: str | None, **options: Any) -> Any:
    """Return a field of scvi-tools for an AnnData, or its MuData twin."""
    return kind(*args, **options) if modality is None else MuDataWrapper(kind)(*args, mod_key=modality, **options)


def register(
    model: type[BaseModelClass],
    data: AnnData | MuData,
    fields: Sequence[Any],
    setup_args: Mapping[str, Any],
    *,
    modality: str | None,
    **kwargs: Any,
) -> None:
    """Register cells with a class of models; ``fields`` are made by :func:`field`.

    ``setup_args`` repeat the registration, plain values that are saved with a model; ``kwargs`` are what scvi-tools
    passes when a saved model is loaded.
    """
    method = "setup_anndata" if modality is None else "setup_mudata"
    args = dict(setup_args) | ({} if modality is None else {MODALITIES: {"layer": modality}})
    manager = AnnDataManager(
        fields=fields,
        setup_method_args={"model_name": model.__name__, "setup_method_name": method, "setup_args": args},
    )
    scvi_logger = logging.getLogger("scvi")
    level = scvi_logger.level
    scvi_logger.setLevel(logging.WARNING)  # it informs that features have no names, which nobody asked for
    try:
        manager.register_fields(data, **kwargs)
    finally:
        scvi_logger.setLevel(level)
    model.register_manager(manager)


def one_modality(mdata: MuData, modalities: Mapping[str, str], *, arguments: Sequence[str]) -> str:
    """Return the modality that all arguments of a registration are in."""
    if not is_mudata(mdata):
        msg = f"Expected `mdata` to be a MuData, found {type(mdata).__name__}. Use `setup_anndata` for an AnnData."
        raise TypeError(msg)
    check_type(
        modalities,
        Mapping,
        name=MODALITIES,
        expected='a dictionary of modalities by argument, such as {"layer": "rna"}',
    )
    unknown = sorted(set(modalities) - set(arguments))
    expected = f"`modalities` for the arguments {list(arguments)}"
    check_none(unknown, expected, hint="Correct the names.")
    names = sorted(set(modalities.values()))
    if len(names) != 1:
        msg = (
            f"Expected one modality with expression and all columns in `modalities`, found {names}. Copy columns into "
            'the modality with the expression, for example with `mdata.push_obs([...], mods=["rna"])`.'
        )
        raise ValueError(msg)
    return names[0]


def check_anndata(adata: object) -> None:
    """Raise if a MuData is set up like an AnnData."""
    if is_mudata(adata):
        msg = "Expected an AnnData in `adata`, found a MuData. Use `setup_mudata`."
        raise TypeError(msg)


def without_sparse_array(adata: AnnData, layer: str | None) -> None:
    """Turn a sparse array with the expression into a CSR matrix."""
    x = adata.X if layer is None else adata.layers[layer]
    if isinstance(x, sparse.sparray):
        logger.warning(
            "The sparse array was converted to a CSR matrix, because scvi-tools does not support sparse arrays."
        )
        matrix = sparse.csr_matrix(x)
        if layer is None:
            adata.X = matrix
        else:
            adata.layers[layer] = matrix


def arguments_of(fields: PerturbationFields) -> dict[str, Any]:
    """Return arguments that repeat a registration, plain values, with what the model knows beyond them."""
    arguments = {name: getattr(fields, name) for name in ARGUMENTS}
    if len(fields.controls) > 1:
        arguments["control"] = list(fields.controls)
    return arguments | {"covariate_keys": list(fields.covariate_keys), FIELDS: fields.to_dict()}


def register_as_saved(adata: AnnData, saved: dict[str, Any], passed: dict[str, Any]) -> None:
    """Register cells with the fields of a saved model, or raise and write nothing; control cells alone are enough.

    ``passed`` is what scvi-tools passes when a saved model is loaded, or a registration is repeated.
    """
    fields = PerturbationFields.from_dict(saved)
    genes = list(map(str, adata.var_names))  # where a tuner repeats the registration of these very cells
    if "source_registry" in passed:
        state = passed["source_registry"]["field_registries"][REGISTRY_KEYS.X_KEY]["state_registry"]
        genes = list(map(str, state["column_names"]))
    missing, more = (
        [gene for gene in some if gene not in set(others)]
        for some, others in ((genes, adata.var_names), (adata.var_names, genes))
    )
    if missing or more or len(genes) != adata.n_vars:
        msg = (
            f"Expected the {len(genes)} genes of the saved model in `adata.var_names`, found {len(missing)} missing: "
            f"{listing(missing)}, and {len(more)} further ones: {listing(more)}. Select those of the model: "
            "`adata[:, model.fitted.genes]` with `model = PRiMeFlow.load(folder, adata=False)`."
        )
        raise ValueError(msg)
    check_fields_are_free(adata)
    check_expression(adata, fields)
    advice = (
        "Control cells are sufficient for predictions: leave other cells out, or fit a model to cells with these "
        "perturbations and covariates."
    )
    labels, _, types = perturbation_columns(adata, fields)
    distinct = set(zip(labels, [None] * len(labels) if types is None else types, strict=True))
    unknown = sorted({label for label, kind in distinct if fields.vocabulary.known(label, kind) is None})
    known = f"{fields.control!r} and perturbations that the saved model knows, {listing(fields.vocabulary.components)}"
    check_none(unknown, f"{known}, in `adata.obs[{fields.perturbation_key!r}]`", hint=advice)
    for key, categories in fields.vocabulary.covariates:
        unknown = sorted(set(text_column(adata, key).tolist()) - set(categories))
        expected = f"values of `adata.obs[{key!r}]` that the saved model knows, {listing(categories)}"
        check_none(unknown, expected, hint=advice)
    write_fields(adata, fields)
