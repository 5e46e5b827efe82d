"""Memory and time of large screens: whole fits, the first step, contexts, growth, loaders, predictions, choices.

Sparse screens are simulated as simply as possible and written to files, a chunk at a time. Every row is a process of its
own on one thread. Seconds are CPU seconds. Peaks are the highest resident set of a process, imports (about half a gigabyte)
included. Exponents are slopes between the logarithms of sizes and seconds.

    python benchmarks/scale.py [fit first_step contexts growth loader predict choices] [--quick] [--output FOLDER]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from _common import markdown
from _scale_files import apart, write_screen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Row = dict[str, Any]


def fit(folder: Path, *, quick: bool) -> Iterator[Row]:
    """Whole fits of 300 steps from a file, with choices and calibration."""
    from _scale_fit import whole_fit

    for n_cells, n_genes, n_perturbations in (
        [(1500, 40, 6)] if quick else [(200_000, 2000, 1000), (2_000_000, 2000, 1000)]
    ):
        path = folder / "fit.h5ad"
        apart(write_screen, path, n_cells, n_genes, n_perturbations)
        yield apart(whole_fit, path, 4 if quick else 300) | {"file, MB": round(path.stat().st_size / 1e6)}
        path.unlink()


def first_step(folder: Path, *, quick: bool) -> Iterator[Row]:
    """The first step of a fit to a genome-wide screen in a file."""
    from _scale_fit import first_step as until_first_step

    path = folder / "first_step.h5ad"
    apart(write_screen, path, *((1500, 40, 30) if quick else (300_000, 2000, 10_000)))
    yield apart(until_first_step, path)


def contexts(folder: Path, *, quick: bool) -> Iterator[Row]:
    """The prior of many perturbations in many contexts, and its calibration."""
    del folder
    from _scale_prior import Size
    from _scale_prior import contexts as prior_of_contexts

    sizes = [Size(2_000, 30, 10, 4)] if quick else [Size(275_000, 2000, 1100, 50)]
    for size in sizes:
        yield apart(prior_of_contexts, size)


def growth(folder: Path, *, quick: bool) -> Iterator[Row]:
    """Registration, prior, distributions and steps as cells, genes, perturbations and contexts grow."""
    del folder
    from _scale_prior import GROWTH, QUICK, exponents
    from _scale_prior import growth as costs

    for name, sizes in (QUICK if quick else GROWTH).items():
        rows = [apart(costs, size) for size in sizes]
        for row in rows:
            yield {"with": ""} | row
        yield exponents(pd.DataFrame(rows), name)


def loader(folder: Path, *, quick: bool) -> Iterator[Row]:
    """Random batches from files, beside those of annbatch's own loader where it is installed."""
    from _scale_loader import rates, write_zarr

    h5ad, store = folder / "loader.h5ad", folder / "loader.zarr"
    apart(write_screen, h5ad, *((20_000, 40, 6) if quick else (300_000, 2000, 1000)))
    apart(write_zarr, h5ad, store)
    yield from apart(rates, h5ad, store, 1 if quick else 4)


def predict(folder: Path, *, quick: bool) -> Iterator[Row]:
    """Predictions into a file."""
    from _scale_predict import predict as predict_some
    from _scale_predict import write_fitted

    numbers, n_cells, n_genes = ([2], 30, 60) if quick else ([10, 100, 300], 1000, 2000)
    screen = folder / "predict.h5ad"
    labels = apart(write_fitted, screen, max(numbers), n_genes, 2 if quick else 20)
    for number in numbers:
        yield apart(predict_some, screen, labels[:number], n_cells, folder / f"predicted_{number}.zarr")


def choices(folder: Path, *, quick: bool) -> Iterator[Row]:
    """What choosing on held-out conditions costs beside training with the default settings."""
    del folder
    from _scale_fit import choices as costs

    yield apart(costs, *((900, 40, 20) if quick else (10_000, 2000, None)))


PARTS: dict[str, Callable[..., Iterator[Row]]] = {
    "fit": fit,
    "first_step": first_step,
    "contexts": contexts,
    "growth": growth,
    "loader": loader,
    "predict": predict,
    "choices": choices,
}


def main() -> None:
    """Measure and print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--quick", action="store_true", help="tiny screens, in seconds")
    parser.add_argument("--folder", type=Path, help="where files are written for as long as they are needed")
    parser.add_argument("--output", type=Path, help="folder for the tables")
    options = parser.parse_args()
    unknown = sorted(set(options.parts) - PARTS.keys())
    if unknown:
        parser.error(f"Expected parts among {', '.join(PARTS)}, found {', '.join(unknown)}.")
    for name in options.parts or PARTS:
        rows = []
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            for row in PARTS[name](Path(folder), quick=options.quick):
                rows.append(row)
                print(f"  {row}", flush=True)
        table = pd.DataFrame(rows).fillna("")
        print(f"\n{name}: {PARTS[name].__doc__}\n\n{markdown(table.set_index(table.columns[0]))}\n", flush=True)
        if options.output:
            options.output.mkdir(parents=True, exist_ok=True)
            table.to_csv(options.output / f"{name}.csv", index=False)


if __name__ == "__main__":
    main()
