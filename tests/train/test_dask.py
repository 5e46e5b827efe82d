"""Bootstraps are the same on a cluster of dask as one after another."""

from __future__ import annotations

from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest

from perturbflow.tl import infer_graph
from perturbflow.train import _graph

distributed: Any = pytest.importorskip("distributed", reason="a cluster of dask needs distributed")


class Finished(distributed.SchedulerPlugin):
    """Keeps which worker finished every task."""

    def __init__(self) -> None:
        self.workers: dict[Any, str] = {}

    def transition(self, key, start, finish, *args, worker=None, **options):
        if (start, finish) == ("processing", "memory"):
            self.workers[key] = worker


def test_two_workers_give_the_bootstraps_of_a_serial_run(fitted_dynamics, monkeypatch):
    monkeypatch.setattr(_graph, "SHARE_OF_STEPS", 0.1)
    serial = infer_graph(fitted_dynamics, n_bootstraps=4, copy=True)
    # Threads, since new processes would take longer to start than the fits.
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None) as cluster,
        distributed.Client(cluster),
        joblib.parallel_config("dask"),
    ):
        finished = Finished()
        cluster.scheduler.add_plugin(finished)
        infer_graph(fitted_dynamics, n_bootstraps=4, n_jobs=-1)
    assert len(set(finished.workers.values())) == 2
    assert serial is not None
    for name in ("dynamics_graph", "dynamics_graph_evidence"):
        np.testing.assert_array_equal(fitted_dynamics.varp[name].toarray(), serial.varp[name].toarray())
    edges = [adata.uns["dynamics_graph"]["edges"] for adata in (fitted_dynamics, serial)]
    pd.testing.assert_frame_equal(*edges)
