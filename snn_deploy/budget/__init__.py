"""Budgets: events times prices, and memory against limits."""

from snn_deploy.budget.findings import Finding, Fit, findings, fit_error, smallest_fitting, verdict
from snn_deploy.budget.memory import microcontroller_usage
from snn_deploy.budget.price import Budget, Energy, Line, RankNote, price, ranking

__all__ = [
    "Budget",
    "Energy",
    "Finding",
    "Fit",
    "Line",
    "RankNote",
    "findings",
    "fit_error",
    "microcontroller_usage",
    "price",
    "ranking",
    "smallest_fitting",
    "verdict",
]
