"""The reports of the commands that analyse a model, in one place for those who call them."""

from __future__ import annotations

from snn_deploy.report.compare import compare_report, rank_notes
from snn_deploy.report.fit import fit_report
from snn_deploy.report.outcome import run_report
from snn_deploy.report.verdict import verify_report

__all__ = ["compare_report", "fit_report", "rank_notes", "run_report", "verify_report"]
