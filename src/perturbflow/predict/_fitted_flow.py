"""A fitted flow: weights, prior and everything needed to predict, as plain arrays and values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from perturbflow.flow import AdditiveHurdlePrior, Calibration, ConditionalFlow, FlowConfig
from perturbflow.flow._model import PREDICTION_SETTINGS
from perturbflow.predict._torch_state import usual_torch
from perturbflow.screen._fields import PerturbationFields
from perturbflow.screen._named_arrays import chosen
from perturbflow.store._stored_checks import (
    CALIBRATION,
    CHECKSUM,
    PRIOR,
    check_arrays,
    check_below,
    check_equal,
    check_unchanged,
    checksum,
    reading,
)

if TYPE_CHECKING:
    from typing import Self

    from numpy.typing import NDArray

    from perturbflow.screen._conditions import Vocabulary

FORMAT = 3
CONTROL_TOTALS = "control_totals"
"""Setting with percentiles of the totals of control cells, which new ones are compared with."""
_ARRAY_PARTS = ("calibration", "guidance_curve", "history", "prior", "weights")
_ARRAYS_FILE, _VALUES_FILE = "flow.safetensors", "flow.json"
# Nothing is predicted from the history, and settings of prediction may be changed.
_MAY_CHANGE = ("history", *(f"config/{name}" for name in sorted(PREDICTION_SETTINGS)))
_ADVICE = "Fit again with `pf.tl.fit_flow`, or read what you had stored again."


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
    >>> settings = pf.flow.TrainingSettings(max_steps=20)
    >>> fitted = pf.models.fit(adata, options={"width": 32}, settings=settings, calibrate=False, progress_bar=False)
    >>> import numpy as np
    >>> from tempfile import TemporaryDirectory
    >>> controls = adata[adata.obs["perturbation"] == "control"].to_df().to_numpy()
    >>> dose = fitted.vocabulary.encode_perturbations([fitted.vocabulary.components[0]]).toarray()[0]
    >>> cells = fitted.sample(controls, dose, np.zeros(0, dtype=int), rng=np.random.default_rng(0))
    >>> cells.shape == controls.shape
    True
    >>> with TemporaryDirectory() as folder:
    ...     fitted.save(folder)
    ...     again = pf.models.FittedFlow.load(folder)
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
        values = {
            "format": FORMAT,
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
            "weights": weights,
        }
        return values | {CHECKSUM: checksum(values, without=_MAY_CHANGE)}

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
        if int(values["format"]) != FORMAT:
            is_later = int(values["format"]) > FORMAT
            msg = (
                f"Expected a fitted flow of format {FORMAT} in {where}, found {int(values['format'])}, of "
                f"{'a later' if is_later else 'an earlier'} version. {'Update perturbflow.' if is_later else _ADVICE}"
            )
            raise ValueError(msg)
        with reading("a fitted flow", where=where, advice=_ADVICE):
            fitted = cls._from_parts(values)
            check_unchanged(values, without=_MAY_CHANGE)
        return fitted

    @classmethod
    def _from_parts(cls, values: Mapping[str, Any]) -> Self:
        """Rebuild from parts that fit each other."""
        import torch

        fields = PerturbationFields.from_dict(values["fields"])
        config = FlowConfig.from_dict(values["config"])
        categories = [len(categories) for _, categories in fields.vocabulary.covariates]
        check_equal(len(values["genes"]), config.n_genes, what="genes")
        check_equal(len(fields.vocabulary.components), config.n_components, what="components")
        check_equal(len(categories), len(config.n_categories), what="covariates")
        for key, found, expected in zip(fields.context_keys, categories, config.n_categories, strict=False):
            check_equal(found, expected, what=f"categories of {key!r}")
        sizes = {"G": config.n_genes, "P": config.n_components, "K": len(categories)}
        check_arrays(values["prior"], PRIOR, part="prior", sizes=sizes)
        check_arrays(values["calibration"], CALIBRATION, part="calibration")
        check_arrays(values["weights"], {}, part="weights")
        prior = AdditiveHurdlePrior.from_arrays(values["prior"])
        check_below(prior.group_contexts, len(prior.contexts), what="a context")
        check_below(prior.level_components, config.n_components, what="a component")
        check_below(prior.group_components, config.n_components, what="a component")
        check_equal(int(prior.group_starts[-1]), len(prior.group_components), what="doses of training groups")
        prior.groups.doses.check_format()
        for column, size in enumerate(categories):
            check_below(prior.contexts[:, column], size, what="a category")
        flow = ConditionalFlow(config, prior)
        flow.network.load_state_dict({name: torch.tensor(np.asarray(a)) for name, a in values["weights"].items()})
        flow.eval()
        return cls(
            flow=flow,
            genes=tuple(map(str, values["genes"])),
            fields=fields,
            history={name: np.asarray(array) for name, array in values["history"].items()},
            fitted_splits=tuple(map(str, values["fitted_splits"])),
            settings={name: _plain(value) for name, value in values["settings"].items()},
            guidance_curve={name: np.asarray(array) for name, array in values["guidance_curve"].items()},
            calibration=Calibration.from_arrays(values["calibration"]),
            init={name: _plain(value) for name, value in values["init"].items()},
        )

    def save(self, folder: str | Path) -> None:
        """Write a directory: arrays as safetensors, values as JSON; nothing in it runs code when it is read.

        Parameters
        ----------
        folder
            The directory; it is made if there is none, and an earlier flow in it is replaced once all is written.

        Raises
        ------
        OSError
            If it cannot be written.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import save_file

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        values = self.to_dict()
        arrays = {
            f"{part}/{name}": np.ascontiguousarray(array)
            for part in _ARRAY_PARTS
            for name, array in values.pop(part).items()
        }
        values["genes"] = list(self.genes)
        files = [folder / _ARRAYS_FILE, folder / _VALUES_FILE]
        fresh = [file.with_suffix(f"{file.suffix}.new") for file in files]
        try:
            save_file(arrays, fresh[0])
            fresh[1].write_text(json.dumps(values, indent=1))
            for new, file in zip(fresh, files, strict=True):
                new.replace(file)
        except SafetensorError as error:  # of a disk, since arrays can always be written
            raise OSError(error) from error
        finally:
            for new in fresh:
                new.unlink(missing_ok=True)

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read a directory that :meth:`save` has written.

        Parameters
        ----------
        folder
            The directory.

        Returns
        -------
        The fitted flow.

        Raises
        ------
        FileNotFoundError
            If the directory holds no flow.
        ValueError
            If what it holds is damaged, see :meth:`from_dict`.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        folder = Path(folder)
        if not (folder / _VALUES_FILE).is_file() or not (folder / _ARRAYS_FILE).is_file():
            msg = (
                f"Expected `{_VALUES_FILE}` and `{_ARRAYS_FILE}` in {str(folder)!r}, found no fitted flow. "
                "If the directory has moved, set the `store` entry of the flow in `adata.uns` to its new place."
            )
            raise FileNotFoundError(msg)
        where = f"the directory {str(folder)!r}"
        with reading("a fitted flow", where=where, advice=_ADVICE):
            values = json.loads((folder / _VALUES_FILE).read_text())
            try:
                arrays = load_file(folder / _ARRAYS_FILE)
            except SafetensorError as error:
                raise ValueError(error) from error
            values |= {part: {} for part in _ARRAY_PARTS}
            for name, array in arrays.items():
                part, _, key = name.partition("/")
                values[part][key] = array
        return cls.from_dict(values, where=where)


def _plain(value: Any) -> Any:
    """Turn what a file has made of a plain value back into one."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    return value.item() if isinstance(value, np.generic) else value
