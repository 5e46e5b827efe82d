"""Starting a fit from a fitted flow: what two gene panels and two sets of conditions share is kept."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from anndata import AnnData
from numpy.typing import NDArray
from scipy.spatial import KDTree
from scipy.special import logit
from torch import Tensor

from perturbflow._checks import check_type, check_unique_names, listing
from perturbflow.flow import NETWORKS, AdditiveHurdlePrior, ConditionalFlow, FlowConfig
from perturbflow.predict._fitted_flow import FittedFlow, read_flow
from perturbflow.screen._conditions import Vocabulary

Entry = tuple[str, str, str]

N_NEIGHBOURS = 10
# How a network starts, is laid out over the genes or is trained; everything else is part of what its weights mean.
_FREE_OPTIONS = ("dropout", "gene_features", "gene_order")


def resolve_init(init_from: str | Path | AnnData | FittedFlow, adata: AnnData) -> FittedFlow:
    """Find the flow to start from: itself, that of cells, a key of ``adata.uns``, or else a directory."""
    check_type(
        init_from,
        (FittedFlow, AnnData, str, Path),
        name="init_from",
        expected="a fitted flow, an AnnData, a key of `adata.uns` or a directory",
    )
    if isinstance(init_from, FittedFlow):
        return init_from
    if isinstance(init_from, AnnData):
        return read_flow(init_from)
    if isinstance(init_from, str) and init_from in adata.uns:
        return read_flow(adata, init_from)
    if Path(init_from).is_dir():
        return FittedFlow.load(init_from)
    msg = (
        f"Expected `init_from` to be a key of `adata.uns` or a directory, found {str(init_from)!r} but only the keys "
        f"{listing(sorted(map(str, adata.uns)))}. Pass the AnnData that holds the fitted flow, or the directory that "
        "was its `store`."
    )
    raise ValueError(msg)


def inherited_options(fitted: FittedFlow, genes: Sequence[str]) -> dict[str, Any]:
    """Settings with which a new flow has the network of a fitted one, shared genes at their places."""
    config = fitted.flow.config
    genes = _checked_panel(fitted, genes)
    options = {name: value for name, value in config.network_options.items() if name != "gene_features"}
    if "gene_order" in inspect.signature(NETWORKS[config.network]).parameters:
        options["gene_order"] = _inherited_order(fitted.genes, options.get("gene_order"), genes)
    return {
        "parametrisation": config.parametrisation,
        "network": config.network,
        "width": config.width,
        "n_blocks": config.n_blocks,
        "network_options": options,
    }


def transfer_weights(
    fitted: FittedFlow, flow: ConditionalFlow, genes: Sequence[str], vocabulary: Vocabulary
) -> dict[str, Any]:
    """Copy what a fitted network has learned into a new one, and return what was shared, new and dropped.

    Weights of genes, components and categories are matched by name. A new gene starts from the shared ones that look like it
    in the new prior, so that depth and technique do not count; new components and categories start at zero ("not known").
    """
    genes = _checked_panel(fitted, genes)
    _check_same_network(fitted.flow.config, flow.config)
    places = {gene: place for place, gene in enumerate(fitted.genes)}
    panel = _Panel.match(np.array([places.get(gene, -1) for gene in genes]), flow.prior)
    sources, factors = _condition_columns(fitted, flow, vocabulary)

    weights, axes = {}, flow.network.axes()
    for name, tensor in fitted.flow.network.state_dict().items():
        for axis, kind in axes.get(name, ()):
            first = tensor.movedim(axis, 0)
            if kind == "condition":
                first = _take(first, sources) * factors.to(first).reshape(-1, *[1] * (first.ndim - 1))
            else:
                blocks = first.unflatten(0, (-1, len(fitted.genes)))
                first = torch.cat([panel.rows(block) for block in blocks])
            tensor = first.movedim(0, axis)
        weights[name] = tensor
    flow.network.load_state_dict(weights)
    return _report(fitted, genes, vocabulary)


@dataclass(frozen=True, eq=False)
class _Panel:
    """Sources of the genes of a new panel."""

    source: NDArray[np.intp]  # place in the old panel of every gene (G,); -1 for new genes
    neighbours: NDArray[np.intp]  # places in the old panel of the shared genes that a new gene starts from (m, k)
    shares: NDArray[np.float32]  # how much each counts (m, k), rows of sum 1

    @classmethod
    def match(cls, source: NDArray[np.intp], prior: AdditiveHurdlePrior) -> _Panel:
        """Find the shared genes whose statistics are nearest to those of the new ones; O(G log G)."""
        shared = source >= 0
        statistics = np.column_stack([logit(prior.all_expressed), prior.all_mean, np.log(prior.variance)]).astype(float)
        spread = statistics[shared].std(axis=0)
        statistics /= np.where(spread > 0, spread, 1)
        k = min(N_NEIGHBOURS, int(shared.sum()))
        distances, nearest = KDTree(statistics[shared]).query(statistics[~shared], k=np.arange(1, k + 1))
        kernel = np.exp(-0.5 * (distances / np.maximum(distances[:, -1:], 1e-12)) ** 2)
        shares = kernel / kernel.sum(axis=1, keepdims=True)
        return cls(source, source[shared][nearest], shares.astype(np.float32))

    def rows(self, old: Tensor) -> Tensor:
        """Weights of the new panel (G, ...) from those of the old one."""
        rows = _take(old, self.source)
        start = torch.zeros((len(self.neighbours), *old.shape[1:]), dtype=old.dtype)
        for places, share in zip(self.neighbours.T, torch.as_tensor(self.shares.T), strict=True):
            start += old[places] * share.to(old).reshape(-1, *[1] * (old.ndim - 1))
        rows[self.source < 0] = start
        return rows


def _take(old: Tensor, source: NDArray[np.intp]) -> Tensor:
    """Rows of a tensor, zero where there is no source (-1)."""
    rows = old[source].clone()
    rows[source < 0] = 0
    return rows


def _condition_columns(
    fitted: FittedFlow, flow: ConditionalFlow, vocabulary: Vocabulary
) -> tuple[NDArray[np.intp], Tensor]:
    """Entry of the old encoded condition behind every new one, -1 where there is none, and factors on their weights."""
    old, new = _entries(fitted.flow, fitted.vocabulary), _entries(flow, vocabulary)
    columns = {entry: column for column, entry in enumerate(old)}
    if not _same_features(fitted, flow, vocabulary):
        columns = {entry: column for entry, column in columns.items() if entry[0] != "feature"}
    sources = [columns.get(entry, -1) for entry in new]
    factors = np.ones(len(new))
    for place, (kind, _, name) in enumerate(new):
        if sources[place] >= 0 and kind == "component":
            before, after = (one.components.index(name) for one in (fitted.vocabulary, vocabulary))
            factors[place] = flow.prior.levels.factor_from(fitted.flow.prior.levels, before, after)
        elif sources[place] >= 0 and kind == "feature":
            factors[place] = _feature_scale(flow) / _feature_scale(fitted.flow)
    return np.array(sources), torch.tensor(factors)


def _entries(flow: ConditionalFlow, vocabulary: Vocabulary) -> list[Entry]:
    """Return what every entry of an encoded condition stands for, in the order of the encoder."""
    return [
        ("known", "", ""),
        *(("component", "", name) for name in vocabulary.components),
        *(("feature", "", str(i)) for i in range(flow.encoder.n_features)),
        *(("category", key, name) for key, names in vocabulary.covariates for name in names),
    ]


def _feature_scale(flow: ConditionalFlow) -> float:
    """Unit of the features that the network sees."""
    if flow.encoder.features is None:
        return 1.0
    return float(np.linalg.norm(flow.prior.features)) / max(float(np.linalg.norm(flow.encoder.features)), 1e-12)


def _same_features(fitted: FittedFlow, flow: ConditionalFlow, vocabulary: Vocabulary) -> bool:
    """Return whether features mean the same: registered ones are centred and rotated anew for every set of components."""
    old, new = fitted.flow.prior.features, flow.prior.features
    places = {component: place for place, component in enumerate(fitted.vocabulary.components)}
    shared = [(places[name], i) for i, name in enumerate(vocabulary.components) if name in places]
    if not shared or old.shape[1] != new.shape[1]:
        return False
    before, after = np.array(shared).T
    return bool(np.allclose(old[before], new[after], rtol=1e-4, atol=1e-6))


def _checked_panel(fitted: FittedFlow, genes: Sequence[str]) -> tuple[str, ...]:
    genes = tuple(map(str, genes))
    check_unique_names(genes, what="the genes", hint="Run `adata.var_names_make_unique()` first.")
    if not set(genes) & set(fitted.genes):
        msg = (
            f"Expected genes of the flow in `init_from`, such as {listing(fitted.genes, limit=3)}, found none of them, "
            f"but {listing(genes, limit=3)}. Check that the names are of the same kind (symbols or identifiers)."
        )
        raise ValueError(msg)
    return genes


def _check_same_network(old: FlowConfig, new: FlowConfig) -> None:
    before, after = _effective(old), _effective(new)
    different = [
        f"`{name}` {after.get(name)!r} instead of {before.get(name)!r}"
        for name in {**before, **after}
        if before.get(name) != after.get(name)
    ]
    if different:
        msg = (
            f"Expected the network of the flow in `init_from`, found {', '.join(different)}. Omit these settings to "
            "use those of `init_from`, or fit from scratch, without `init_from`."
        )
        raise ValueError(msg)


def _effective(config: FlowConfig) -> dict[str, Any]:
    """All settings that the meaning of the weights depends on, defaults of the network included."""
    parameters = inspect.signature(NETWORKS[config.network]).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    settings = {name: v for name, v in (defaults | config.network_settings).items() if name not in _FREE_OPTIONS}
    settings = {name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()}
    return {"parametrisation": config.parametrisation, "network": config.network} | settings


def _inherited_order(old_genes: Sequence[str], order: Sequence[int] | None, genes: Sequence[str]) -> list[int] | None:
    """Order of a new panel in which shared genes stay where they were; None if it is that of the panel."""
    number = {gene: i for i, gene in enumerate(genes)}
    known = set(old_genes)
    fresh = iter([i for i, gene in enumerate(genes) if gene not in known])
    old_order = range(len(old_genes)) if order is None else order
    slots = [number[gene] if gene in number else next(fresh, None) for gene in (old_genes[i] for i in old_order)]
    kept = [*(slot for slot in slots if slot is not None), *fresh]
    return None if kept == list(range(len(genes))) else kept


def _report(fitted: FittedFlow, genes: tuple[str, ...], vocabulary: Vocabulary) -> dict[str, Any]:
    """Parts that a fit takes over; components and categories are known where the flow had training cells."""
    prior, before = fitted.flow.prior, fitted.vocabulary
    trained = {component for component, seen in zip(before.components, prior.trained, strict=True) if seen}
    seen = {
        f"{key}: {categories[code]}"
        for (key, categories), codes in zip(before.covariates, prior.contexts.T, strict=True)
        for code in codes
    }
    categories = [f"{key}: {name}" for key, names in vocabulary.covariates for name in names]
    new_genes = [gene for gene in genes if gene not in set(fitted.genes)]
    n_shared = len(genes) - len(new_genes)
    return {
        "n_shared_genes": n_shared,
        "n_new_genes": len(new_genes),
        "n_dropped_genes": len(fitted.genes) - n_shared,
        "new_genes": new_genes,
        "known_components": [name for name in vocabulary.components if name in trained],
        "new_components": [name for name in vocabulary.components if name not in trained],
        "known_categories": [name for name in categories if name in seen],
        "new_categories": [name for name in categories if name not in seen],
    }
