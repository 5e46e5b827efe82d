from __future__ import annotations

import threading
import time

import pytest
from pandas.testing import assert_frame_equal

import perturbflow as pf
from perturbflow.evaluation._scores import jobs


@pytest.mark.parametrize("n_jobs", [1, 2, 3])
def test_results_are_in_the_order_of_the_tasks(n_jobs):
    def slow_if_early(task):
        time.sleep(0.01 * (4 - task))
        return task

    with jobs(n_jobs) as in_order:
        assert list(in_order(slow_if_early, range(5))) == list(range(5))


def test_tasks_are_made_here_and_few_at_a_time():
    made: list[int] = []
    done: list[None] = []

    def tasks():
        for task in range(20):
            assert threading.current_thread() is threading.main_thread()
            made.append(task)
            yield task

    with jobs(2) as in_order:
        for _ in in_order(lambda task: task, tasks()):
            done.append(None)
            assert len(made) - len(done) <= 3


def test_errors_arrive():
    def fail(task):
        msg = f"task {task}"
        raise ValueError(msg)

    with jobs(2) as in_order, pytest.raises(ValueError, match="task 0"):
        list(in_order(fail, range(3)))


def test_values_do_not_depend_on_the_number_of_jobs():
    adata = pf.datasets.simulated_perturb_seq(n_cells=500, n_genes=40, n_perturbations=4, n_combinations=2)
    pf.pp.setup_perturbation(adata, perturbation_key="perturbation", control="control")
    pf.pp.split_perturbations(adata, task="combination", seed=0)
    one, two = (
        pf.tl.evaluate(
            adata, key=None, metrics="all", n_resamples=10, n_permutations=19, n_jobs=n, progress_bar=False, copy=True
        )
        for n in (1, 2)
    )
    for name in ("evaluation", "evaluation_summary", "evaluation_verdicts"):
        assert one is not None
        assert two is not None
        assert_frame_equal(one.uns[name], two.uns[name], rtol=1e-6)
