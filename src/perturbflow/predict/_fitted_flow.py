"""A fitted flow: weights, prior and everything needed to predict, as plain arrays and values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray

from perturbflow._checks import check_key
from perturbflow._warnings import warn
from perturbflow.flow import AdditiveHurdlePrior, Calibration, ConditionalFlow, FlowConfig, GeneSupport, Responses
from perturbflow.flow._model import PREDICTION_SETTINGS
from perturbflow.predict._dynamics_store import plain
from perturbflow.predict._flow_arrays import check_parts
from perturbflow.predict._torch_state import usual_torch
from perturbflow.screen._conditions import Vocabulary
from perturbflow.screen._fields import PerturbationFields
from perturbflow.screen._named_arrays import chosen
from perturbflow.store._entry import Entry
from perturbflow.store._file import read_file, write_file
from perturbflow.store._keys import is_record
from perturbflow.store._stored_checks import checksum, reading

CONTROL_TOTALS = "control_totals"
"""Setting with percentiles of the totals of control cells, to compare new ones with."""
FILE = "flow.safetensors"
"""Name of the one file of a flow in a directory."""
_ARRAY_PARTS = ("calibration", "guidance_curve", "history", "prior", "responses", "support", "weights")
_ENTRY = Entry(
    what="a fitted flow",
    format=6,
    names=frozenset({*_ARRAY_PARTS, "config", "settings", "fields", "fitted_splits", "genes", "init"}),
    # Nothing is predicted from the history, and settings of prediction may be changed.
    may_change=("history", *(f"config/{name}" for name in sorted(PREDICTION_SETTINGS))),
    advice="Fit again with `pf.tl.fit_flow`, or read what you had stored again.",
)


_STORE, _IDENTITY = "store", "id"


@dataclass(eq=False)
class FittedFlow:
    """A flow that is ready to predict, and how it came about.

    Parameters
    ----------
    flow
        The flow, with its prior.
    genes
        Names of the genes, in the order of all arrays.
    fields
        The fields it was fitted with, among them the vocabulary of perturbations and covariates.
    history
        Training history: named arrays.
    fitted_splits
        Splits whose cells the flow has seen: ``("train",)``, or ``("train", "valid")`` where the prior was
        estimated anew on both after every choice was made.
    settings
        How it was trained, plain values.
    guidance_curve
        What the weight of guidance trades on validation conditions: ``weight``, ``energy_distance``, ``recall`` and
        the standard errors of both (w,); empty without validation conditions, or where the weight was given.
    calibration
        How large the errors of predicted means are.
    init
        What a fit took over from an earlier one, plain values; empty for a fit from scratch.

    Examples
    --------
    >>> import perturbflow as pf
    >>> adata = pf.datasets.simulated_perturb_seq(n_cells=600, n_genes=50, n_perturbations=4, n_combinations=2)
    >>> pf.pp.setup_perturbation(adata, perturbation_key="perturbation", control="control")
    >>> options = pf.models.FlowOptions.of(plan_kwargs={"calibrate": False}, max_steps=20)
    >>> fitted = pf.models.fit(adata, options, progress_bar=False)
    >>> from tempfile import TemporaryDirectory
    >>> controls = adata[adata.obs["perturbation"] == "control"].to_df().to_numpy()
    >>> dose = fitted.vocabulary.encode_perturbations([fitted.vocabulary.components[0]]).toarray()[0]
    >>> cells = fitted.sample(controls, dose, np.zeros(0, dtype=int), rng=np.random.default_rng(0))
    >>> cells.shape == controls.shape
    True
    >>> with TemporaryDirectory() as folder:
    ...     identity = fitted.save(folder)
    ...     again = pf.models.FittedFlow.load(folder, identity=identity)
    >>> bool((again.sample(controls, dose, np.zeros(0, dtype=int), rng=np.random.default_rng(0)) == cells).all())
    True
    """

    flow: ConditionalFlow
    genes: tuple[str, ...]
    fields: PerturbationFields
    history: dict[str, NDArray[np.float64]]
    fitted_splits: tuple[str, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    guidance_curve: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    calibration: Calibration = field(default_factory=Calibration.uncalibrated)
    init: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        vocabulary, steps = self.vocabulary, self.history.get("step", np.zeros(0))
        return (
            f"FittedFlow({len(vocabulary.components)} perturbations, {len(self.genes)} genes, covariates "
            f"{[name for name, _ in vocabulary.covariates]}, {int(steps[-1]) if len(steps) else 0} training steps on "
            f"{list(self.fitted_splits)})"
        )

    @property
    def vocabulary(self) -> Vocabulary:
        """Perturbation components and covariates with a number."""
        return self.fields.vocabulary

    @property
    def config(self) -> dict[str, Any]:
        """Shape and settings of the flow, plain values."""
        return self.flow.config.to_dict()

    @usual_torch()
    def sample(
        self,
        controls: NDArray[np.float32],
        perturbation: NDArray[np.floating],
        covariates: NDArray[np.integer],
        *,
        rng: np.random.Generator,
        **changes: Any,
    ) -> NDArray[np.float32]:
        """Predict perturbed cells of one condition; see :meth:`perturbflow.flow.ConditionalFlow.sample`.

        Parameters
        ----------
        controls
            Control cells (n, G): a table with names of genes, or an array in the order of ``genes``.
        perturbation
            Dose of every component (P,), as ``vocabulary.encode_perturbations`` gives it, or a Series with their names.
        covariates
            Codes of the covariates (K,), or a Series with their names.
        rng
            Source of randomness.
        **changes
            Settings of prediction that differ from the configuration.

        Returns
        -------
        Predicted cells (n, G).
        """
        given = {"controls": controls, "perturbation": perturbation, "covariates": covariates}
        names = {
            "genes": self.genes,
            "components": self.vocabulary.components,
            "covariates": [name for name, _ in self.vocabulary.covariates],
        }
        arrays: list[Any] = []
        for (name, values), (what, wanted) in zip(given.items(), names.items(), strict=True):
            named = chosen(values, wanted, name=name, what=what)
            arrays.append(values if named is None else named)
        return self.flow.sample(*arrays, rng=rng, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Everything as nested dictionaries of arrays and plain values, which h5ad and zarr can hold.

        Returns
        -------
        Every part by name.
        """
        weights = {name: tensor.cpu().numpy() for name, tensor in self.flow.network.state_dict().items()}
        return _ENTRY.sealed(
            {
                "config": self.config,
                "settings": dict(self.settings),
                "fields": self.fields.to_dict(),
                "fitted_splits": list(self.fitted_splits),
                "genes": np.array(self.genes, dtype=object),
                "calibration": self.calibration.to_arrays(),
                "guidance_curve": dict(self.guidance_curve),
                "history": dict(self.history),
                "init": dict(self.init),
                "prior": self.flow.prior.to_arrays(),
                "responses": self.flow.responses.to_arrays(),
                "support": self.flow.support.to_arrays(),
                "weights": weights,
            }
        )

    @classmethod
    @usual_torch()
    def from_dict(cls, values: Mapping[str, Any], *, where: str = "`values`") -> Self:
        """Rebuild what :meth:`to_dict` gave, also after a file has turned lists into arrays.

        Parameters
        ----------
        values
            Every part by name.
        where
            How messages call their place.

        Returns
        -------
        The fitted flow.

        Raises
        ------
        ValueError
            If it was written by a version with another format, or is incomplete, has values
            that a fit does not have, or was changed.
        """
        return _ENTRY.opened(values, where=where, check=check_parts, build=cls._from_parts)

    @staticmethod
    def untrained(values: Mapping[str, Any]) -> ConditionalFlow:
        """Make a flow of the configuration and the prior of a fitted one, whose weights are those before training.

        Parameters
        ----------
        values
            Every part by name, as of :meth:`to_dict`.

        Returns
        -------
        The flow.
        """
        return ConditionalFlow(
            FlowConfig.from_dict(values["config"]),
            AdditiveHurdlePrior.from_arrays(values["prior"]),
            responses=Responses.from_arrays(values["responses"]),
            support=GeneSupport.from_arrays(values["support"]),
        )

    @classmethod
    def _from_parts(cls, values: Mapping[str, Any]) -> Self:
        """Rebuild from parts that fit each other."""
        import torch

        flow = cls.untrained(values)
        flow.network.load_state_dict({name: torch.tensor(np.asarray(a)) for name, a in values["weights"].items()})
        flow.eval()
        return cls(
            flow=flow,
            genes=tuple(map(str, values["genes"])),
            fields=PerturbationFields.from_dict(values["fields"]),
            history={name: np.asarray(array) for name, array in values["history"].items()},
            fitted_splits=tuple(map(str, values["fitted_splits"])),
            settings={name: plain(value) for name, value in values["settings"].items()},
            guidance_curve={name: np.asarray(array) for name, array in values["guidance_curve"].items()},
            calibration=Calibration.from_arrays(values["calibration"]),
            init={name: plain(value) for name, value in values["init"].items()},
        )

    def save(self, folder: str | Path) -> str:
        """Write one file in a directory: safetensors with JSON; nothing in it runs code when it is read.

        Parameters
        ----------
        folder
            The directory; it is made if there is none. An earlier flow in it is replaced once all is written: who reads
            meanwhile gets the one or the other.

        Returns
        -------
        What tells the flow from others, for :meth:`load`.

        Raises
        ------
        OSError
            If it cannot be written.
        """
        values = self.to_dict()
        identity = checksum(values, without=("history",))
        arrays = {f"{part}/{name}": array for part in _ARRAY_PARTS for name, array in values.pop(part).items()}
        values |= {"genes": list(self.genes), "id": identity}
        write_file(Path(folder) / FILE, arrays, values, kind=_ENTRY.what)
        return identity

    @classmethod
    def load(cls, folder: str | Path, *, identity: str | None = None) -> Self:
        """Read a directory that :meth:`save` has written.

        Parameters
        ----------
        folder
            The directory.
        identity
            What :meth:`save` returned, where no other flow will do.

        Returns
        -------
        The fitted flow.

        Raises
        ------
        FileNotFoundError
            If the directory holds no flow.
        ValueError
            If what it holds is damaged, see :meth:`from_dict`, or is another flow.
        """
        path = Path(folder) / FILE
        if not path.is_file():
            msg = (
                f"Expected `{FILE}` in {str(folder)!r}, found no fitted flow. "
                "If the directory has moved, set the `store` entry of the flow in `adata.uns` to its new place."
            )
            raise FileNotFoundError(msg)
        arrays, values = read_file(path, kind=_ENTRY.what, advice=_ENTRY.advice)
        where = f"the file {str(path)!r}"
        with reading(_ENTRY.what, where=where, advice=_ENTRY.advice):
            found = values.pop("id")
            values |= {part: {} for part in _ARRAY_PARTS}
            for name, array in arrays.items():
                part, _, key = name.partition("/")
                values[part][key] = array
        if identity is not None and found != identity:
            msg = (
                f"Expected the fitted flow {identity!r} in {str(path)!r}, found another one, {found!r}, which replaced it. Fit "
                f"again with another `store`, or set the `id` entry of the flow in `adata.uns` to {found!r}."
            )
            raise ValueError(msg)
        return cls.from_dict(values, where=where)


def write_flow(adata: AnnData, fitted: FittedFlow, *, key: str = "flow", store: str | Path | None = None) -> None:
    """Write a fitted flow to ``uns[key]``, or to a directory that it names; if that fails, with a warning."""
    if store is not None:
        try:
            identity = fitted.save(store)
        except OSError as error:
            warn(
                f"The fitted flow could not be written to {str(store)!r} ({error}) and was kept in `adata.uns[{key!r}]`. "
                f"`pf.models.FittedFlow.from_dict(adata.uns[{key!r}]).save(folder)` writes it elsewhere."
            )
        else:
            adata.uns[key] = {_STORE: str(Path(store).resolve()), _IDENTITY: identity}
            return
    adata.uns[key] = fitted.to_dict()


def read_flow(adata: AnnData, key: str = "flow") -> FittedFlow:
    """Read a fitted flow from ``uns[key]``, or from the directory that it names."""
    check_key(key, adata.uns, where="adata.uns", hint=f"Run `pf.tl.fit_flow(adata, key_added={key!r})` first.")
    entry = adata.uns[key]
    if not is_record(entry, "flow"):
        msg = (
            f"Expected a fitted flow in `adata.uns[{key!r}]`, found something else. "
            f"Run `pf.tl.fit_flow(adata, key_added=...)` with another key."
        )
        raise ValueError(msg)
    if _STORE in entry:
        identity = entry.get(_IDENTITY)  # earlier versions stored none
        return FittedFlow.load(str(entry[_STORE]), identity=None if identity is None else str(identity))
    return FittedFlow.from_dict(entry, where=f"`adata.uns[{key!r}]`")
