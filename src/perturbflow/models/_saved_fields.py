"""Registering cells for a saved model: with what the model knows, not with what these cells happen to have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scvi import REGISTRY_KEYS

from perturbflow._checks import listing
from perturbflow.pp import setup_perturbation
from perturbflow.screen._fields import (
    PerturbationFields,
    check_expression,
    check_fields_are_free,
    perturbation_columns,
    text_column,
    write_fields,
)

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

# Of the registration, named like the fields that it writes.
ARGUMENTS = (
    *("perturbation_key", "control", "covariate_keys", "dose_key", "batch_key"),
    *("layer", "separator", "perturbation_type_key"),
)
_FIELDS = "fields"  # argument with the fields of a saved model


def arguments_of(fields: PerturbationFields) -> dict[str, Any]:
    """Return arguments that repeat a registration, plain values, with what the model knows beyond them."""
    arguments = {name: getattr(fields, name) for name in ARGUMENTS}
    if len(fields.controls) > 1:
        arguments["control"] = list(fields.controls)
    return arguments | {"covariate_keys": list(fields.covariate_keys), _FIELDS: fields.to_dict()}


def set_up(data: AnnData | MuData, modality: str | None, passed: dict[str, Any], **arguments: Any) -> None:
    """Register perturbations, anew or as those of a saved model, whose fields are then taken out of ``passed``.

    It is what scvi-tools passes when a saved model is loaded, or a registration is repeated.
    """
    saved = passed.pop(_FIELDS, None)
    if saved is None:  # also of models that were saved by earlier versions
        setup_perturbation(data, **arguments, modality=modality)
        return
    adata = data if modality is None else data[modality]
    names = adata.var_names  # where a tuner repeats the registration of these very cells
    if "source_registry" in passed:
        names = passed["source_registry"]["field_registries"][REGISTRY_KEYS.X_KEY]["state_registry"]["column_names"]
    register_as_saved(adata, PerturbationFields.from_dict(saved), genes=list(map(str, names)))


def register_as_saved(adata: AnnData, fields: PerturbationFields, *, genes: list[str]) -> None:
    """Register cells with the fields of a saved model, or raise and write nothing; control cells alone are enough."""
    missing, more = (
        [gene for gene in some if gene not in set(others)]
        for some, others in ((genes, adata.var_names), (adata.var_names, genes))
    )
    if missing or more or len(genes) != adata.n_vars:
        msg = (
            f"Expected the {len(genes)} genes of the saved model in `adata.var_names`, found {len(missing)} missing: "
            f"{listing(missing)}, and {len(more)} further ones: {listing(more)}. Select those of the model, "
            "`adata[:, model.fitted.genes]` with `model = PRiMeFlow.load(folder, adata=False)`."
        )
        raise ValueError(msg)
    check_fields_are_free(adata)
    check_expression(adata, fields)
    advice = (
        "Control cells are enough to predict: leave other cells out, or fit a model to cells with these perturbations "
        "and covariates."
    )
    labels, _, types = perturbation_columns(adata, fields)
    distinct = set(zip(labels, [None] * len(labels) if types is None else types, strict=True))
    unknown = sorted({label for label, kind in distinct if fields.vocabulary.known(label, kind) is None})
    if unknown:
        msg = (
            f"Expected {fields.control!r} and perturbations that the saved model knows, "
            f"{listing(fields.vocabulary.components)}, in `adata.obs[{fields.perturbation_key!r}]`, found "
            f"{listing(unknown)}. {advice}"
        )
        raise ValueError(msg)
    for key, categories in fields.vocabulary.covariates:
        unknown = sorted(set(text_column(adata, key).tolist()) - set(categories))
        if unknown:
            msg = (
                f"Expected values of `adata.obs[{key!r}]` that the saved model knows, {listing(categories)}, found "
                f"{listing(unknown)}. {advice}"
            )
            raise ValueError(msg)
    write_fields(adata, fields)
