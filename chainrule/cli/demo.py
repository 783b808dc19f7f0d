"""``chainrule demo``: everything at once, on real data, with nothing prepared."""

from importlib import resources
from pathlib import Path

import click

from chainrule.cli.options import json_option
from chainrule.cli.places import data_home
from chainrule.cli.program import FAILED
from chainrule.cli.result import report
from chainrule.cli.run import Launch, run_embedded, say
from chainrule.jobfile import read_job_file

GOOD_ACCURACY = 0.95


@click.command()
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where the coordinator keeps its data and the model ends up. By default ~/.local/share/chainrule/demo.",
)
@json_option('every event as {"event": ...} and then the result')
@click.pass_context
def demo(context: click.Context, data_dir: Path | None, as_json: bool) -> None:
    """Train a network that reads handwritten digits, and watch it learn.

    Starts a coordinator with two workers, uploads the digits of scikit-learn, trains a network of two layers for 30
    epochs and saves it; all of that takes well below a minute. Fails if the network reads fewer than 95 % of the
    digits it has not seen.

    The job is the one in examples/digits.yaml. Change it, and run it again with chainrule train.
    """
    data_dir = (data_dir or data_home() / "demo").absolute()
    with resources.as_file(resources.files("chainrule") / "demo.yaml") as path:
        file = read_job_file(path)
    say("starting a coordinator and two workers on this machine")
    launch = context.find_object(Launch) or Launch()
    outcome = run_embedded(file, data_dir, data_dir / "digits.safetensors", launch, as_json=as_json, alone=True)
    code = report(outcome.job, as_json, model_file=outcome.model_file, metrics=outcome.metrics)
    accuracy = outcome.job.result.validation_accuracy
    if code == 0 and accuracy < GOOD_ACCURACY:
        say(f"chainrule: the validation accuracy is {accuracy:.3f}; this job should reach {GOOD_ACCURACY}")
        code = FAILED
    context.exit(code)
