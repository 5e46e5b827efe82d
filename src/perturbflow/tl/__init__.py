"""Tools: fit, predict, judge."""

from perturbflow.tl._dose_response import dose_response
from perturbflow.tl._evaluate import evaluate
from perturbflow.tl._explain_response import explain_response
from perturbflow.tl._export_evaluation import export_evaluation
from perturbflow.tl._fit_dynamics import fit_dynamics
from perturbflow.tl._fit_flow import fit_flow
from perturbflow.tl._graph_exports import graph_table, to_networkx
from perturbflow.tl._infer_graph import infer_graph
from perturbflow.tl._interaction_scores import interaction_scores
from perturbflow.tl._next_perturbations import next_perturbations
from perturbflow.tl._predict_perturbation import predict_perturbation
from perturbflow.tl._rank_perturbations import rank_perturbations
from perturbflow.tl._report import report, summarise
from perturbflow.tl._solutions import forecast, simulate_knockout
from perturbflow.tl._write_cell_eval import write_cell_eval

__all__ = [
    "dose_response",
    "evaluate",
    "explain_response",
    "export_evaluation",
    "fit_dynamics",
    "fit_flow",
    "forecast",
    "graph_table",
    "infer_graph",
    "interaction_scores",
    "next_perturbations",
    "predict_perturbation",
    "rank_perturbations",
    "report",
    "simulate_knockout",
    "summarise",
    "to_networkx",
    "write_cell_eval",
]
