"""The report for people: one HTML file that needs nothing else."""

from scvitune.results.report._page import render_report, write_report

__all__ = ["render_report", "write_report"]
