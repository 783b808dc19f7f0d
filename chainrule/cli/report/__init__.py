"""A page about a job: one file of HTML, without scripts, that needs nothing else."""

from chainrule.cli.report.history import History, collect
from chainrule.cli.report.page import render

__all__ = ["History", "collect", "render"]
