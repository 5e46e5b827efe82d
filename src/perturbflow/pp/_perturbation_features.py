"""Describe perturbations by features, so that those without cells can be predicted."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from perturbflow._checks import (
    check_key,
    check_no_slash,
    check_none,
    check_one_of,
    check_text,
    check_type,
    check_unique_names,
    check_whole_number,
    listing,
)
from perturbflow.dynamics import Snapshot, left_out_responses
from perturbflow.pp._check_labels import MISSING
from perturbflow.screen._conditions import TYPE_MARK, Vocabulary, parse_label
from perturbflow.screen._fields import (
    FEATURE_TABLE_KEY,
    PerturbationFields,
    read_fields,
    text_column,
    writable,
    write_fields,
)
from perturbflow.screen._labels import label_parts, naming
from perturbflow.screen._modality import takes_modality
from perturbflow.screen._splits import check_no_leakage
from perturbflow.store._keys import check_key_added
from perturbflow.trajectories._fields import DYNAMICS_FIELDS_KEY
from perturbflow.trajectories._snapshot_fields import is_snapshot, read_snapshot_fields, snapshot_of

if TYPE_CHECKING:
    from mudata import MuData

logger = logging.getLogger(__name__)

KINDS = ("table", "genes", "smiles")
SOURCES = ("features", "dynamics")
_FINGERPRINT_RADIUS, _FINGERPRINT_BITS = 2, 2048


@takes_modality
def perturbation_features(
    adata: AnnData | MuData,
    features: pd.DataFrame | pd.Series | Mapping[str, str] | str | None = None,
    *,
    kind: Literal["table", "genes", "smiles"] = "table",
    source: Literal["features", "dynamics"] = "features",
    components: Sequence[str] | None = None,
    missing: Literal["error", "mean"] = "error",
    max_features: int = 50,
    split_key: str = "split",
    seed: int = 0,
    key_added: str = FEATURE_TABLE_KEY,
    modality: str | None = None,
    copy: bool = False,
) -> AnnData | MuData | None:
    """Register features of perturbations, from which :func:`perturbflow.tl.fit_flow` predicts those without cells.

    Every perturbation component gets one vector. Columns are centred, and constant columns are dropped. Columns of a table
    are scaled to variance 1, because they may have different units; embeddings and fingerprints are scaled as a whole. If
    there are more columns than components, or more than ``max_features``, they are replaced by their principal component
    scores. All inputs are checked before anything is written.

    Parameters
    ----------
    adata
        Cells that were registered with :func:`perturbflow.pp.setup_perturbation`.
    features
        With kind "table", a numeric DataFrame with one row per component. With "genes", the name of an entry of
        ``adata.varm``, or a DataFrame with one row per gene; a component has the vector of the gene with its name. With
        "smiles", the SMILES of every component, as a Series or dictionary, or the name of a column of ``adata.obs``; a
        component has the Morgan fingerprint (radius 2, 2,048 bits) of its molecule. None with another ``source``.
    kind
        Kind of ``features``.
    source
        "features": those that are passed. "dynamics", for steady-state cells that were also registered with
        :func:`perturbflow.pp.setup_dynamics`: the responses of all genes, in standard deviations, to holding the gene of
        the component, simulated by dynamics fitted to training cells in which this gene was not perturbed.
    components
        Components without cells that should become predictable. By default all components in ``features``; with "genes"
        and from dynamics none.
    missing
        Treatment of components without features: "error", or the "mean" of the others.
    max_features
        Largest number of features F.
    split_key
        Column of ``adata.obs`` with the split. Dynamics are fitted to its training cells; without the column, to all cells.
    seed
        Random seed of the fits of dynamics.
    key_added
        Key in ``adata.uns``.

    Returns
    -------
    None, or the copy. Sets:

    `adata.uns[key_added]`
        Table of the features, components by F.
    `adata.uns["perturbation_fields"]`
        The vocabulary, with the components that have no cells.
    `adata.obsm["perturbation_doses"]` : CSR, float32
        Dose of every component of that vocabulary.

    Raises
    ------
    ImportError
        If SMILES are given and RDKit is not installed.
    KeyError
        If fields are not registered, or the entry of ``varm`` or column of ``obs`` is missing.
    TypeError
        If an argument has the wrong type.
    ValueError
        If components have no features, values are not finite numbers, all columns are constant, a SMILES cannot be
        parsed, or the name of a component without cells is not valid or, from dynamics, not a gene.

    Notes
    -----
    Where components name their type ("MAPK1:CRISPRa"), rows may do so too. A row without a type counts for all types,
    each in columns of its own, since they share nothing; components without cells need their type.

    Examples
    --------
    >>> import perturbflow as pf
    >>> adata = pf.datasets.simulated_perturb_seq(n_cells=600, n_genes=50, n_perturbations=4, n_combinations=2)
    >>> pf.pp.setup_perturbation(adata, perturbation_key="perturbation", control="control")
    >>> pf.pp.perturbation_features(adata, adata.uns["perturbation_embedding"])
    >>> adata.uns["perturbation_feature_table"].shape
    (5, 4)

    Simulated responses, also of a gene that nothing perturbed:

    >>> pf.pp.setup_dynamics(adata, regulators="is_regulator")
    >>> new = adata.var_names[adata.var["is_regulator"]].difference(adata.obs["perturbation"].cat.categories)
    >>> pf.pp.perturbation_features(adata, source="dynamics", components=list(new))
    >>> adata.uns["perturbation_feature_table"].shape
    (5, 4)
    """
    check_one_of(kind, KINDS, name="kind")
    check_one_of(source, SOURCES, name="source")
    check_one_of(missing, ("error", "mean"), name="missing")
    check_whole_number(max_features, name="max_features", least=1)
    check_key_added(adata, key_added, FEATURE_TABLE_KEY)
    check_whole_number(seed, name="seed")
    fields = read_fields(adata)
    if source == "dynamics":
        if features is not None or kind != "table":
            msg = (
                "Expected neither `features` nor `kind` with `source='dynamics'`, found at least one of them. Omit them, "
                "or omit `source`."
            )
            raise ValueError(msg)
        vocabulary = _extended(fields.vocabulary, components or [])
        table = dynamics_vectors(adata, fields, vocabulary.components, split_key=split_key, seed=seed)
    else:
        vocabulary, table = _given(adata, features, fields, kind=kind, components=components, missing=missing)
    # Responses keep their proportions: what hardly moves says little.
    scale_columns = source == "features" and kind == "table"
    table = _standardised(table, scale_columns=scale_columns, max_features=max_features)

    adata = writable(adata, copy=copy)
    write_fields(adata, replace(fields, vocabulary=vocabulary))
    adata.uns[key_added] = table
    logger.info(
        "Registered %d features of %d perturbation components, %d of them without cells before.",
        table.shape[1],
        len(table),
        len(vocabulary.components) - len(fields.vocabulary.components),
    )
    return adata if copy else None


def _given(
    adata: AnnData,
    features: object,
    fields: PerturbationFields,
    *,
    kind: str,
    components: Sequence[str] | None,
    missing: str,
) -> tuple[Vocabulary, pd.DataFrame]:
    """The vocabulary with new components, and the given vector of each component (P, F)."""
    vectors = _VECTORS[kind](adata, features, fields)
    check_unique_names([str(name) for name in vectors.index], what="names of `features`", hint="Keep one row each.")
    vectors.index = vectors.index.astype(str)
    if components is None:
        known = fields.vocabulary
        named = [name for name in vectors.index if not known.has_types or TYPE_MARK in name]
        components = [] if kind == "genes" else [name for name in named if name not in known.controls]
    vocabulary = _extended(fields.vocabulary, components)
    return vocabulary, _vectors_of(vectors, vocabulary, missing=missing)


def _table(adata: AnnData, features: object, fields: PerturbationFields) -> pd.DataFrame:
    check_type(features, pd.DataFrame, name="features", expected="a DataFrame with one row per component")
    return _numbers(features)


def _genes(adata: AnnData, features: object, fields: PerturbationFields) -> pd.DataFrame:
    check_type(features, (str, pd.DataFrame), name="features", expected="a key of `adata.varm` or a DataFrame")
    if isinstance(features, str):
        check_key(features, adata.varm, where="adata.varm")
        entry = adata.varm[features]
        features = entry if isinstance(entry, pd.DataFrame) else pd.DataFrame(np.asarray(entry), adata.var_names)
    return _numbers(features)


def _numbers(table: pd.DataFrame) -> pd.DataFrame:
    """The table as float64, or an error that names its columns without numbers."""
    wrong = [str(column) for column, dtype in table.dtypes.items() if dtype.kind not in "fiub"]
    check_none(wrong, "numbers in all columns of `features`", found="others in ", hint="Drop or encode these.")
    return table.astype(np.float64)


def _smiles(adata: AnnData, features: object, fields: PerturbationFields) -> pd.DataFrame:
    expected = "a Series or dictionary of SMILES or a column of `adata.obs`"
    check_type(features, (str, Mapping, pd.Series), name="features", expected=expected)
    if isinstance(features, str):
        features = _smiles_of_cells(adata, features, fields)
    names = [str(name) for name in features.keys()]  # type: ignore[attr-defined]
    check_unique_names(names, what="names of `features`", hint="Keep one row each.")
    molecules = {str(name): str(text) for name, text in features.items()}  # type: ignore[attr-defined]
    return pd.DataFrame(_fingerprints(molecules), index=list(molecules))


def _smiles_of_cells(adata: AnnData, key: str, fields: PerturbationFields) -> dict[str, str]:
    """SMILES of every component that stands alone in some cell."""
    labels, values = text_column(adata, fields.perturbation_key), text_column(adata, key, missing="")
    found: dict[str, str] = {}
    for label, value in sorted(set(zip(labels.tolist(), values.tolist(), strict=True))):
        parts = parse_label(label, control=fields.controls, separator=fields.separator)
        if len(parts) == 1 and value and found.setdefault(parts[0], value) != value:
            msg = (
                f"Expected one SMILES per perturbation in `adata.obs[{key!r}]`, found {found[parts[0]]!r} and {value!r} "
                f"for {parts[0]!r}. Correct the column."
            )
            raise ValueError(msg)
    return found


def _fingerprints(molecules: Mapping[str, str]) -> NDArray[np.float64]:
    """Morgan fingerprints (n, bits)."""
    try:
        from rdkit import Chem, rdBase
        from rdkit.Chem import rdFingerprintGenerator
    except ImportError as error:
        error.add_note("Fingerprints of SMILES need RDKit: `pip install 'perturbflow[chemistry]'`.")
        raise
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=_FINGERPRINT_RADIUS, fpSize=_FINGERPRINT_BITS)
    with rdBase.BlockLogs():  # RDKit would print what the error below says
        parsed = {name: Chem.MolFromSmiles(text) if text else None for name, text in molecules.items()}
    wrong = [f"{molecules[name]} ({name})" for name, molecule in parsed.items() if molecule is None]
    check_none(wrong, "valid SMILES", hint="Correct them.")
    bits = [generator.GetFingerprintAsNumPy(molecule) for molecule in parsed.values()]
    return np.array(bits, dtype=np.float64).reshape(len(bits), _FINGERPRINT_BITS)


_VECTORS = {"table": _table, "genes": _genes, "smiles": _smiles}


def _extended(vocabulary: Vocabulary, names: Sequence[str]) -> Vocabulary:
    """The vocabulary with further components."""
    check_type(names, (list, tuple, pd.Index, np.ndarray), name="components", expected="a list of names")
    for name in names:
        check_text(name, name="components")
    check_no_slash(names, what="components", hint="Rename them.")
    new = set(names) - set(vocabulary.components)
    wrong = [
        name
        for name in sorted(new)
        if label_parts(name, control=vocabulary.controls, separator=vocabulary.separator) != [name]
        or name in MISSING.union(vocabulary.controls)
        or (vocabulary.has_types and name.count(TYPE_MARK) != 1)
    ]
    kind = f", each with its type as in 'MAPK1{TYPE_MARK}CRISPRa'" if vocabulary.has_types else ""
    others = f"{naming(vocabulary.controls)} and without {vocabulary.separator!r}{kind}"
    check_none(
        wrong, f"names of single perturbations other than {others}", hint="Name those to predict in `components`."
    )
    return replace(vocabulary, components=tuple(sorted({*vocabulary.components, *new})))


def _vectors_of(vectors: pd.DataFrame, vocabulary: Vocabulary, *, missing: str) -> pd.DataFrame:
    """Vector of every component: that of its full name, or that of its name without the type in columns of the type."""
    components = list(vocabulary.components)
    base = [name.split(TYPE_MARK)[0] if vocabulary.has_types else name for name in components]
    rows = [full if full in vectors.index else name for full, name in zip(components, base, strict=True)]
    absent = [component for component, row in zip(components, rows, strict=True) if row not in vectors.index]
    if len(absent) == len(components) or (absent and missing == "error"):
        msg = (
            f"Expected features of all {len(components)} perturbation components, found none for {listing(absent)}. "
            "Add rows for them, check that the names are of the same kind, or pass `missing='mean'`."
        )
        raise ValueError(msg)
    values = vectors.reindex(rows).to_numpy()
    present = np.array([row in vectors.index for row in rows])
    if not np.isfinite(values[present]).all():
        wrong = [c for c, row, ok in zip(components, values, present, strict=True) if ok and not np.isfinite(row).all()]
        msg = f"Expected finite features, found NaN or infinite values for {listing(wrong)}. Fill them in."
        raise ValueError(msg)
    values = np.where(present[:, None], values, values[present].mean(axis=0))
    untyped = [full != row for full, row in zip(components, rows, strict=True)]
    types = [name.split(TYPE_MARK)[-1] if flag else "" for name, flag in zip(components, untyped, strict=True)]
    if len(set(types)) > 1:
        values = np.hstack([np.where(np.array(types)[:, None] == kind, values, 0.0) for kind in sorted(set(types))])
    return pd.DataFrame(values, index=components)


def _standardised(table: pd.DataFrame, *, scale_columns: bool, max_features: int) -> pd.DataFrame:
    """Centred columns of variance 1, each or on average; principal component scores where there are too many."""
    values = table.to_numpy() - table.to_numpy().mean(axis=0)
    sd = values.std(axis=0)
    varies = sd > 1e-9 * np.abs(table.to_numpy()).max(axis=0, initial=0)
    if not varies.any():
        msg = (
            f"Expected features that differ between perturbations, found {table.shape[1]} constant columns for "
            f"{len(table)} components. Pass other features."
        )
        raise ValueError(msg)
    values = values[:, varies] / (sd[varies] if scale_columns else np.sqrt(np.mean(sd[varies] ** 2)))
    if values.shape[1] > min(len(values), max_features):
        left, singular, _ = np.linalg.svd(values, full_matrices=False)
        kept = singular > 1e-9 * singular[0]
        scores = (left * singular)[:, kept][:, :max_features]
        values = scores * np.sign(scores[np.abs(scores).argmax(axis=0), np.arange(scores.shape[1])])
    names = [f"feature_{number}" for number in range(1, values.shape[1] + 1)]
    return pd.DataFrame(values, index=table.index, columns=names)


def dynamics_vectors(
    adata: AnnData, fields: PerturbationFields, components: Sequence[str], *, split_key: str, seed: int
) -> pd.DataFrame:
    """Return the simulated response of all genes to every component (P, d), from training cells.

    Each is simulated by dynamics that saw no cell in which its gene was held, at the level that it was measured at. One
    that was never measured alone is held as far from its mean as others of its type are on average, in the direction of most.
    """
    if DYNAMICS_FIELDS_KEY not in adata.uns or not is_snapshot(adata):
        msg = (
            "Expected steady-state dynamics for `source='dynamics'`, found none registered. Run "
            "`pf.pp.setup_dynamics(adata, regulators=...)` without `time_key` first."
        )
        raise ValueError(msg)
    parts = [name.split(TYPE_MARK) if fields.vocabulary.has_types else [name] for name in components]
    unknown = sorted({gene for gene, *_ in parts} - {*map(str, adata.var_names)})
    hint = "Dynamics only have features of genes: pass a table of features."
    check_none(unknown, "perturbations of genes in `adata.var_names`", hint=hint)
    if split_key in adata.obs:
        adata = adata[check_no_leakage(adata, split_key, fields=fields) == "train"]
    cells = snapshot_of(adata, read_snapshot_fields(adata))
    places = adata.var_names.get_indexer([gene for gene, *_ in parts])
    kinds = ["|".join(kind) for _, *kind in parts]
    shifts = _held_shifts(cells, places, ["|".join(part) for part in parts], kinds)
    # Contexts share their standard levels; the unit of the model is the mean over contexts.
    share = np.bincount(cells.context, minlength=len(cells.centre)) / len(cells.context)
    centre = share @ cells.centre
    levels = [
        {int(place): float(centre[place] + shift * cells.scale[place])}
        for place, shift in zip(places, shifts, strict=True)
    ]
    return pd.DataFrame(left_out_responses(cells, levels, seed=seed), index=list(components))


def _held_shifts(
    cells: Snapshot, places: NDArray[np.intp], names: Sequence[str], kinds: Sequence[str]
) -> NDArray[np.float64]:
    """By how much every component moves its own gene, in standard deviations; of those not measured what is usual."""
    position = {name: row for row, name in enumerate(cells.names)}
    rows = np.array([position.get(name, -1) for name in names])
    found = np.where(rows >= 0, cells.shift[rows, places], np.nan)
    for kind in set(kinds):
        mine = np.array([other == kind for other in kinds])
        known = found[mine & (rows >= 0)]
        upwards = (known > 0).sum() > len(known) / 2
        same = known[(known > 0) == upwards]
        found[mine & (rows < 0)] = same.mean() if len(same) else -1.0
    return found
