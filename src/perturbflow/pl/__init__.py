"""Plots of what the tools wrote."""

from __future__ import annotations

from perturbflow.pl._calibration import calibration
from perturbflow.pl._dose_response import dose_response
from perturbflow.pl._dynamics_graph import dynamics_graph
from perturbflow.pl._edge_stability import edge_stability
from perturbflow.pl._embedding import embedding
from perturbflow.pl._evaluation import evaluation
from perturbflow.pl._expression import expression
from perturbflow.pl._graph_comparison import graph_comparison
from perturbflow.pl._guidance import guidance
from perturbflow.pl._interaction_scores import interaction_scores
from perturbflow.pl._knockout_response import knockout_response
from perturbflow.pl._leaderboard import leaderboard
from perturbflow.pl._metric_ranks import metric_ranks
from perturbflow.pl._perturbation_effect import perturbation_effect
from perturbflow.pl._precision_recall import precision_recall
from perturbflow.pl._ranked_perturbations import ranked_perturbations
from perturbflow.pl._regulators import regulators
from perturbflow.pl._responders import responders
from perturbflow.pl._response_parts import response_parts
from perturbflow.pl._skeleton import skeleton
from perturbflow.pl._sparsity_path import sparsity_path
from perturbflow.pl._training import training
from perturbflow.pl._trajectories import trajectories
from perturbflow.pl._verdicts import verdicts

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
