"""The command ``chainrule``: trains, follows and looks after jobs from a terminal."""

import click

from chainrule.cli.admin import admin
from chainrule.cli.completion import completion
from chainrule.cli.datasets import datasets
from chainrule.cli.demo import demo
from chainrule.cli.evaluate import evaluate
from chainrule.cli.jobs import jobs
from chainrule.cli.models import models
from chainrule.cli.predict import predict
from chainrule.cli.probe import health
from chainrule.cli.program import Program
from chainrule.cli.serve import serve
from chainrule.cli.train import train
from chainrule.cli.worker import worker


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="chainrule", prog_name="chainrule")
def main() -> None:
    """Chainrule trains neural networks on the CPUs you have.

    \b
    See it work, with nothing prepared:
      chainrule demo
    \b
    Train what a file describes, with a coordinator for this run alone:
      chainrule train examples/digits.yaml
    \b
    Or keep one running, and send it jobs from anywhere:
      chainrule serve
      chainrule train examples/digits.yaml --server 127.0.0.1:50051
      chainrule jobs list
    \b
    Ask a model that came of it:
      chainrule predict @latest --input rows.csv
      chainrule evaluate @latest digits
    \b
    Have the shell complete all of this:
      chainrule completion bash --help

    Exit codes: 0 success; 1 the job failed or was cancelled, or a request was refused; 2 the command line is wrong;
    3 no coordinator answers; 130 interrupted by Ctrl-C.
    """


for command in (demo, train, serve, worker, health, jobs, datasets, models, predict, evaluate, admin, completion):
    main.add_command(command)
