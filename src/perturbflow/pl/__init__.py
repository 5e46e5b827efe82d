"""Plots of what the tools wrote."""

from perturbflow.pl._along_time import knockout_response, trajectories
from perturbflow.pl._calibration import calibration
from perturbflow.pl._decisions import interaction_scores, ranked_perturbations, response_parts
from perturbflow.pl._dose_response import dose_response
from perturbflow.pl._dynamics_graph import dynamics_graph
from perturbflow.pl._effects import perturbation_effect, responders
from perturbflow.pl._embedding import embedding
from perturbflow.pl._evaluation import evaluation, verdicts
from perturbflow.pl._expression import expression
from perturbflow.pl._fits import guidance, sparsity_path, training
from perturbflow.pl._graph_judgement import edge_stability, graph_comparison, precision_recall, regulators
from perturbflow.pl._leaderboard import leaderboard
from perturbflow.pl._metric_ranks import metric_ranks
from perturbflow.pl._skeleton import skeleton

__all__ = [
    "calibration",
    "dose_response",
    "dynamics_graph",
    "edge_stability",
    "embedding",
    "evaluation",
    "expression",
    "graph_comparison",
    "guidance",
    "interaction_scores",
    "knockout_response",
    "leaderboard",
    "metric_ranks",
    "perturbation_effect",
    "precision_recall",
    "ranked_perturbations",
    "regulators",
    "responders",
    "response_parts",
    "skeleton",
    "sparsity_path",
    "training",
    "trajectories",
    "verdicts",
]
